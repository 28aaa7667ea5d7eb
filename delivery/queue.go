package delivery

import (
	"container/heap"
	"sync"
	"time"

	"postino/spool"
)

// queue is the schedule: which message is due when, and whose turn it is. It is
// made from the spool's own schedule at each start; the spool is what counts.
//
// Three classes of mail are served in their order: ordinary, large, bulk. In a
// class the uids that handed it in take turns, and of one uid the message that has
// been due longest is first. A class that has been passed over patience times while
// it had something due is served then, so that none waits for ever.
//
// A message costs about 80 octets here (see BenchmarkQueue): 32 in items, 4 in its
// lane, the rest in index.
type queue struct {
	changed chan struct{} // a nudge: something may be due earlier than thought

	mu        sync.Mutex
	items     slab                // guarded by mu: every message with something to attempt
	index     map[spool.ID]uint32 // guarded by mu: where in items
	classes   [classes]class      // guarded by mu: those of them that no attempt has
	suspended map[uint32]bool     // guarded by mu: uids of which nothing is attempted
	clock     int64               // guarded by mu: the time of the last take
	wakes     int                 // guarded by mu: how often wake was called
}

// The classes of mail, the first is served first.
const (
	ordinary = iota
	large    // attempts may take long: see spool.Entry
	bulk
	classes
)

// patience is how often a class with something due is passed over before it is
// served all the same: one attempt in eight, while there is other mail.
const patience = 7

// job is a message that an attempt is to be made for.
type job struct {
	id    spool.ID
	force bool // attempt all unsettled recipients, due or not
	uid   uint32
	class int
	wakes int // of the queue when it was taken
}

// heavy reports whether it is not of the ordinary class.
func (j job) heavy() bool { return j.class != ordinary }

func newQueue() *queue {
	q := &queue{changed: make(chan struct{}, 1)}
	q.clear()
	return q
}

// clear forgets everything, and gives the memory back.
func (q *queue) clear() {
	q.items, q.index = slab{}, make(map[spool.ID]uint32)
	for i := range q.classes {
		q.classes[i] = class{items: &q.items, byUID: make(map[uint32]*lane)}
	}
}

// add schedules a message, or schedules it anew. What is held is passed over.
func (q *queue) add(e spool.Entry) {
	if e.Held {
		return
	}
	now := time.Now()
	q.mu.Lock()
	n, known := q.index[e.ID]
	if !known {
		n = q.items.new(e.ID)
		q.index[e.ID] = n
	}
	it := q.items.at(n)
	if it.taken() {
		it.flags |= again
	} else if known {
		q.unqueue(n)
	}
	it.describe(e, now)
	if !it.taken() {
		q.enqueue(n)
	}
	q.mu.Unlock()
	q.nudge()
}

// take removes the message whose turn it is of those that are due at now, of the
// ordinary class alone if light says so. If there is none, it returns how long until
// one will be, at most limit.
func (q *queue) take(now time.Time, light bool, limit time.Duration) (j job, wait time.Duration, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.keepTime(now.UnixMicro())
	end := classes
	if light {
		end = ordinary + 1
	}
	c, wait := q.turn(now, end, limit)
	if c < 0 {
		return job{}, wait, false
	}
	n := q.classes[c].pop()
	it := q.items.at(n)
	j = job{id: it.id, force: it.flags&force != 0, uid: it.uid, class: c, wakes: q.wakes}
	it.flags &^= waits
	it.take()
	return j, 0, true
}

// turn finds the class, of those before end, that is to be served, and moves it to
// the lane whose turn it is; -1 if nothing is due.
func (q *queue) turn(now time.Time, end int, limit time.Duration) (c int, wait time.Duration) {
	c, wait = -1, limit
	var due [classes]bool
	for i := range end {
		next := q.classes[i].seek(now, q.suspended)
		due[i] = next <= 0
		wait = min(wait, next)
		if due[i] && (c < 0 || q.classes[i].passed >= patience) {
			c = i
		}
	}
	for i := range end {
		if due[i] {
			q.classes[i].passed++
		}
	}
	if c >= 0 {
		q.classes[c].passed = 0
	}
	return c, wait
}

// done gives back what take returned. m is the message after the attempt; nil
// means that there is nothing left to attempt. shut says that some of it waits for wake.
func (q *queue) done(j job, m *spool.Message, shut bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.index[j.id]
	it := q.items.at(n)
	flags := it.flags
	it.flags &^= again | retry | force
	queued := flags&again != 0 // then add has described it, and knew better than m
	if !queued && m != nil && m.Held == "" && !m.Settled() {
		it.describe(m.Entry(), time.Now())
		queued = true
	}
	if flags&retry != 0 || shut && j.wakes != q.wakes {
		it.hurry(time.Now())
	} else if shut {
		it.flags |= waits
	}
	if queued {
		q.enqueue(n)
		return
	}
	delete(q.index, j.id)
	q.items.free(n)
	if len(q.index) == 0 {
		q.clear()
	}
}

// back gives back what take returned and no attempt was made for: it is due as before.
func (q *queue) back(j job) {
	q.mu.Lock()
	n := q.index[j.id]
	it := q.items.at(n)
	if it.flags&retry != 0 {
		it.hurry(time.Now())
	}
	it.flags &^= again | retry
	if j.force {
		it.flags |= force
	}
	q.enqueue(n)
	q.mu.Unlock()
	q.nudge()
}

// attempting reports whether an attempt has the message.
func (q *queue) attempting(id spool.ID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, known := q.index[id]
	return known && q.items.at(n).taken()
}

// retry makes everything due at once.
func (q *queue) retry() {
	now := time.Now()
	q.mu.Lock()
	for _, n := range q.index {
		if it := q.items.at(n); it.taken() {
			it.flags |= retry // that attempt began before whatever was mended
		} else {
			it.hurry(now)
		}
	}
	q.order()
	q.mu.Unlock()
	q.nudge()
}

// wake makes what waits for a way that was shut due at once.
func (q *queue) wake() {
	now := time.Now()
	q.mu.Lock()
	q.wakes++
	for _, n := range q.index {
		if it := q.items.at(n); it.flags&waits != 0 && !it.taken() {
			it.flags &^= waits
			it.hurry(now)
		}
	}
	q.order()
	q.mu.Unlock()
	q.nudge()
}

// suspend has nothing attempted of these uids, and of them alone.
func (q *queue) suspend(uids map[uint32]bool) {
	q.mu.Lock()
	q.suspended = uids
	q.mu.Unlock()
	q.nudge()
}

// size is how many messages have something to attempt, those of suspended uids
// apart.
func (q *queue) size() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(q.index)
	for uid := range q.suspended {
		for i := range q.classes {
			if l := q.classes[i].byUID[uid]; l != nil {
				n -= len(l.due)
			}
		}
	}
	return n
}

// enqueue has item n wait in the lane of its class and uid.
func (q *queue) enqueue(n uint32) {
	it := q.items.at(n)
	q.classes[it.class()].lane(it.uid).push(n)
}

// unqueue undoes enqueue.
func (q *queue) unqueue(n uint32) {
	it := q.items.at(n)
	c := &q.classes[it.class()]
	l := c.byUID[it.uid]
	heap.Remove(l, int(it.pos))
	c.tidy(l)
}

// order restores the order of the lanes after the times of many items changed.
func (q *queue) order() {
	for i := range q.classes {
		for _, l := range q.classes[i].lanes {
			heap.Init(l)
		}
	}
}

// clockStep is how far back, in microseconds, the clock is set at least for us to
// look again at what is to be attempted at once.
const clockStep = int64(time.Second / time.Microsecond)

// keepTime notices that the clock was set back: what was to be attempted at once
// would have to wait for the time at which it came.
func (q *queue) keepTime(now int64) {
	if now < q.clock-clockStep {
		for _, n := range q.index {
			if it := q.items.at(n); it.flags&atOnce != 0 && !it.taken() {
				it.next = min(it.next, now)
			}
		}
		q.order()
	}
	q.clock = now
}

func (q *queue) nudge() {
	select {
	case q.changed <- struct{}{}:
	default:
	}
}
