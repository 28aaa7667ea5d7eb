package durability_test

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// perPlay is how many points of each play there are in CI.
const perPlay = 8

// Killed at any system call, of the front end or of the runner from its start to
// its end: nothing is lost, nothing is cut, nothing is doubled.
func TestNothingIsLostByAKillAtAnySystemCall(t *testing.T) {
	n, most := seed(t), size(t, callsVariable, perPlay)
	for _, p := range plays() {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			var points []fault
			_, total := census(t, p, n)
			for nth := range total {
				points = append(points, fault{nth: nth + 1, kill: true})
			}
			walk(t, p, n, most, points)
		})
	}
}

// One system call fails: the exit status tells the truth, and nothing is lost.
func TestNothingIsLostByAnErrorOfAnySystemCall(t *testing.T) {
	n, most := seed(t), size(t, errnosVariable, perPlay)
	for _, p := range plays() {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			calls, _ := census(t, p, n)
			var points []fault
			for _, name := range slices.Sorted(maps.Keys(calls)) {
				for _, errno := range p.errnos(name) {
					for nth := range calls[name] {
						points = append(points, fault{call: name, nth: nth + 1, errno: errno, short: errno == 0})
					}
				}
			}
			walk(t, p, n, most, points)
		})
	}
}

// What once lost mail or refused it. The faults are met for certain.
func TestFaultsThatOnceDidHarm(t *testing.T) {
	needsRoot(t)
	n, runner := seed(t), play{name: "runner", runner: true, times: 1}
	s := runner.set(t, programs("plain"))
	for _, f := range []fault{
		// Accepted mail was put aside as rejected.
		{call: "read", on: "/drop/", nth: 1, errno: unix.EIO},
		{call: "read", on: "/drop/", nth: 3, errno: unix.EIO},
		// An empty file took the place of a spool that could not be looked at.
		{call: "openat", on: "/spool.db", nth: 1, errno: unix.EIO},
	} {
		if m := s.meet(n, f); !m.hit || m.err != nil {
			t.Errorf("%v: met: %v; %v", f, m.hit, m.err)
		}
	}
}

// errnos are the errors that a call can end with on a broken machine; 0 is a write
// of half the octets. EAGAIN is among them only where the kernel may say so: one
// that lies about a socket that is ready has Go wait for a change that never comes.
func (p play) errnos(call string) []syscall.Errno {
	full := []syscall.Errno{unix.ENOSPC, unix.EDQUOT, unix.EIO}
	switch call {
	case "openat", "open":
		return append(full, unix.EROFS, unix.EMFILE, unix.EINTR, unix.EAGAIN)
	case "read", "pread64":
		if p.runner {
			return []syscall.Errno{unix.EIO, unix.EINTR}
		}
		return []syscall.Errno{unix.EIO, unix.EINTR, unix.EAGAIN}
	case "write", "pwrite64":
		return append(full, unix.EFBIG, unix.EINTR, 0)
	case "writev": // of the front end alone: to a socket with a timeout, or a file
		return append(full, unix.EFBIG, unix.EINTR, unix.EAGAIN)
	case "fsync", "fdatasync", "syncfs":
		return append(full, unix.EROFS, unix.EINTR)
	case "ftruncate", "fallocate":
		return append(full, unix.EFBIG, unix.EROFS, unix.EINTR)
	case "rename", "linkat", "unlink", "mkdir", "chmod":
		return append(full, unix.EROFS)
	case "stat", "getdents64", "statfs":
		return []syscall.Errno{unix.EIO}
	case "flock":
		return []syscall.Errno{unix.EINTR, unix.EAGAIN, unix.EIO}
	case "connect":
		return []syscall.Errno{unix.EINTR, unix.EAGAIN, unix.EIO}
	case "bind", "sendto":
		return append(full, unix.EROFS)
	case "socket", "inotify_init1":
		return []syscall.Errno{unix.EMFILE}
	case "accept4":
		return []syscall.Errno{unix.EMFILE, unix.EINTR}
	}
	return nil
}

// census plays without a fault, twice, and takes the larger numbers: no two runs of
// a program with threads make the same calls.
func census(t testing.TB, p play, n uint64) (calls map[string]int, total int) {
	t.Helper()
	s := p.set(t, programs("plain"))
	calls = make(map[string]int)
	for range 2 {
		m := s.meet(n, fault{})
		if m.err != nil {
			t.Fatalf("without a fault: %v", m.err)
		}
		sum := 0
		for name, count := range m.calls {
			calls[name] = max(calls[name], count)
			sum += count
		}
		total = max(total, sum)
	}
	if err := s.close(); err != nil {
		t.Fatalf("without a fault: %v", err)
	}
	return calls, total
}

// walk meets as many of the points as it may, chosen by the seed.
func walk(t *testing.T, p play, n uint64, most int, points []fault) {
	t.Helper()
	chance(n, 0).Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
	points = points[:min(most, len(points))]
	var hit atomic.Int64
	t.Run("points", func(t *testing.T) { // returns when all of them have
		for i := 0; i < len(points); i += runsPerBox {
			some := points[i:min(i+runsPerBox, len(points))]
			t.Run(fmt.Sprintf("from %d", i), func(t *testing.T) {
				t.Parallel()
				hit.Add(p.walk(t, n, some))
			})
		}
	})
	t.Logf("%d points, %d met", len(points), hit.Load())
	if hit.Load() < int64(len(points)/4) {
		t.Error("that proves little")
	}
}

// walk plays once for each of the points, and returns how many were met.
func (p play) walk(t *testing.T, n uint64, points []fault) (hit int64) {
	t.Helper()
	s := p.set(t, programs("plain"))
	for _, f := range points {
		m := s.meet(n, f)
		if m.hit {
			hit++
		}
		if m.err != nil {
			t.Errorf("%v on %q: %v", f, m.at, m.err)
		}
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	return hit
}
