package powercut_test

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postino/cmd/durability/disk"
	"postino/cmd/durability/oracle"
	"postino/spool"
	"postino/spool/submit"
)

// cuts is which power cuts to try.
type cuts struct {
	ops  []disk.Op
	sent map[string]oracle.Submission // by subject
	seed uint64
	// each is how many states are drawn at each place of the log, share how many of
	// the places are tried: 1 is all.
	each  int
	share float64
	// from is the first place.
	from int
}

// tally is what was found.
type tally struct {
	mu             sync.Mutex
	drawn, checked int
	harm           []error
}

// enough is how many harmful states are told of.
const enough = 3

// workers is how many states are looked at at a time.
const workers = 2

// run tries them. The result says how many states were drawn, and how many were
// looked at because they were not the same as one before.
func (c *cuts) run(t testing.TB) *tally {
	t.Helper()
	found := new(tally)
	var all sync.WaitGroup
	begin := time.Now()
	for n := range workers {
		dir := memory(t)
		all.Go(func() {
			if err := c.work(n, dir, found); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	took := time.Since(begin)
	t.Logf("%d ops, %d states drawn, %d different ones looked at, %.0f/s", len(c.ops), found.drawn, found.checked,
		float64(found.checked)/took.Seconds())
	return found
}

// memory is a file system in memory. It is small, since a spool takes a part of
// its room as a reserve, and that takes time.
func memory(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("postino-state", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// work does every place whose turn it is.
func (c *cuts) work(worker int, dir string, found *tally) error {
	d := disk.New(newRandom(c.seed, -1))
	var accept []string
	seen := make(map[uint64]bool)
	hashSeed := maphash.MakeSeed()
	for i := range c.ops {
		if err := d.Do(&c.ops[i]); err != nil {
			return err
		}
		if subject, ok := strings.CutPrefix(c.ops[i].Name, accepted); ok && c.ops[i].Kind == disk.Mark {
			accept = append(accept, subject)
			clear(seen) // what was allowed before may not be now
		}
		random := newRandom(c.seed, i)
		if i < c.from || i%workers != worker || random.Float64() >= c.share {
			continue
		}
		for n := range c.each {
			tear := tears(n, random)
			image := d.Cut(random, tear)
			sum := image.Sum(hashSeed)
			fresh := !seen[sum]
			seen[sum] = true
			var err error
			if fresh {
				err = c.check(image, dir, accept)
			}
			if found.add(fresh, err, func() error {
				return fmt.Errorf("after op %d (%v), state %d of POSTINO_SEED=%d, %+v: %w", i, &c.ops[i], n, c.seed, tear, err)
			}) {
				return nil
			}
		}
	}
	return nil
}

// add counts a state and reports whether that is enough.
func (f *tally) add(fresh bool, err error, tell func() error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drawn++
	if fresh {
		f.checked++
	}
	if err != nil {
		f.harm = append(f.harm, tell())
	}
	return len(f.harm) >= enough
}

// tears is how the nth state of a place comes to be. The first ones are the
// extremes.
func tears(n int, random *rand.Rand) disk.Tear {
	t := disk.Tear{Unit: disk.Page}
	switch n {
	case 0:
	case 1:
		t.Keep, t.Names = 1, 1
	case 2:
		t.Names = 1
	case 3:
		t.Keep = 1
	default:
		likely := []float64{0, 0.1, 0.5, 0.9, 1}
		t.Keep, t.Names = likely[random.IntN(len(likely))], likely[random.IntN(len(likely))]
		if random.IntN(2) == 0 {
			t.Unit = disk.Sector
		}
	}
	return t
}

// check is what may never be in a state after those messages were accepted.
func (c *cuts) check(image disk.Image, dir string, accept []string) (err error) {
	// What is wrong with pages may come as a panic or as a fault.
	debug.SetPanicOnFault(true)
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(state)
	if err := image.Create(state); err != nil {
		return err
	}
	dir = filepath.Join(state, "spool")
	if err := c.judge(dir, accept); err != nil {
		return err
	}
	changed, err := takeIn(dir)
	if err == nil && changed {
		err = c.judge(dir, accept)
	}
	if err != nil {
		return fmt.Errorf("after the next runner: %w", err)
	}
	return nil
}

// judge looks for harm in a spool directory.
func (c *cuts) judge(dir string, accept []string) error {
	s, err := oracle.Look(dir)
	if err != nil {
		return err
	}
	var harm []error
	there, rests := make(map[string]bool), make(map[string]int)
	for _, list := range [][]oracle.Copy{s.Queue, s.Drops} {
		for _, one := range list {
			sub, known := c.sent[one.Subject]
			if !known || !one.Whole || sub.Sum != one.Sum {
				harm = append(harm, fmt.Errorf("%s is not whole, or nobody's", one.Subject))
			}
			there[one.Subject] = true
		}
	}
	for _, list := range [][]oracle.Copy{s.Queue, s.Finished} {
		for _, one := range list {
			there[one.Subject] = true
			if rests[one.Subject]++; rests[one.Subject] > 1 {
				harm = append(harm, fmt.Errorf("%s became two messages", one.Subject))
			}
		}
	}
	for _, subject := range accept {
		if !there[subject] {
			harm = append(harm, fmt.Errorf("%s was accepted and is lost", subject))
		}
	}
	return errors.Join(harm...)
}

// takeIn is the beginning of the next runner: it makes what is missing, opens the
// spool and takes what is in drop/. The result is false when there was nothing to
// do that judge did not do.
func takeIn(dir string) (changed bool, err error) {
	drop := filepath.Join(dir, spool.DropDir)
	if err := os.MkdirAll(drop, 0o755); err != nil {
		return false, err
	}
	waiting, err := submit.DropsWaiting(dir)
	if err != nil {
		return false, err
	}
	_, err = os.Stat(filepath.Join(dir, "spool.db"))
	if err == nil && !waiting {
		return false, nil
	}
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		return false, err
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	srv := submit.New(s, submit.Policy{Hostname: "web.test", Domain: "web.test", MaxMessageSize: 50 << 20, MaxRecipients: 1000}, log)
	err = srv.ScanDrops(context.Background())
	srv.Shutdown(context.Background())
	if left, dropErr := submit.DropsWaiting(dir); err == nil && left {
		err = errors.Join(errors.New("drop/ is not empty"), dropErr)
	}
	if rejected, _ := filepath.Glob(filepath.Join(drop, "rejected.*")); len(rejected) > 0 {
		err = errors.Join(err, fmt.Errorf("%q", rejected))
	}
	return true, errors.Join(err, s.Close())
}
