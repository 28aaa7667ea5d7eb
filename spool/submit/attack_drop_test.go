package submit_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postino/spool"
	"postino/spool/standstill"
)

// dropName is a name that a drop file may have, for each number another one.
func dropName(n int) string { return fmt.Sprintf("%032x", n) }

func (r *rig) path(name string) string { return filepath.Join(r.dir, "drop", name) }

// stored is how many messages there are from somebody.
func (r *rig) stored(from string) int {
	n := 0
	for _, m := range r.messages() {
		if m.Sender.String() == from {
			n++
		}
	}
	return n
}

// must ends a test that cannot be set up.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const victim = "victim@b.test"

// An attack leaves something in drop/. Whatever it is, the mail beside it is taken,
// the attack is no mail, it is reported once, and what lies outside is not touched.
func TestNothingInDropStopsTheMailBesideIt(t *testing.T) {
	evil := func(n int) string {
		return recorded(dropName(n), "evil@b.test", []string{"x@y.test"}, hello)
	}
	for name, attack := range map[string]func(r *rig, path string){
		"symlink to /dev/zero": func(r *rig, p string) { must(r.t, os.Symlink("/dev/zero", p)) },
		"symlink to the spool": func(r *rig, p string) { must(r.t, os.Symlink(filepath.Join(r.dir, "spool.db"), p)) },
		"symlink to a drop file": func(r *rig, p string) {
			must(r.t, os.Symlink(r.path(dropName(9)), p))
		},
		"symlink to itself": func(r *rig, p string) { must(r.t, os.Symlink(p, p)) },
		"symlink to a FIFO": func(r *rig, p string) {
			must(r.t, unix.Mkfifo(filepath.Join(r.dir, "fifo"), 0o666))
			must(r.t, os.Symlink(filepath.Join(r.dir, "fifo"), p))
		},
		"FIFO":      func(r *rig, p string) { must(r.t, unix.Mkfifo(p, 0o666)) },
		"directory": func(r *rig, p string) { must(r.t, os.MkdirAll(filepath.Join(p, "full"), 0o777)) },
		"socket": func(r *rig, p string) {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			must(r.t, err)
			r.t.Cleanup(func() { unix.Close(fd) })
			// By a descriptor: a path of a test is too long for an address.
			dir, err := os.Open(filepath.Dir(p))
			must(r.t, err)
			defer dir.Close()
			must(r.t, unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(p))}))
		},
		"device": func(r *rig, p string) {
			if unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) != nil {
				must(r.t, unix.Mkfifo(p, 0o666)) // not root
			}
		},
		"sparse": func(r *rig, p string) {
			must(r.t, os.WriteFile(p, []byte(evil(1)), 0o640))
			must(r.t, os.Truncate(p, 1<<40))
		},
		"sparse, within the limit": func(r *rig, p string) {
			text := strings.Replace(evil(1), fmt.Sprintf("BDAT %d", len(hello)), fmt.Sprintf("BDAT %d", 1<<30), 1)
			must(r.t, os.WriteFile(p, []byte(text), 0o640))
			must(r.t, os.Truncate(p, 1<<30+int64(len(text)-len(hello))))
		},
		"empty":              func(r *rig, p string) { must(r.t, os.WriteFile(p, nil, 0o640)) },
		"another's name":     func(r *rig, p string) { must(r.t, os.WriteFile(p, []byte(evil(2)), 0o640)) },
		"name in upper case": func(r *rig, _ string) { r.drop(strings.ToUpper(dropName(0xabc)), evil(0xabc)) },
		"no name inside":     func(r *rig, p string) { must(r.t, os.WriteFile(p, []byte(evil(1)[len("EHLO "):]), 0o640)) },
		"second name": func(r *rig, p string) {
			r.drop(dropName(1), evil(1))
			must(r.t, os.Link(p, filepath.Join(r.dir, "other")))
		},
		"open to others": func(r *rig, p string) {
			must(r.t, os.WriteFile(p, []byte(evil(1)), 0o640))
			must(r.t, os.Chmod(p, 0o666))
		},
		"a secret's contents": func(r *rig, p string) { must(r.t, os.WriteFile(p, []byte("root:$6$salt$hash:1:2\n"), 0o640)) },
		"endless line": func(r *rig, p string) {
			must(r.t, os.WriteFile(p, []byte(evil(1)[:50]+strings.Repeat("x", 1<<20)), 0o640))
		},
		"NULs": func(r *rig, p string) { must(r.t, os.WriteFile(p, make([]byte, 1<<20), 0o640)) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			attack(r, r.path(dropName(1)))
			r.drop(dropName(9), recorded(dropName(9), victim, []string{"x@y.test"}, hello))
			for range 3 {
				r.scan()
			}
			if got := len(r.messages()); got != 1 || r.stored(victim) != 1 {
				t.Errorf("%d messages, %d of them the one beside it; in drop/: %q\n%s", got, r.stored(victim), r.dropped(), r.log)
			}
			if text := r.log.String(); !strings.Contains(text, "drop file left") && !strings.Contains(text, "drop file rejected") || strings.Contains(text, "$6$") {
				t.Errorf("said of it:\n%s", text)
			}
		})
	}
}

// What is wrong is said once, however often the directory is looked at, and a flood
// is counted, not listed.
func TestFloodIsReportedInFewLines(t *testing.T) {
	r := newRig(t)
	const flood = 5000
	for i := range flood {
		switch i % 4 {
		case 0:
			must(t, os.WriteFile(r.path(fmt.Sprintf("junk%d\x1b[2J", i)), nil, 0o600))
		case 1:
			must(t, os.WriteFile(r.path(dropName(i)), nil, 0o600))
		case 2:
			must(t, os.Symlink("/etc/passwd", r.path(dropName(i))))
		case 3:
			must(t, os.Mkdir(r.path(dropName(i)), 0o700))
		}
	}
	r.drop(dropName(flood), recorded(dropName(flood), victim, []string{"x@y.test"}, hello))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.srv.Drops(ctx) }()
	for n := 1; n <= 3; n++ {
		standstill.Wait(t, patience, "the mail beside the flood is taken", func() bool { return r.stored(victim) >= n })
		r.drop(dropName(flood+n), recorded(dropName(flood+n), victim, []string{"x@y.test"}, hello))
	}
	cancel()
	must(t, <-done)
	text := r.log.String()
	if n := strings.Count(text, "\n"); n > 100 || !strings.Contains(text, "more drop files") || strings.Contains(text, "\x1b") {
		t.Errorf("%d lines about %d files:\n%.2000s", n, flood, text)
	}
}

// Setting a file aside never replaces another one.
func TestRejectedFileReplacesNobodys(t *testing.T) {
	r := newRig(t)
	must(t, os.WriteFile(r.path("rejected."+dropName(1)), []byte("somebody's"), 0o600))
	must(t, os.Mkdir(r.path("rejected."+dropName(2)), 0o700))
	r.drop(dropName(1), "garbage")
	r.drop(dropName(2), "garbage")
	r.scan()
	if b, err := os.ReadFile(r.path("rejected." + dropName(1))); string(b) != "somebody's" {
		t.Errorf("it is %q now, %v", b, err)
	}
	list := r.dropped()
	if len(list) != 4 {
		t.Errorf("in drop/: %q", list)
	}
	for _, name := range list {
		if name == dropName(1) || name == dropName(2) {
			t.Errorf("%s is left to be read again", name)
		}
	}
}

// What is old by its owner's word alone stays, and no directory is removed for its name.
func TestLeftoversAreOldByTheKernelsWord(t *testing.T) {
	r := newRig(t)
	long := time.Now().Add(-2 * spool.SubmissionAge)
	for _, name := range []string{"tmp.a", "rejected.b"} {
		must(t, os.WriteFile(r.path(name), nil, 0o600))
		must(t, os.Chtimes(r.path(name), long, long))
	}
	must(t, os.Mkdir(r.path("tmp.dir"), 0o700))
	must(t, os.Chtimes(r.path("tmp.dir"), long, long))
	r.scan()
	if n := len(r.dropped()); n != 3 {
		t.Errorf("left in drop/: %q", r.dropped())
	}
}

// A file with a lease makes whoever opens it wait for its holder, until the kernel
// breaks the lease, and then the file would be taken.
func TestLeasedFileDelaysNobody(t *testing.T) {
	r := newRig(t)
	r.drop(dropName(1), recorded(dropName(1), "evil@b.test", []string{"x@y.test"}, hello))
	// The lease is another process's, which does not give it up.
	helper := exec.Command("/proc/self/exe", "-test.run=^TestHoldLease$")
	helper.Env = append(os.Environ(), "POSTINO_TEST_LEASE="+r.path(dropName(1)))
	out, err := helper.StdoutPipe()
	must(t, err)
	must(t, helper.Start())
	must(t, out.(*os.File).SetReadDeadline(time.Now().Add(patience)))
	defer func() {
		helper.Process.Kill()
		helper.Wait()
	}()
	if n, err := out.Read(make([]byte, 1)); n != 1 {
		t.Fatal(err)
	}
	r.drop(dropName(9), recorded(dropName(9), victim, []string{"x@y.test"}, hello))
	done := make(chan struct{})
	go func() { defer close(done); r.scan() }()
	r.ends("the look at drop/", done)
	if r.stored(victim) != 1 || r.stored("evil@b.test") != 0 || !strings.Contains(r.log.String(), "temporarily unavailable") {
		t.Errorf("%d messages; log:\n%s", len(r.messages()), r.log)
	}
	helper.Process.Kill()
	helper.Wait()
	r.scan()
	if r.stored("evil@b.test") != 1 {
		t.Errorf("without its lease it is not taken:\n%s", r.log)
	}
}

// TestHoldLease is the process that TestLeasedFileDelaysNobody starts.
func TestHoldLease(t *testing.T) {
	path := os.Getenv("POSTINO_TEST_LEASE")
	if path == "" {
		t.Skip("a part of another test")
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	must(t, err)
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	must(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock))
	signal.Ignore(syscall.SIGIO) // by which the kernel asks for it
	os.Stdout.WriteString("x")
	time.Sleep(2 * patience) // it is killed before
}
