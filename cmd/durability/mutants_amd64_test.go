package durability_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"postino/cmd/durability/mutant"
)

// Each mistake that somebody could make is noticed by the smallest test that has to.
// Those that only a power cut shows are in package powercut.
func TestEachMutantIsNoticed(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the programs once for each")
	}
	for _, m := range mutant.Table() {
		harness := harnesses()[m.Harness]
		if harness == nil {
			continue
		}
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			bin := t.TempDir()
			if err := m.Build(root(), bin, "-tags", "crashpoints"); err != nil {
				t.Fatal(err)
			}
			if err := harness(t, bin); err == nil {
				t.Error("nobody noticed")
			} else {
				t.Logf("noticed: %v", err)
			}
		})
	}
}

// The same harnesses find nothing wrong with the programs as they are.
func TestHarnessesOfMutantsPassWithoutOne(t *testing.T) {
	for name, harness := range harnesses() {
		t.Run(string(name), func(t *testing.T) {
			t.Parallel()
			if err := harness(t, programs("points")); err != nil {
				t.Error(err)
			}
		})
	}
}

// harnesses return the harm that the programs in bin do.
func harnesses() map[mutant.Harness]func(t *testing.T, bin string) error {
	return map[mutant.Harness]func(t *testing.T, bin string) error{
		mutant.CrashPoint: func(t *testing.T, bin string) error {
			socket := scenes()[1]
			_, before := socket.dieAt(t, bin, "commit.before", 1)
			_, after := socket.dieAt(t, bin, "commit.after", 1)
			return errors.Join(before, after)
		},
		mutant.Errno: func(t *testing.T, bin string) error {
			b := newBox(t, bin)
			err := b.fence()
			v, drainErr := b.drain()
			return errors.Join(err, check(v, 0, true, drainErr))
		},
		mutant.Prefix: leavePrefixes,
	}
}

// leavePrefixes leaves the beginnings of a drop file, as a broken file system may,
// and has a runner look at them. None is a message.
func leavePrefixes(t *testing.T, bin string) error {
	b := newBox(t, bin)
	b.both()
	var harm error
	files := b.read("drop")
	for name := range files {
		if err := os.Remove(filepath.Join(b.spool, "drop", name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		for i, n := range []int{len(text) - 1, len(text) / 2, 300, 10} {
			// Under its own name, or it would not even be looked at.
			b.write("drop/"+name, text[:n])
			b.during(b.taken)
			v := b.judge()
			if len(v.Torn) > 0 || v.Delivered > 0 || v.Queued > 0 {
				harm = errors.Join(harm, fmt.Errorf("prefix %d of %d octets: %d queued, %d delivered", i, n, v.Queued, v.Delivered))
			}
		}
	}
	return harm
}
