package delivery

import (
	"container/heap"
	"sync"
	"time"

	"postino/spool"
)

// queue is the schedule: which message is due when. It lives in memory alone and
// is made anew from the spool at each start; the spool is what counts.
type queue struct {
	changed chan struct{} // a nudge: something may be due earlier than thought

	mu    sync.Mutex
	items map[spool.ID]*item // guarded by mu: every message with something to attempt
	due   dueHeap            // guarded by mu: those of them that no attempt has
}

// item is one message in the schedule.
type item struct {
	id    spool.ID
	next  time.Time
	force bool // attempt all unsettled recipients, due or not
	again bool // add was called while an attempt had it
	retry bool // so was retry
	index int  // in the heap; -1 while an attempt has it
}

func newQueue() *queue {
	return &queue{changed: make(chan struct{}, 1), items: make(map[spool.ID]*item)}
}

// add schedules m, or schedules it anew.
func (q *queue) add(m *spool.Message) {
	next, due := m.Next()
	if !due {
		return
	}
	next = planned(next)
	q.mu.Lock()
	it := q.items[m.ID]
	switch {
	case it == nil:
		it = &item{id: m.ID, next: next}
		q.items[m.ID] = it
		heap.Push(&q.due, it)
	case it.index >= 0:
		it.next = next
		heap.Fix(&q.due, it.index)
	default:
		it.next, it.again = next, true
	}
	q.mu.Unlock()
	q.nudge()
}

// take removes the first message that is due at now. If none is, it returns how
// long until one will be, at most limit.
func (q *queue) take(now time.Time, limit time.Duration) (it *item, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.due) == 0 {
		return nil, limit
	}
	if next := q.due[0].next; !ripe(next, now) {
		return nil, min(next.Sub(now), limit)
	}
	return heap.Pop(&q.due).(*item), 0
}

// done gives back what take returned. m is the message after the attempt; nil
// means that there is nothing left to attempt.
func (q *queue) done(it *item, m *spool.Message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	again, retry := it.again, it.retry
	it.force, it.again, it.retry = retry, false, false
	if m != nil {
		if next, due := m.Next(); due {
			it.next, again = planned(next), true
		}
	}
	if retry {
		it.next = time.Time{}
	}
	if again {
		heap.Push(&q.due, it)
		return
	}
	delete(q.items, it.id)
}

// retry makes everything due at once.
func (q *queue) retry() {
	q.mu.Lock()
	for _, it := range q.items {
		if it.index < 0 {
			it.retry = true // that attempt began before whatever was mended
			continue
		}
		it.next, it.force = time.Time{}, true
	}
	heap.Init(&q.due)
	q.mu.Unlock()
	q.nudge()
}

// planned is when something is to be attempted that says next: at once, if the
// clock was wrong when it did.
func planned(next time.Time) time.Time {
	if ripe(next, time.Now()) {
		return time.Time{}
	}
	return next
}

// size is how many messages have something to attempt.
func (q *queue) size() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

func (q *queue) nudge() {
	select {
	case q.changed <- struct{}{}:
	default:
	}
}

// dueHeap orders items by time, and those of one time by arrival.
type dueHeap []*item

func (h dueHeap) Len() int { return len(h) }

func (h dueHeap) Less(i, j int) bool {
	if !h[i].next.Equal(h[j].next) {
		return h[i].next.Before(h[j].next)
	}
	return h[i].id < h[j].id
}

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *dueHeap) Push(x any) {
	it := x.(*item)
	it.index = len(*h)
	*h = append(*h, it)
}

func (h *dueHeap) Pop() any {
	old := *h
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	it.index = -1
	return it
}
