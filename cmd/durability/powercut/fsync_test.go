package powercut_test

import (
	"strconv"
	"testing"

	"postino/cmd/durability/disk"
	"postino/cmd/durability/mutant"
)

// maxSyncs bounds how many syncs a short life can have.
const maxSyncs = 200

// shortLife is a life in which a sync fails somewhere. What is submitted then may
// be refused; a runner that ends is started again.
func (w *world) shortLife() {
	var r *runner
	for range 3 { // one end for the failure, one more should it be met at the start
		if r = w.launch(); r.ready() {
			break
		}
	}
	for n := range 12 {
		lines := few
		if n%4 == 3 {
			lines = many
		}
		to := "alice@example.org"
		if n%3 == 0 {
			to = "defer@example.org"
		}
		w.submit(to, lines)
		select {
		case <-r.done:
			r = w.launch()
			r.ready()
		default:
		}
	}
	r.stop()
}

// failAt has the sync with that number fail, and then cuts the power at places
// behind it. The result is false when there were not so many syncs.
func failAt(t testing.TB, bin string, seed uint64, n int, args ...string) (found *tally, failed bool) {
	t.Helper()
	w := newWorld(t, record(t, append(args, "-fail", strconv.Itoa(n))...), bin, newRandom(seed, n), "")
	w.shortLife()
	c := w.cuts(seed)
	for i, o := range c.ops {
		if o.Kind == disk.Fail {
			c.from, failed = i, true
		}
	}
	if !failed {
		return nil, false
	}
	c.each, c.share = 5, float64(number(t, "POSTINO_FSYNC_SHARE", 10))/100
	return c.run(t), true
}

// A failed sync says that what was written is not on the disk, and it says so
// once: the kernel forgets the pages, whether reads still show them (ext4, xfs) or
// not (btrfs). Whatever the programs do about it, what was accepted before and
// after survives the power cut that follows, whichever sync it was.
func TestAcceptedMailSurvivesAFailedSyncAndAPowerCut(t *testing.T) {
	if testing.Short() {
		t.Skip("each place takes seconds")
	}
	seed := newSeed(t)
	bin := programs(t, nil)
	for name, args := range map[string][]string{"reads show what was written": nil, "reads show what was there": {"-forget"}} {
		t.Run(name, func(t *testing.T) {
			points, checked := number(t, "POSTINO_FSYNC_POINTS", 4), 0
			random := newRandom(seed, 0)
			for i := range maxSyncs {
				n := i + 1
				if points > 0 {
					if i == points {
						break
					}
					// The first one is the name of the spool directory.
					if n = 1; i > 0 {
						n += random.IntN(40)
					}
				}
				found, failed := failAt(t, bin, seed, n, args...)
				if !failed {
					if points > 0 {
						continue
					}
					points = i
					break
				}
				checked += found.checked
				for _, err := range found.harm {
					t.Errorf("sync %d: %v", n, err)
				}
			}
			t.Logf("%d failed syncs, %d states", points, checked)
			if checked == 0 {
				t.Error("that proves nothing")
			}
		})
	}
}

// A runner that goes on after a failed sync loses mail that it accepted.
func TestCarryingOnAfterAFailedSyncLosesMail(t *testing.T) {
	if testing.Short() {
		t.Skip("each place takes seconds")
	}
	for _, m := range mutant.Table() {
		if m.Name != "no fence after a failed sync" {
			continue
		}
		seed := newSeed(t)
		bin := programs(t, &m)
		for n := 8; n < 40; n++ {
			if found, failed := failAt(t, bin, seed, n); failed && len(found.harm) > 0 {
				t.Logf("sync %d: %v", n, found.harm[0])
				return
			}
		}
		t.Error("nobody noticed")
		return
	}
	t.Error("no such mutant")
}
