package submit

import (
	"math/rand/v2"
	"testing"
	"time"
)

// submit asks for n and counts them if there is room.
func (mt *meter) submit(uid int, at, now time.Time, n int) bool {
	ok := mt.room(uid, at, now, n)
	if ok {
		mt.add(uid, at, now, n)
	}
	return ok
}

// In no stretch of a rate's time do more get through than the rate says, however they
// come, and who keeps to the rate is never stopped.
func TestRateHoldsInEveryStretchOfItsTime(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	type passed struct {
		at time.Time
		n  int
	}
	for _, rate := range []Rate{{1, time.Second}, {7, time.Minute}, {200, time.Hour}, {1000, 24 * time.Hour}} {
		mt := &meter{rate: rate}
		now := time.Now()
		var through []passed
		for range 5000 {
			now = now.Add(time.Duration(rng.Int64N(2 * int64(rate.Per) / int64(rate.N))))
			if rng.IntN(500) == 0 {
				now = now.Add(time.Duration(rng.Int64N(5 * int64(rate.Per))))
			}
			if n := 1 + rng.IntN(3); mt.submit(33, now, now, n) {
				through = append(through, passed{now, n})
			}
			if mt.submit(34, now, now, 0); !mt.room(34, now, now, rate.N) {
				t.Fatal("one uid is stopped for what another did")
			}
		}
		sum, from := 0, 0
		for _, p := range through {
			sum += p.n
			for p.at.Sub(through[from].at) >= rate.Per {
				sum -= through[from].n
				from++
			}
			if sum > rate.N {
				t.Fatalf("%v: %d got through within the time", rate, sum)
			}
		}
		if len(through) < 100 {
			t.Fatalf("%v: %d got through in all", rate, len(through))
		}
		steady := now.Add(3 * rate.Per)
		for i := range 3 * rate.N {
			// Each step of the time may begin up to one early.
			at := steady.Add(time.Duration(i) * rate.Per / time.Duration(rate.N) * (steps + 2) / steps)
			if !mt.submit(33, at, at, 1) {
				t.Fatalf("%v: stopped, although the rate was kept", rate)
			}
		}
	}
}

// What waited in drop/ counts when it came: an outage of the runner makes no flood.
func TestLateMailCountsWhenItCame(t *testing.T) {
	mt := &meter{rate: Rate{60, time.Hour}}
	now := time.Now()
	for i := range 100 {
		if at := now.Add(time.Duration(i-100) * time.Minute * 62 / 60); !mt.submit(33, at, now, 1) {
			t.Errorf("message %d, of %v ago, is stopped", i, now.Sub(at))
		}
	}
	mt = &meter{rate: Rate{60, time.Hour}}
	stopped := 0
	for range 200 { // days ago, all at once
		if !mt.submit(33, now.Add(-72*time.Hour), now, 1) {
			stopped++
		}
	}
	if stopped != 140 {
		t.Errorf("of 200 of one moment long ago %d were stopped, want 140", stopped)
	}
}

// A clock that was ahead for a while does not stop anybody once it is right.
func TestClockThatWasWrongStopsNobody(t *testing.T) {
	mt := &meter{rate: Rate{10, time.Hour}}
	now := time.Now()
	for _, at := range []time.Time{now.AddDate(1, 0, 0), now, now.AddDate(-30, 0, 0), now} {
		for range 10 {
			if !mt.submit(33, at, at, 1) {
				t.Fatalf("stopped at %v", at)
			}
		}
		if mt.submit(33, at, at, 1) {
			t.Fatalf("not stopped at %v", at)
		}
	}
}

func TestIdleUIDsAreForgotten(t *testing.T) {
	mt := &meter{rate: Rate{10, time.Minute}}
	now := time.Now()
	for uid := range 100_000 {
		now = now.Add(time.Second)
		mt.submit(uid, now, now, 1)
	}
	if n := len(mt.uids); n > 2*minTidy {
		t.Errorf("%d uids are remembered, although some 120 count", n)
	}
}
