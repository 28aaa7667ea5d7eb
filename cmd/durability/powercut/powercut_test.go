package powercut_test

import (
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"

	"postino/cmd/durability/oracle"
)

// Whenever the power fails, and whatever of what was not synced is then on the
// disk: what was accepted is in the queue, in the history or in drop/, all of it
// whole, and the next runner opens the spool and goes on.
func TestAcceptedMailSurvivesAPowerCut(t *testing.T) {
	seed := newSeed(t)
	r := record(t, "-slow", "5ms")
	w := newWorld(t, r, programs(t, nil), newRandom(seed, 0), "")
	w.live()
	c := w.cuts(seed)
	c.each, c.share = number(t, "POSTINO_CRASH_STATES", 4), 1
	found := c.run(t)
	for _, err := range found.harm {
		t.Error(err)
	}
	if len(c.sent) < 20 || found.checked < len(c.ops)/2 {
		t.Errorf("%d messages and %d states: that proves nothing", len(c.sent), found.checked)
	}
}

// cuts ends the recording.
func (w *world) cuts(seed uint64) *cuts {
	w.t.Helper()
	c := &cuts{ops: w.ops(w.t), sent: make(map[string]oracle.Submission), seed: seed}
	for _, s := range w.ledger.Submissions() {
		c.sent[s.Subject] = s
	}
	return c
}

// Lines of messages that fit into a record of the spool, and that become a file.
const (
	few  = 20
	many = 1200
)

// live is the life of a spool: it is made while somebody submits already, takes
// mail by the socket and by drop/, delivers, retries, gives up, is killed and
// comes back.
func (w *world) live() {
	first := w.launch()
	for w.submit("alice@example.org", few) != 0 { // as soon as there is a place for it
		select {
		case <-first.done:
			w.t.Fatal("the runner has ended")
		default:
		}
	}
	first.ready()
	w.crowd(4, 4)
	w.postino("hold", "--all")
	w.postino("release", "--all")
	first.kill()
	w.crowd(2, 3)
	second := w.launch()
	w.crowd(3, 3) // while it takes what is in drop/
	second.ready()
	w.postino("delete", "--all", "--to", "defer@example.org")
	w.crowd(2, 2)
	w.await("the mail", func() bool { return len(w.server.Messages()) > 10 })
	second.stop()
}

// intake is the part of a life in which mail comes in, by the socket and by drop/,
// small and large.
func (w *world) intake() {
	first := w.launch()
	first.ready()
	w.crowd(2, 4)
	w.submit("alice@example.org", many)
	first.kill()
	w.submit("alice@example.org", many)
	w.crowd(2, 2)
}

// crowd is so many callers who submit so many messages each.
func (w *world) crowd(callers, messages int) {
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range messages {
				w.mu.Lock()
				to, lines := anyone(w.random)
				w.mu.Unlock()
				if status := w.submit(to, lines); status != 0 {
					w.t.Errorf("sendmail ended with %d", status)
				}
			}
		})
	}
	all.Wait()
}

func anyone(random *rand.Rand) (to string, lines int) {
	to, lines = "alice@example.org", few
	if random.IntN(3) == 0 {
		to = "defer@example.org"
	}
	if random.IntN(4) == 0 {
		lines = many
	}
	return to, lines
}

// postino runs a command of the administrator, who may be too early or too late.
func (w *world) postino(args ...string) {
	_ = w.command(filepath.Join(w.bin, "postino"), args...).Run()
}
