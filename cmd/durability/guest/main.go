// guest is the first process of a machine whose power is going to be cut. The
// machine is user-mode Linux, its root is the root of the host, read-only, and its
// disk is /dev/ubda. Each boot finds what the boot before left:
//
//	found PLACE SUBJECT SUM    once for each message; PLACE is queue, drop or finished
//	damage TEXT                what is wrong with the spool
//	counted
//	accepted SUBJECT SUM       from now on, each time that sendmail ended with 0
//
// on the console, until somebody kills the machine. The kernel's command line is
// its environment: GUEST_DIR (sendmail and postino are in bin/, the disk is mounted
// on mnt/), GUEST_FS, GUEST_OPTIONS, GUEST_SEED and GUEST_PREFIX, which begins the
// subjects.
package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"postino/cmd/durability/oracle"
	"postino/spool"
)

const (
	// callers submit at a time, one of them as another user, who may not read drop/.
	callers = 3
	other   = 33
	// many lines of a message are a file in the spool, few are not.
	few, many = 20, 1200
	// dropTime is how long there is no runner, so that mail goes to drop/.
	dropTime = 500 * time.Millisecond
)

func main() {
	if err := run(); err != nil {
		fmt.Println("guest:", err)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) // the first process must not end
}

func run() error {
	dir := os.Getenv("GUEST_DIR")
	seed, err := strconv.ParseUint(os.Getenv("GUEST_SEED"), 10, 64)
	if err != nil {
		return fmt.Errorf("GUEST_SEED: %w", err)
	}
	g := &guest{bin: filepath.Join(dir, "bin"), spool: filepath.Join(dir, "mnt", "spool"), seed: seed, prefix: os.Getenv("GUEST_PREFIX")}
	for _, m := range []struct{ device, dir, kind, options string }{
		{"proc", "/proc", "proc", ""},
		{"dev", "/dev", "devtmpfs", ""},
		{"/dev/ubda", filepath.Join(dir, "mnt"), os.Getenv("GUEST_FS"), os.Getenv("GUEST_OPTIONS")},
	} {
		if err := unix.Mount(m.device, m.dir, m.kind, 0, m.options); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s on %s: %w", m.device, m.dir, err)
		}
	}
	g.count()
	return g.submitForever()
}

type guest struct {
	bin, spool, prefix string
	seed               uint64
	mu                 sync.Mutex // for the console
}

func (g *guest) say(format string, args ...any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	fmt.Printf(format+"\n", args...)
}

// count tells what is in the spool.
func (g *guest) count() {
	s, err := oracle.Look(g.spool)
	for place, list := range map[string][]oracle.Copy{"queue": s.Queue, "drop": s.Drops, "finished": s.Finished} {
		for _, c := range list {
			sum := fmt.Sprintf("%x", c.Sum)
			if !c.Whole && place != "finished" {
				sum = "torn"
			}
			g.say("found %s %s %s", place, c.Subject, sum)
		}
	}
	if err != nil {
		g.say("damage %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	g.say("counted")
}

// submitForever has mail come in by drop/, and then by the socket as well.
func (g *guest) submitForever() error {
	if err := os.MkdirAll(g.spool, 0o755); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(g.spool, spool.DropDir)); err == nil {
		go func() {
			time.Sleep(dropTime)
			g.runner()
		}()
	} else {
		go g.runner()
	}
	var all sync.WaitGroup
	for n := range callers {
		all.Go(func() {
			random := rand.New(rand.NewPCG(g.seed, uint64(n)))
			for i := 0; ; i++ {
				g.submit(random, fmt.Sprintf("%s-%d-%d", g.prefix, n, i), n)
			}
		})
	}
	all.Wait()
	return nil
}

func (g *guest) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "POSTINO_SPOOL=" + g.spool, "POSTINO_CONFIG=" + filepath.Join(g.bin, "..", "postino.toml")}
	cmd.Dir = "/"
	return cmd
}

func (g *guest) submit(random *rand.Rand, subject string, n int) {
	lines := few
	if random.IntN(6) == 0 {
		lines = many
	}
	message, sub := oracle.Compose(random, subject, lines)
	cmd := g.command(filepath.Join(g.bin, "sendmail"), "-i", "-f", "me@web.test", "alice@example.org")
	cmd.Stdin = strings.NewReader(message)
	if n == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: other, Gid: other}}
	}
	if err := cmd.Run(); err == nil {
		g.say("accepted %s %x", subject, sub.Sum)
	}
}

// runner starts the runner, again if it should end.
func (g *guest) runner() {
	for {
		if text, err := g.command(filepath.Join(g.bin, "postino", "postino"), "run").CombinedOutput(); err != nil {
			g.say("the runner ended: %v: %.2000s", err, strings.ReplaceAll(string(text), "\n", "; "))
		}
		time.Sleep(time.Second)
	}
}
