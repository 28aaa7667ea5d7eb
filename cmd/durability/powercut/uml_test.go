package powercut_test

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postino/cmd/durability/mutant"
)

// linux is the kernel that runs as a program.
const linux = "/usr/bin/linux.uml"

// bootTries is how often a guest that does not boot is tried; now and then one
// aborts for no reason of ours.
const bootTries = 2

// lab is where guests run: a disk, what they need beside it, and what they said.
type lab struct {
	t        testing.TB
	dir      string
	kind     string            // of file system
	accepted map[string]string // by subject: the sum of its body
	known    map[string]string // likewise of all that was found, accepted or not
	cycles   int
}

// newLab makes a disk with a file system of that kind.
func newLab(t testing.TB, bin, kind string) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "only root can make a guest")
	}
	for _, name := range []string{linux, mkfs(kind)[0]} {
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			skip(t, "%s is not installed: apt-get install user-mode-linux e2fsprogs xfsprogs btrfs-progs", name)
		}
	}
	l := &lab{t: t, dir: t.TempDir(), kind: kind, accepted: make(map[string]string), known: make(map[string]string)}
	// The guest's other user has to get to the spool.
	for at := l.dir; at != os.TempDir() && at != "/"; at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"bin/postino", "mnt"} {
		if err := os.MkdirAll(filepath.Join(l.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l.link(filepath.Join(bin, "sendmail"), "bin/sendmail")
	l.link(filepath.Join(bin, "postino"), "bin/postino/postino") // where sendmail does not find it
	build := exec.Command("go", "build", "-buildvcs=false", "-o", filepath.Join(l.dir, "bin", "guest"), "postino/cmd/durability/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, text)
	}
	config := "hostname = \"web.test\"\ndomain = \"web.test\"\nmode = \"capture\"\n"
	if err := os.WriteFile(filepath.Join(l.dir, "postino.toml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	l.format()
	return l
}

func (l *lab) link(from, to string) {
	l.t.Helper()
	if err := os.Link(from, filepath.Join(l.dir, to)); err != nil {
		l.t.Fatal(err)
	}
}

// mkfs is the command that makes a file system of that kind.
func mkfs(kind string) []string {
	return map[string][]string{
		"ext4":  {"/usr/sbin/mkfs.ext4", "-q", "-F"},
		"xfs":   {"/usr/sbin/mkfs.xfs", "-q", "-f"},
		"btrfs": {"/usr/sbin/mkfs.btrfs", "-q", "-f"},
	}[kind]
}

// options make the time between two journal commits of their own long, so that
// what was not synced has the less chance.
func options(kind string) string {
	if kind == "xfs" {
		return ""
	}
	return "commit=30"
}

func (l *lab) disk() string { return filepath.Join(l.dir, "disk") }

// format begins with an empty disk.
func (l *lab) format() {
	l.t.Helper()
	const size = 512 << 20
	if err := os.RemoveAll(l.disk()); err != nil {
		l.t.Fatal(err)
	}
	f, err := os.Create(l.disk())
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		l.t.Fatal(err)
	}
	args := append(mkfs(l.kind), l.disk())
	if text, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		l.t.Fatalf("%q: %v\n%s", args, err, text)
	}
	clear(l.accepted)
	clear(l.known)
}

// guest is a machine that runs.
type guest struct {
	cmd   *exec.Cmd
	lines chan string // closed when the machine is off
	said  []string    // what is no message, for whom it does not boot
}

// boot starts a machine. It has a process group of its own, which ends with it.
func (l *lab) boot(seed uint64) *guest {
	l.t.Helper()
	// The kernel takes what it does not know for the environment of the first process.
	cmd := exec.Command(linux, "mem=160M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet",
		"init="+filepath.Join(l.dir, "bin", "guest"), "ubd0="+l.disk(), "con=null", "con0=null,fd:1", "ssl=null",
		"GUEST_DIR="+l.dir, "GUEST_FS="+l.kind, "GUEST_OPTIONS="+options(l.kind),
		fmt.Sprintf("GUEST_SEED=%d", seed), fmt.Sprintf("GUEST_PREFIX=c%d", l.cycles))
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + l.dir, "TMPDIR=/dev/shm"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err == nil {
		cmd.Stderr = cmd.Stdout
		err = cmd.Start()
	}
	if err != nil {
		l.t.Fatal(err)
	}
	g := &guest{cmd: cmd, lines: make(chan string)}
	go func() {
		defer close(g.lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			g.lines <- strings.TrimRight(in.Text(), "\r")
		}
	}()
	return g
}

// cut is the end of the power: of all that the machine had in its memory nothing
// is left. What it has said is still read.
func (g *guest) cut(l *lab) {
	_ = syscall.Kill(-g.cmd.Process.Pid, syscall.SIGKILL)
	for line := range g.lines {
		l.hear(line)
	}
	_ = g.cmd.Wait()
}

// hear remembers what was accepted.
func (l *lab) hear(line string) {
	if f := strings.Fields(line); len(f) == 3 && f[0] == "accepted" && len(f[2]) == hex.EncodedLen(32) {
		l.accepted[f[1]] = f[2]
	}
}

// errBoot: the machine did not come as far as to count.
var errBoot = errors.New("the guest did not boot")

// cycle boots, has what the boot before left counted, and cuts the power a moment
// after mail is being taken again. The error is what is wrong with what was left.
func (l *lab) cycle(seed uint64) error {
	l.t.Helper()
	l.cycles++
	random := newRandom(seed, l.cycles)
	for try := 1; ; try++ {
		g := l.boot(random.Uint64())
		err := l.count(g)
		if err == nil {
			l.awaitOne(g)
			g.listen(l, time.After(time.Duration(random.IntN(2000))*time.Millisecond))
		}
		g.cut(l)
		if !errors.Is(err, errBoot) {
			return err
		}
		l.t.Logf("cycle %d, try %d of %d: %v\n%s", l.cycles, try, bootTries, err, strings.Join(g.said, "\n"))
		if try == bootTries {
			return err
		}
	}
}

// listen hears what the machine says until the time is over.
func (g *guest) listen(l *lab, over <-chan time.Time) {
	for {
		select {
		case line, on := <-g.lines:
			if !on {
				return
			}
			l.hear(line)
		case <-over:
			return
		}
	}
}

// awaitOne waits until a message has been accepted.
func (l *lab) awaitOne(g *guest) {
	over := time.After(patience)
	for before := len(l.accepted); len(l.accepted) == before; {
		select {
		case line, on := <-g.lines:
			if !on {
				return
			}
			l.hear(line)
		case <-over:
			return
		}
	}
}

// count reads what the machine finds on its disk, and compares.
func (l *lab) count(g *guest) error {
	var harm []error
	places := make(map[string][]string)
	over := time.After(patience)
	for {
		var line string
		on := true
		select {
		case line, on = <-g.lines:
		case <-over:
			on = false
		}
		if !on {
			return errBoot
		}
		f := strings.Fields(line)
		switch {
		case line == "counted":
			return errors.Join(append(harm, l.compare(places)...)...)
		case len(f) == 4 && f[0] == "found":
			places[f[2]] = append(places[f[2]], f[1])
			if want := l.accepted[f[2]]; f[3] == "torn" || f[1] != "finished" && want != "" && want != f[3] {
				harm = append(harm, fmt.Errorf("%s in %s is not whole", f[2], f[1]))
			}
		case len(f) > 0 && f[0] == "damage":
			harm = append(harm, errors.New(line))
		default:
			g.said = append(g.said, line)
		}
	}
}

// compare wants each accepted message somewhere, and none of them to be two.
func (l *lab) compare(places map[string][]string) (harm []error) {
	for subject := range l.accepted {
		if len(places[subject]) == 0 {
			harm = append(harm, fmt.Errorf("%s was accepted and is lost", subject))
		}
	}
	for subject, at := range places {
		stored := 0
		for _, place := range at {
			if place != "drop" {
				stored++
			}
		}
		if stored > 1 {
			harm = append(harm, fmt.Errorf("%s became two messages", subject))
		}
	}
	return harm
}

// cyclesPerDisk is how many power cuts one disk has to take: what all of them left
// is counted each time.
const cyclesPerDisk = 8

// The power of a real kernel with a real file system fails, and what sendmail said
// it has stored is there at the next start.
func TestGuestLosesNothingInAPowerCut(t *testing.T) {
	if testing.Short() {
		t.Skip("each boot takes seconds")
	}
	bin := programs(t, nil)
	for _, tt := range []struct {
		kind   string
		cycles int
	}{
		{"ext4", number(t, "POSTINO_POWER_CUTS", 6)},
		{"xfs", number(t, "POSTINO_POWER_CUTS_XFS", 2)},
		{"btrfs", number(t, "POSTINO_POWER_CUTS_BTRFS", 2)},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			t.Parallel()
			seed := newSeed(t)
			l := newLab(t, bin, tt.kind)
			cuts, counted := 0, 0
			for cuts < tt.cycles {
				// One more boot counts what the last power cut left.
				for range min(cyclesPerDisk, tt.cycles-cuts) + 1 {
					if err := l.cycle(seed); err != nil {
						t.Fatalf("cycle %d: %v", l.cycles, err)
					}
					cuts++
				}
				cuts-- // of the last one nobody counted anything
				counted += len(l.accepted)
				t.Logf("%s: %d power cuts, %d messages accepted, none lost", tt.kind, cuts, counted)
				l.format()
			}
			if counted < tt.cycles {
				t.Errorf("%d messages: that proves nothing", counted)
			}
		})
	}
}

// Were the disk to keep what was never synced, or the guest its memory, the test
// above would prove nothing.
func TestGuestLosesWhatIsNotSynced(t *testing.T) {
	if testing.Short() {
		t.Skip("each boot takes seconds")
	}
	for _, m := range mutant.Table() {
		if m.Name != "nothing of drop/ synced" {
			continue
		}
		seed := newSeed(t)
		l := newLab(t, programs(t, &m), "ext4")
		// The first cut mostly does it; a guest on a busy machine is slow, and what it has
		// written by itself is then all there is.
		const tries = 25
		for range tries {
			if err := l.cycle(seed); err != nil && !errors.Is(err, errBoot) {
				t.Logf("after %d power cuts: %.500v", l.cycles-1, err)
				return
			}
		}
		t.Errorf("%d power cuts without a sync, %d messages, and nothing is lost", tries, len(l.accepted))
		return
	}
	t.Error("no such mutant")
}
