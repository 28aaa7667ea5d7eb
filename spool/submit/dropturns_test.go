package submit

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// While two owners both have files waiting and may have one more taken, neither is
// served twice more than the other; no file is given twice or forgotten.
func TestOwnersOfDropFilesTakeTurns(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 100 {
		wait := newDropTurns()
		owners := 1 + rng.IntN(6)
		waiting, served, last := make([]int, owners), make([]int, owners), make([]string, owners)
		all := 0
		for uid := range owners {
			for range 1 + rng.IntN(300) {
				all++
				waiting[uid]++
				f := dropFile{fmt.Sprintf("%08d", rng.IntN(1e8)*100+uid), uint32(uid)}
				if wait.known[f.name] {
					waiting[uid]--
					all--
				}
				wait.add(f)
				wait.add(f) // seen twice
			}
		}
		wait.sort()
		if wait.length != all {
			t.Fatalf("%d files wait, want %d", wait.length, all)
		}
		for f, ok := wait.next(); ok; f, ok = wait.next() {
			uid := int(f.uid)
			if f.name <= last[uid] {
				t.Fatalf("%s after %s", f.name, last[uid])
			}
			last[uid] = f.name
			served[uid]++
			waiting[uid]--
			all--
			for other := range owners {
				if waiting[other] > 0 && served[uid] > served[other]+1 {
					t.Fatalf("uid %d was served %d times, uid %d %d times", uid, served[uid], other, served[other])
				}
			}
			wait.done(f)
		}
		if all != 0 || wait.length != 0 || len(wait.turns) != 0 {
			t.Fatalf("%d files forgotten", all)
		}
	}
}

func TestOneOwnerDoesNotHaveAllWorkers(t *testing.T) {
	wait := newDropTurns()
	for i := range 2 * dropWorkers {
		wait.add(dropFile{fmt.Sprint(i), 33})
	}
	n := 0
	for _, ok := wait.next(); ok; _, ok = wait.next() {
		n++
	}
	if n != dropPerOwner || n >= dropWorkers {
		t.Errorf("%d files of one owner are taken at a time, of %d", n, dropWorkers)
	}
	wait.add(dropFile{"x", 1000})
	if f, ok := wait.next(); !ok || f.uid != 1000 {
		t.Errorf("next is %+v, %v", f, ok)
	}
	wait.done(dropFile{uid: 33})
	if f, ok := wait.next(); !ok || f.uid != 33 {
		t.Errorf("next is %+v, %v", f, ok)
	}
}

// The law: whatever is read, no name is longer than it or has a NUL in it, and what
// the kernel writes is read as it is.
func FuzzEventNames(f *testing.F) {
	event := func(name string, pad int) []byte {
		b := make([]byte, unix.SizeofInotifyEvent-4)
		b = binary.NativeEndian.AppendUint32(b, uint32(len(name)+pad))
		return append(append(b, name...), make([]byte, pad)...)
	}
	f.Add(append(event("abc", 5), event("", 0)...))
	f.Add([]byte("0123456789ab\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		for _, name := range eventNames(b) {
			total += len(name)
			for i := range len(name) {
				if name[i] == 0 {
					t.Fatalf("a NUL in %q", name)
				}
			}
		}
		if total > len(b) {
			t.Fatalf("%d octets of names in %d", total, len(b))
		}
		if len(b) > 0 && len(b) < 256 {
			name := fmt.Sprintf("%x", b)
			if got := eventNames(append(event(name, 3), event("next", 4)...)); len(got) != 2 || got[0] != name || got[1] != "next" {
				t.Fatalf("names = %q", got)
			}
		}
	})
}
