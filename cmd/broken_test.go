package cmd_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"postino/delivery/relay/relaytest"
	"postino/spool/spooltest"
)

// A file system that goes read-only, or fails as a whole, takes no mail, and the
// runner ends, since what it wrote last may be nowhere. What was taken before is
// delivered once when the file system is back.
func TestBrokenFileSystemLosesNothing(t *testing.T) {
	needsRoot(t)
	for name, tt := range map[string]struct {
		breakIt func(t testing.TB, dir string)
		says    string
	}{
		"read-only": {goReadOnly, "read-only file system"},
		"shut down": {shutDown, "input/output error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := relaytest.New(t, relaytest.Options{Rules: []relaytest.Rule{{At: "MAIL", Reply: "451 4.3.0 later"}}})
			b := newBox(t, relayTo(s.Port())+"[retry]\nfirst = \"1h\"\nmax = \"1h\"\n")
			spooltest.Mount(t, b.spool, "ext4", 64<<20, "errors=remount-ro")
			r := b.start()
			f := &fullDisk{box: b}
			for range 20 {
				f.submit(2 << 10)
			}
			f.submit(1 << 20)
			r.stop()
			b.sendmail("Subject: number 21.\n\nleft in drop/\n", "alice@example.org")
			f.accepted++
			r = b.start()
			tt.breakIt(t, b.spool)
			for range 3 { // by way of the runner and, when that has ended, of drop/
				got := b.run(b.command("Subject: refused\n\nhi\n", b.front, "alice@example.org"))
				if got.code != 73 && got.code != 74 || !strings.Contains(strings.ToLower(got.err), tt.says) {
					t.Errorf("on a broken file system: %+v, want status 73 or 74 and %q", got, tt.says)
				}
			}
			if code := r.wait(); code == 0 {
				t.Error("the runner ended with 0")
			}

			mountAgain(t, b.spool)
			s.SetRules()
			b.start()
			b.postino("retry", "--all")
			b.log.awaitN(t, f.accepted, "msg=finished")
			f.count(s)
		})
	}
}

// device is what is mounted on dir, such as "loop3".
func device(t testing.TB, dir string) string {
	t.Helper()
	out, err := exec.Command("findmnt", "-n", "-o", "SOURCE", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Base(strings.TrimSpace(string(out)))
}

// goReadOnly has ext4 find an error, at which it takes no more changes.
func goReadOnly(t testing.TB, dir string) {
	t.Helper()
	trigger := "/sys/fs/ext4/" + device(t, dir) + "/trigger_fs_error"
	if err := os.WriteFile(trigger, []byte("an error of the test"), 0o200); err != nil {
		t.Fatal(err)
	}
}

// shutDown has ext4 lose all that is not in its journal and fail from then on, as
// a disk does that is pulled out.
func shutDown(t testing.TB, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const command = 0x8004587d // EXT4_IOC_SHUTDOWN: _IOR('X', 125, __u32)
	withoutLogFlush := uint32(2)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), command, uintptr(unsafe.Pointer(&withoutLogFlush))); errno != 0 {
		t.Fatal(errno)
	}
}

// mountAgain mounts anew what is mounted on dir.
func mountAgain(t testing.TB, dir string) {
	t.Helper()
	backing := "/sys/block/" + device(t, dir) + "/loop/backing_file"
	image, err := os.ReadFile(backing)
	if err != nil {
		t.Fatal(err)
	}
	poll(t, "unmount", func() bool { return syscall.Unmount(dir, 0) == nil })
	// Namespaces of other tests have it mounted too until they end, and to mount it once
	// more meanwhile would be to get the broken one back.
	poll(t, "the end of the file system", func() bool {
		now, err := os.ReadFile(backing)
		return err != nil || !bytes.Equal(now, image)
	})
	if out, err := exec.Command("mount", "-o", "loop", strings.TrimSpace(string(image)), dir).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v\n%s", err, out)
	}
}

// A limit on the size of files is no end: what does not fit into the spool waits in
// drop/, and is taken in as mail leaves.
func TestFileSizeLimitLosesNothing(t *testing.T) {
	t.Parallel()
	limiter := needs(t, "prlimit", "util-linux")
	s := relaytest.New(t, relaytest.Options{Rules: []relaytest.Rule{{At: "MAIL", Reply: "451 4.3.0 later"}}})
	b := newBox(t, relayTo(s.Port())+"[retry]\nfirst = \"1h\"\nmax = \"1h\"\n")
	const limit = 56 << 20 // octets
	r := &runner{box: b, cmd: b.command("", limiter, fmt.Sprintf("--fsize=%d", limit), program("postino"), "run"), done: make(chan struct{})}
	r.cmd.Stderr = b.log
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = r.cmd.Wait() // its status is in ProcessState
		close(r.done)
	}()
	t.Cleanup(r.kill)
	poll(t, "the runner", func() bool { return b.accepts("submit.sock") })
	f := &fullDisk{box: b}
	for end := time.Now().Add(patience); b.drops() == 0; {
		if f.submit(60 << 10); time.Now().After(end) {
			t.Fatal("there is room without end: this test tests nothing")
		}
	}
	for range 50 {
		f.submit(60 << 10)
	}
	b.log.await(t, "drop files wait", "limit on the size of files")
	s.SetRules()
	b.postino("retry", "--all")
	b.log.awaitN(t, f.accepted, "msg=finished")
	r.stop()
	f.count(s)
}
