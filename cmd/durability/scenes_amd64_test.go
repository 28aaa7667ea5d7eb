package durability_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"postino/cmd/durability/oracle"
)

// scene is something that happens to a spool, and is cut short at a crash point.
type scene struct {
	name string
	// prepare is done by sound programs, act by those that die.
	prepare, act func(b *box)
	// states are those that a message may be in when a program has died, as stateOf
	// words them: the one before and the one after each arrow that act takes. Empty:
	// the scene has no messages.
	states []string
}

// garbage is the name of a drop file that no front end left.
const garbage = "ffffffffffffffffffffffffffffffff"

const holdMode, captureMode = `mode = "hold"`, `mode = "capture"`

func scenes() []scene {
	nothing := func(*box) {}
	return []scene{
		{"start-up", nothing, (*box).comeAndGo, nil},
		{"by the socket", func(b *box) { b.configure(holdMode) },
			func(b *box) { b.during(b.both) },
			[]string{"absent", "dropped", "held back", "dropped+held back"}},
		{"into drop", nothing, (*box).both, []string{"absent", "dropped"}},
		{"out of drop", func(b *box) {
			b.configure(holdMode)
			b.both()
			b.write("drop/"+garbage, "#!/bin/sh\n")
		}, func(b *box) { b.during(b.taken) }, []string{"dropped", "dropped+held back", "held back"}},
		{"out of drop a second time", func(b *box) {
			b.configure(holdMode)
			b.both()
			files := b.read("drop")
			b.during(b.taken)
			for name, text := range files {
				b.write("drop/"+name, text)
			}
		}, func(b *box) { b.during(b.taken) }, []string{"dropped+held back", "held back"}},
		{"delivery", func(b *box) {
			b.configure(holdMode)
			b.during(b.both)
			b.configure()
		}, func(b *box) { b.during(b.emptied) }, []string{"held back", "finished"}},
		{"steering", func(b *box) {
			b.configure(holdMode)
			b.during(b.both)
		}, func(b *box) { b.during(b.steer) }, []string{"held back", "held", "finished"}},
		{"sweep", func(b *box) {
			b.comeAndGo()
			b.write("content/0641E2A39E9B5001", "a draft that a crash left")
		}, (*box).comeAndGo, nil},
		{"trimming", func(b *box) {
			b.configure(captureMode)
			b.during(func() { b.both(); b.emptied() })
			b.giveUp() // it is kept for reading, and goes nowhere
			b.configure(captureMode, "[history]", `keep = "1s"`)
			time.Sleep(2 * time.Second)
		}, (*box).comeAndGo, []string{"finished", "absent"}},
		{"the failed list", func(b *box) {
			b.options = []string{"-N", "never"} // reports are another matter
			b.configure("[[route]]", `recipients = ["`+recipient+`"]`, `transport = "error:550 5.1.1 no"`)
			b.during(func() { b.both(); b.emptied() })
			b.giveUp() // it goes nowhere
		}, func(b *box) {
			b.during(func() {
				b.run(b.postino("retry", "--failed"))
				b.emptied()
				b.run(b.postino("delete", "--failed"))
			})
		}, []string{"finished", "held back"}},
		{"after a fence", func(b *box) {
			b.configure(holdMode)
			if err := b.fence(); err != nil {
				b.t.Error(err)
			}
		}, func(b *box) { b.during(b.taken) }, []string{"dropped", "dropped+held back", "held back"}},
		{"without nameless files", nothing, func(b *box) {
			b.broken(fault{call: "openat", on: "/drop .", nth: 1, errno: unix.EOPNOTSUPP}, "small", small, b.front())
		}, []string{"absent", "dropped"}},
		{"a file too large and without nameless files", nothing, func(b *box) {
			b.broken(fault{call: "openat", on: "/drop .", nth: 1, errno: unix.EOPNOTSUPP}, "large", large,
				"/bin/sh", "-c", `ulimit -f 1; exec "$0" "$@"`, b.front())
		}, []string{"absent"}},
		{"a buffer without nameless files", nothing, func(b *box) {
			b.broken(fault{call: "openat", on: "/drop .", nth: 1, errno: unix.EOPNOTSUPP}, "large", huge, b.front())
		}, []string{"absent", "dropped"}},
		{"a name that cannot be synced", nothing, func(b *box) {
			b.broken(fault{call: "fsync", on: "/drop", nth: 2, errno: unix.EIO}, "small", small, b.front())
		}, []string{"absent", "dropped"}},
	}
}

// both hands over a small message and a large one.
func (b *box) both() {
	random := chance(1, 1) // what is in them does not matter
	for subject, lines := range map[string]int{"small": small, "large": large} {
		if status, said := b.submit(random, subject, lines); status > 0 {
			b.t.Errorf("%s: sendmail ended with %d: %s", subject, status, said)
		}
	}
}

// broken hands a message over that a fault meets. The first of command is the
// program.
func (b *box) broken(f fault, subject string, lines int, command ...string) {
	message, s := oracle.Compose(chance(1, 1), subject, lines)
	p := b.trace(message, f, command[0], append(command[1:], "-i", "-f", sender, recipient)...)
	p.wait(b.t)
	s.Status = p.status
	b.ledger.Add(s)
	if p.status < 0 {
		b.deaths++
	} else if !p.hit.Load() {
		b.t.Errorf("%v: not met", f)
	}
}

// during does something while a runner is there, for as long as that lives.
func (b *box) during(do func()) {
	r, ready := b.start()
	if ready {
		b.living = r
		do()
		b.living = nil
		r.stop()
	}
	if killed(r.cmd) {
		b.deaths++
	}
}

// comeAndGo starts a runner and stops it.
func (b *box) comeAndGo() { b.during(func() {}) }

func (b *box) taken() { b.living.await("an empty drop/", func() bool { return b.drops() == 0 }) }

func (b *box) emptied() { b.living.await("an empty queue", func() bool { return b.queued() == 0 }) }

// steer holds, releases, retries and deletes.
func (b *box) steer() {
	for _, verb := range []string{"hold", "release", "retry"} {
		b.run(b.postino(verb, "--all"))
	}
	b.giveUp()
	b.run(b.postino("delete", "--all"))
}

// fence leaves two messages in drop/, and has a runner meet a failed sync when it
// takes them. The error is that it carried on.
func (b *box) fence() error {
	needsRoot(b.t)
	b.comeAndGo() // it makes the spool, with syncs of its own
	b.both()
	p := b.trace("", fault{call: "fdatasync", on: "/spool.db", nth: 1, errno: unix.EIO}, filepath.Join(b.bin, "postino"), "run")
	p.until(b.t, func() bool { return false })
	if !p.ended() {
		_ = syscall.Kill(p.pid, syscall.SIGTERM)
	}
	p.wait(b.t)
	if !p.hit.Load() || p.status <= 0 {
		return fmt.Errorf("a sync failed (%v) and the runner ended with %d", p.hit.Load(), p.status)
	}
	return nil
}

func (b *box) giveUp() {
	for _, subject := range []string{"small", "large"} {
		b.ledger.GiveUp(subject)
	}
}

// read returns the files in a directory of the spool, write makes one.
func (b *box) read(dir string) map[string]string {
	b.t.Helper()
	files := make(map[string]string)
	entries, err := os.ReadDir(filepath.Join(b.spool, dir))
	for _, e := range entries {
		text, readErr := os.ReadFile(filepath.Join(b.spool, dir, e.Name()))
		if readErr != nil {
			err = readErr
		}
		files[e.Name()] = string(text)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return files
}

func (b *box) write(name, text string) {
	b.t.Helper()
	tmp := filepath.Join(b.dir, "new")
	if err := os.WriteFile(tmp, []byte(text), 0o640); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(b.spool, name)); err != nil {
		b.t.Fatal(err)
	}
}

// stateOf is where a message is, by the state table of architecture(7). What is
// queued in a box whose runners send nothing is held back, to be told from held.
func stateOf(s *oracle.Survey, subject string) string {
	var places []string
	for _, c := range s.Drops {
		if c.Subject == subject {
			places = append(places, "dropped")
		}
	}
	for _, c := range s.Queue {
		switch {
		case c.Subject != subject:
		case c.Message.Held != "":
			places = append(places, "held")
		default:
			places = append(places, "held back")
		}
	}
	for _, c := range s.Finished {
		if c.Subject == subject {
			places = append(places, "finished")
		}
	}
	if len(places) == 0 {
		return "absent"
	}
	return strings.Join(places, "+")
}

// statesAre compares where the messages are with where they may be.
func (s scene) statesAre(b *box) error {
	survey, err := oracle.Look(b.spool)
	if err != nil {
		return err
	}
	for _, subject := range []string{"small", "large"} {
		if got := stateOf(survey, subject); len(s.states) > 0 && !slices.Contains(s.states, got) {
			return fmt.Errorf("%s is %s, and may be %q", subject, got, s.states)
		}
	}
	return nil
}
