package durability_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"postino/cmd/durability/oracle"
	"postino/spool/standstill"
)

// play is something that one of our programs does, during which it meets a fault.
type play struct {
	name string
	// runner: it is the runner that meets it, else a front end with a message of so
	// many lines, while a runner listens or, with drop, none does.
	runner, drop bool
	lines        int
	times        int // how many messages of a kind a runner gets
}

func plays() []play {
	return []play{
		{name: "front end, small by the socket", lines: small},
		{name: "front end, large by the socket", lines: large},
		{name: "front end, small into drop", drop: true, lines: small},
		{name: "front end, huge into drop", drop: true, lines: huge},
		{name: "runner", runner: true, times: 1},
		{name: "busy runner", runner: true, times: 4},
	}
}

// meeting is how a fault was met.
type meeting struct {
	hit   bool
	at    string         // what the descriptor was of the call that met it
	calls map[string]int // that were made, by name
	err   error          // what it did that it must not
}

// stage is where a play is played again and again.
type stage struct {
	play  play
	box   *box
	runs  int
	other *runner // the sound one, for front ends that use the socket
}

// runsPerBox bounds what the server has to remember.
const runsPerBox = 40

// set makes a box for some runs of a play. The programs are in bin.
func (p play) set(t testing.TB, bin string) *stage {
	t.Helper()
	s := &stage{play: p, box: newBox(t, bin)}
	s.open()
	return s
}

func (s *stage) open() {
	s.box.renew()
	if !s.play.runner && !s.play.drop {
		var ready bool
		if s.other, ready = s.box.start(); !ready {
			s.box.t.Fatal("no runner")
		}
	}
}

// meet plays under a fault. What front ends did is judged by close.
func (s *stage) meet(n uint64, f fault) meeting {
	s.box.t.Helper()
	s.runs++
	if s.play.runner {
		return s.meetRunner(n, f)
	}
	b := s.box
	// The fault is the name of the message: a verdict then tells which it was.
	message, sub := oracle.Compose(chance(n, s.runs), fmt.Sprintf("%v #%d", f, s.runs), s.play.lines)
	p := b.trace(message, f, b.front(), "-i", "-f", sender, recipient)
	p.wait(b.t)
	sub.Status = p.status
	b.ledger.Add(sub)
	m := meeting{hit: p.hit.Load(), at: p.at, calls: p.calls}
	if !m.hit && p.status != 0 || m.hit && f.kill && p.status != -1 {
		m.err = fmt.Errorf("ended with %d", p.status)
	}
	return m
}

// close judges what front ends did, first as it is, then when all is delivered.
func (s *stage) close() error {
	if s.play.runner {
		return nil
	}
	if s.other != nil {
		if status := s.other.stop(); status != 0 {
			return fmt.Errorf("the runner ended with %d", status)
		}
	}
	err := check(s.box.judge(), 0, true)
	v, drainErr := s.box.drain()
	return errors.Join(err, check(v, 0, true, drainErr))
}

const (
	// nudgeTime is how long a runner is given to get over its fault before it is
	// stopped, and a sound one takes its place. It is counted in turns, of which a
	// machine that stands still takes one.
	nudgeTime = 3 * time.Second
	turnMost  = 100 * time.Millisecond
)

// until waits until cond holds, or the process has ended, or the fault was met so long
// ago that there is no more to wait for.
func (p *traced) until(t testing.TB, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); p.nudge > 0 && !p.ended(); {
		began, met := time.Now(), p.hit.Load()
		if cond() {
			return
		}
		if began.After(end) {
			t.Fatalf("pid %d: neither done nor at its fault within %v\n%s", p.pid, patience, standstill.Of(p.pid))
		}
		time.Sleep(time.Millisecond)
		if met {
			p.nudge -= min(time.Since(began), turnMost)
		}
	}
}

// meetRunner has a runner start in a new spool, take drop files and submissions,
// deliver them and stop, meanwhile meet a fault, and a sound one finish the work.
func (s *stage) meetRunner(n uint64, f fault) meeting {
	b := s.box
	b.renew()
	random := chance(n, s.runs)
	messages := 0
	submit := func(how string, lines int) {
		messages++
		_, said := b.submit(random, fmt.Sprintf("%v, %s #%d.%d", f, how, s.runs, messages), lines)
		if said != "" {
			b.t.Errorf("%v: sendmail said %s", f, said)
		}
	}
	for range s.play.times {
		submit("dropped", small)
		submit("dropped large", large)
	}
	p := b.trace("", f, filepath.Join(b.bin, "postino"), "run")
	p.until(b.t, func() bool { return listener(b.spool) == p.pid })
	for range s.play.times {
		submit("by socket", small)
		submit("by socket, large", large)
	}
	p.until(b.t, func() bool { return b.delivered() == messages && b.drops() == 0 })
	p.until(b.t, func() bool { return b.queued() == 0 })
	byItself := p.ended()
	if !byItself {
		_ = syscall.Kill(p.pid, syscall.SIGTERM)
	}
	p.wait(b.t)
	m := meeting{hit: p.hit.Load(), at: p.at, calls: p.calls}
	// A message that the server took and that could not be recorded goes again.
	window := 0
	if m.hit {
		window = underWay
	}
	m.err = check(b.judge(), window, true)
	v, err := b.drain()
	m.err = errors.Join(m.err, check(v, window, true, err))
	switch {
	case !m.hit && (byItself || p.status > 0): // -1: stopped before it was ready for that
		m.err = errors.Join(m.err, fmt.Errorf("without a fault it ended with %d", p.status))
	case m.hit && f.errno != 0 && f.call == "fdatasync" && p.status == 0:
		m.err = errors.Join(m.err, errors.New("a sync failed and the runner carried on"))
	}
	return m
}

// delivered is how many different messages the server was given.
func (b *box) delivered() int {
	seen := make(map[string]bool)
	for _, m := range b.server.Messages()[b.judged:] {
		seen[string(m.Data)] = true
	}
	return len(seen)
}

func (p *traced) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}
