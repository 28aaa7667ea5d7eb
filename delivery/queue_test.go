package delivery

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"postino/spool"
)

func message(id spool.ID, next time.Time) *spool.Message {
	return &spool.Message{ID: id, Recipients: []spool.Recipient{{Status: spool.Queued, Next: next}}}
}

func (q *queue) put(id spool.ID, next time.Time) { q.add(message(id, next).Entry()) }

// next takes whatever is due now; the ID is 0 if nothing is.
func (q *queue) next() job {
	j, _, _ := q.take(time.Now(), false, time.Minute)
	return j
}

func TestQueueGivesWhatIsDueInOrder(t *testing.T) {
	q := newQueue()
	now := time.Now().Truncate(time.Microsecond)
	q.put(3, now.Add(-time.Second))
	q.put(2, time.Time{})
	q.put(1, time.Time{})
	q.put(4, now.Add(time.Hour))
	var got []spool.ID
	for {
		j, wait, ok := q.take(now, false, 2*time.Hour)
		if !ok {
			if wait != time.Hour {
				t.Errorf("wait = %v, want an hour", wait)
			}
			break
		}
		got = append(got, j.id)
		q.done(j, nil, false)
	}
	if len(got) != 3 || got[0] != 1 || got[1] != 2 || got[2] != 3 {
		t.Errorf("order = %v", got)
	}
	q.retry()
	if j := q.next(); j.id != 4 || !j.force {
		t.Errorf("retry: %+v", j)
	}
}

// A message that is released while the attempt that had it held is ending must
// not be forgotten.
func TestQueueRemembersWhatCameDuringAnAttempt(t *testing.T) {
	q := newQueue()
	q.put(1, time.Time{})
	j := q.next()
	held := message(1, time.Time{})
	held.Held = "why not"
	q.put(1, time.Time{})
	q.done(j, held, false)
	if j = q.next(); j.id == 0 {
		t.Fatal("forgotten")
	}
	q.done(j, held, false)
	if q.size() != 0 {
		t.Errorf("%d messages left, want none", q.size())
	}
}

// A machine whose clock was years ahead deferred mail to then. It is due now.
func TestNextOfAWrongClockIsDue(t *testing.T) {
	q := newQueue()
	now := time.Now()
	m := message(1, now.AddDate(10, 0, 0))
	q.add(m.Entry())
	j := q.next()
	if j.id == 0 || len(due(m, now, false)) != 1 {
		t.Fatalf("not due: %+v", j)
	}
	q.done(j, m, false)
	if q.next().id == 0 {
		t.Error("not due after an attempt that failed to record")
	}
	q.put(2, now.Add(24*time.Hour))
	if j := q.next(); j.id != 0 {
		t.Errorf("%s is due a day early", j.id)
	}
}

// What is to be attempted at once does not wait for a clock that was set back.
func TestMailGoesAtOnceAlthoughTheClockWasSetBack(t *testing.T) {
	q := newQueue()
	now := time.Now()
	for i := range 5 {
		q.put(spool.NewID(now.Add(time.Duration(-i)*time.Second)), time.Time{})
	}
	q.put(spool.NewID(now), now.Add(time.Minute))
	for i := range 6 {
		at := now.Add(time.Duration(-i) * time.Hour)
		j, wait, ok := q.take(at, false, 24*time.Hour)
		if ok != (i < 5) {
			t.Fatalf("message %d, %d hours ago: %+v, wait %v", i, i, j, wait)
		}
	}
}

// An attempt may have begun with what was mended since.
func TestRetryReachesAnAttemptUnderWay(t *testing.T) {
	q := newQueue()
	q.put(1, time.Time{})
	j := q.next()
	q.retry()
	q.done(j, message(1, time.Now().Add(time.Hour)), false)
	if j = q.next(); j.id == 0 || !j.force {
		t.Fatalf("not due: %+v", j)
	}
	q.done(j, message(1, time.Now().Add(time.Hour)), false)
	if j = q.next(); j.id != 0 {
		t.Errorf("due once more: %+v", j)
	}
	// One that is finished is not revived.
	q.retry()
	j = q.next()
	q.retry()
	q.done(j, nil, false)
	if q.size() != 0 {
		t.Errorf("%d left", q.size())
	}
}

// law is a random source whose seed is told when the test fails.
func law(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// arrive adds a message of the moment for a uid.
func arrive(q *queue, id *spool.ID, e spool.Entry) spool.Entry {
	*id++
	e.ID = *id
	q.add(e)
	return e
}

// While two uids both have mail of a class waiting, neither is served twice more
// than the other: not by how much it has, nor by when it came.
func TestUIDsTakeTurns(t *testing.T) {
	rng := law(t)
	for range 50 {
		q, id := newQueue(), spool.ID(0)
		uids := 2 + rng.IntN(8)
		uidOf, waiting := make(map[spool.ID]int), make([]int, uids)
		for uid := range uids {
			for range 1 + rng.IntN(200) {
				e := arrive(q, &id, spool.Entry{UID: uid})
				uidOf[e.ID] = uid
				waiting[uid]++
			}
		}
		served := make([]int, uids)
		last := make([]spool.ID, uids)
		for j := q.next(); j.id != 0; j = q.next() {
			uid := uidOf[j.id]
			if j.id < last[uid] {
				t.Fatalf("%d after %d: not in the order of arrival", j.id, last[uid])
			}
			last[uid] = j.id
			served[uid]++
			waiting[uid]--
			for other := range uids {
				if waiting[other] > 0 && served[uid] > served[other]+1 {
					t.Fatalf("uid %d was served %d times, uid %d, which has %d waiting, %d times", uid, served[uid], other, waiting[other], served[other])
				}
			}
			q.done(j, nil, false)
		}
		for uid, n := range waiting {
			if n != 0 {
				t.Fatalf("%d messages of uid %d never came", n, uid)
			}
		}
	}
}

// A single mail waits for no more than one of each uid that has mail waiting, and
// for the bulk mail among those, however much of both there is.
func TestSingleMailPassesACampaign(t *testing.T) {
	rng := law(t)
	for _, campaign := range []spool.Entry{{UID: 33}, {UID: 33, Bulk: true}, {UID: 33, Large: true}} {
		q, id := newQueue(), spool.ID(0)
		for range 5000 {
			arrive(q, &id, campaign)
		}
		for range rng.IntN(1000) {
			q.done(q.next(), nil, false)
		}
		single := arrive(q, &id, spool.Entry{UID: 1000})
		position := 1
		for j := q.next(); j.id != single.ID; j = q.next() {
			q.done(j, nil, false)
			position++
		}
		if position > 2 {
			t.Errorf("behind %+v: it was number %d", campaign, position)
		}
	}
}

// Bulk mail goes behind ordinary mail of all, its own uid included, and still one
// attempt in so many is for it; large mail is in between.
func TestClassesAreServedInOrderAndNoneStarves(t *testing.T) {
	q, id := newQueue(), spool.ID(0)
	kinds := []spool.Entry{{UID: 1}, {UID: 1, Large: true}, {UID: 2, Bulk: true}, {UID: 1, Bulk: true}}
	kind := make(map[spool.ID]int)
	for range 1000 {
		for i, e := range kinds {
			kind[arrive(q, &id, e).ID] = i
		}
	}
	const rounds = 2000
	var served [4]int
	for range rounds {
		j := q.next()
		k := kind[j.id]
		served[k]++
		if j.heavy() != (k != 0) {
			t.Fatalf("heavy = %v of %+v", j.heavy(), kinds[k])
		}
		q.done(j, nil, false)
		kind[arrive(q, &id, kinds[k]).ID] = k // it never ends
	}
	const share, least = rounds / 8, rounds / 8 * 9 / 10
	if bulk := served[2] + served[3]; bulk < least || bulk > share+1 {
		t.Errorf("bulk mail was served %d times of %d", bulk, rounds)
	}
	if served[1] < least || served[1] > share+1 {
		t.Errorf("large mail was served %d times of %d", served[1], rounds)
	}
	if d := served[2] - served[3]; d < -1 || d > 1 {
		t.Errorf("bulk mail of two uids was served %d and %d times", served[2], served[3])
	}
	if served[0] < rounds/2 {
		t.Errorf("ordinary mail was served %d times of %d", served[0], rounds)
	}
}

func TestReservedAttemptIsForOrdinaryMail(t *testing.T) {
	q, id := newQueue(), spool.ID(0)
	for range 20 {
		arrive(q, &id, spool.Entry{Bulk: true})
		arrive(q, &id, spool.Entry{Large: true})
	}
	want := arrive(q, &id, spool.Entry{UID: 7})
	if j, _, ok := q.take(time.Now(), true, time.Minute); !ok || j.id != want.ID || j.heavy() {
		t.Errorf("took %+v", j)
	}
	if j, wait, ok := q.take(time.Now(), true, time.Minute); ok || wait != time.Minute {
		t.Errorf("took %+v, wait %v", j, wait)
	}
	if reserved(1, 0) || reserved(4, 2) || !reserved(4, 3) || !reserved(2, 1) || reserved(32, 23) || !reserved(32, 24) {
		t.Error("of several attempts three quarters may be heavy, and of one that one")
	}
}

func TestNothingOfASuspendedUIDIsTaken(t *testing.T) {
	q, id := newQueue(), spool.ID(0)
	for i := range 30 {
		arrive(q, &id, spool.Entry{UID: i % 3, Bulk: i%2 == 0})
	}
	q.suspend(map[uint32]bool{1: true})
	if got := q.size(); got != 20 {
		t.Errorf("size = %d, want 20", got)
	}
	n := 0
	for j := q.next(); j.id != 0; j = q.next() {
		n++
		q.done(j, nil, false)
	}
	if n != 20 || q.size() != 0 {
		t.Errorf("took %d, %d are left; want 20 and 0", n, q.size())
	}
	q.retry()
	if j := q.next(); j.id != 0 {
		t.Errorf("took %+v after retry", j)
	}
	q.suspend(nil)
	for j := q.next(); j.id != 0; j = q.next() {
		n++
		q.done(j, nil, false)
	}
	if n != 30 {
		t.Errorf("took %d in all, want 30", n)
	}
}

// Whatever happens in whatever order, a message that has something to attempt is
// taken, by one attempt at a time, and the memory of all is given back.
func TestQueueForgetsNothingAndGivesNothingTwice(t *testing.T) {
	rng := law(t)
	q := newQueue()
	now := time.Now()
	waiting, taken := make(map[spool.ID]bool), make(map[spool.ID]job)
	entry := func(id spool.ID) spool.Entry {
		e := spool.Entry{ID: id, UID: rng.IntN(5), Bulk: rng.IntN(2) == 0, Large: rng.IntN(4) == 0}
		if rng.IntN(2) == 0 {
			e.Next = now.Add(time.Duration(rng.IntN(7200)-3600) * time.Second)
		}
		return e
	}
	for range 20000 {
		switch rng.IntN(10) {
		case 0, 1, 2, 3: // new, or once more
			id := spool.ID(1 + rng.IntN(500))
			q.add(entry(id))
			waiting[id] = true
		case 4:
			q.retry()
		case 5:
			q.suspend(map[uint32]bool{uint32(rng.IntN(5)): true, uint32(rng.IntN(5)): rng.IntN(2) == 0})
		case 6: // a clock that nobody can rely on
			now = now.Add(time.Duration(rng.IntN(7200)-3600) * time.Second)
		case 7, 8:
			j, _, ok := q.take(now, rng.IntN(4) == 0, time.Minute)
			if !ok {
				continue
			}
			if _, twice := taken[j.id]; twice || !waiting[j.id] {
				t.Fatalf("%d was given: an attempt has it: %v, it waits: %v", j.id, twice, waiting[j.id])
			}
			taken[j.id] = j
			delete(waiting, j.id)
		default:
			for id, j := range taken { // the first that comes
				m := message(id, now.Add(time.Hour))
				if rng.IntN(2) == 0 {
					m = nil
				} else {
					waiting[id] = true
				}
				q.done(j, m, false)
				delete(taken, id)
				break
			}
		}
	}
	q.suspend(nil)
	for _, j := range taken {
		q.done(j, nil, false)
	}
	for j, _, ok := q.take(now.Add(4*time.Hour), false, 0); ok; j, _, ok = q.take(now.Add(4*time.Hour), false, 0) {
		if !waiting[j.id] {
			t.Fatalf("%d was given and does not wait", j.id)
		}
		delete(waiting, j.id)
		q.done(j, nil, false)
	}
	if len(waiting) > 0 || q.size() != 0 || len(q.items.blocks) != 0 {
		t.Errorf("never given: %v; %d are left, in %d blocks", waiting, q.size(), len(q.items.blocks))
	}
}

// BenchmarkQueue adds and takes with a million messages of ten uids waiting, and
// reports the octets of memory that each costs.
func BenchmarkQueue(b *testing.B) {
	const waiting = 1_000_000
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	q, id := newQueue(), spool.NewID(time.Now().Add(-time.Hour))
	next := func() spool.Entry {
		id += 1 << 12
		return spool.Entry{ID: id, UID: int(id>>12) % 10, Bulk: id>>12%3 == 0}
	}
	for range waiting {
		q.add(next())
	}
	octets := float64(heap()-before) / waiting
	b.Run("add and take", func(b *testing.B) {
		for range b.N {
			q.add(next())
			q.done(q.next(), nil, false)
		}
		b.ReportMetric(octets, "octets/message")
	})
	b.Run("retry", func(b *testing.B) {
		for range b.N {
			q.retry()
		}
	})
}
