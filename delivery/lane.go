package delivery

import (
	"container/heap"
	"math"
	"slices"
	"time"

	"postino/spool"
)

// item is one message in the schedule. A million of them wait at times: there is no
// pointer in it.
type item struct {
	id   spool.ID
	next int64 // when it is due, in microseconds since 1970
	uid  uint32
	// pos is where it is in its lane, onHand while an attempt has it.
	pos   uint32
	flags uint8
}

const onHand = math.MaxUint32

// Flags of an item.
const (
	force   = 1 << iota // attempt all unsettled recipients, due or not
	again               // add was called while an attempt had it
	retry               // so was retry
	atOnce              // it is due since it came, whatever the clock says
	isBulk              // see spool.Entry
	isLarge             // likewise
	waits               // some of it waits for wake
)

func (it *item) taken() bool { return it.pos == onHand }
func (it *item) take()       { it.pos = onHand }

func (it *item) class() int {
	switch {
	case it.flags&isBulk != 0:
		return bulk
	case it.flags&isLarge != 0:
		return large
	}
	return ordinary
}

// describe takes over what e says.
func (it *item) describe(e spool.Entry, now time.Time) {
	it.uid = uint32(e.UID)
	it.flags &^= isBulk | isLarge | atOnce
	if e.Bulk {
		it.flags |= isBulk
	}
	if e.Large {
		it.flags |= isLarge
	}
	if e.Next.IsZero() || e.Next.Sub(now) > farthest {
		it.begin(now)
	} else {
		it.next = e.Next.UnixMicro()
	}
}

// begin makes it due since it came, which is known well enough from its ID.
func (it *item) begin(now time.Time) {
	it.next = min(it.id.Time().UnixMicro(), now.UnixMicro())
	it.flags |= atOnce
}

// hurry makes it due, and all its recipients with it.
func (it *item) hurry(now time.Time) {
	it.begin(now)
	it.flags |= force
}

// slab holds items in blocks, so that it grows without copying and without room to
// spare for a second half.
type slab struct {
	blocks [][]item
	unused []uint32
}

const slabBlock = 4096 // items

func (s *slab) at(n uint32) *item { return &s.blocks[n/slabBlock][n%slabBlock] }

func (s *slab) new(id spool.ID) uint32 {
	if last := len(s.unused) - 1; last >= 0 {
		n := s.unused[last]
		s.unused = s.unused[:last]
		*s.at(n) = item{id: id}
		return n
	}
	last := len(s.blocks) - 1
	if last < 0 || len(s.blocks[last]) == slabBlock {
		s.blocks = append(s.blocks, make([]item, 0, slabBlock))
		last++
	}
	s.blocks[last] = append(s.blocks[last], item{id: id})
	return uint32(last*slabBlock + len(s.blocks[last]) - 1)
}

func (s *slab) free(n uint32) { s.unused = append(s.unused, n) }

// class is the mail of one class: a lane for each uid that has some waiting, in the
// order of their turns.
type class struct {
	items  *slab
	lanes  []*lane
	byUID  map[uint32]*lane
	cursor int // whose turn it is
	passed int // how often others were served while something was due here
}

// lane returns the lane of a uid; a new one has its turn last.
func (c *class) lane(uid uint32) *lane {
	l := c.byUID[uid]
	if l == nil {
		l = &lane{uid: uid, items: c.items}
		c.byUID[uid] = l
		c.lanes = slices.Insert(c.lanes, c.cursor, l)
		if c.cursor++; c.cursor == len(c.lanes) {
			c.cursor = 0
		}
	}
	return l
}

// seek moves the cursor to the next lane with something due, and returns 0; if there
// is none, it returns how long until there will be.
func (c *class) seek(now time.Time, suspended map[uint32]bool) time.Duration {
	wait := time.Duration(math.MaxInt64)
	for i := range c.lanes {
		at := (c.cursor + i) % len(c.lanes)
		l := c.lanes[at]
		if suspended[l.uid] {
			continue
		}
		next := time.UnixMicro(c.items.at(l.due[0]).next)
		if ripe(next, now) {
			c.cursor = at
			return 0
		}
		wait = min(wait, next.Sub(now))
	}
	return wait
}

// pop takes the first message of the lane at the cursor, and has the next lane
// follow.
func (c *class) pop() uint32 {
	l := c.lanes[c.cursor]
	n := heap.Pop(l).(uint32)
	c.cursor = (c.cursor + 1) % len(c.lanes)
	c.tidy(l)
	return n
}

// tidy removes a lane that is empty.
func (c *class) tidy(l *lane) {
	if len(l.due) > 0 {
		return
	}
	at := slices.Index(c.lanes, l)
	c.lanes = slices.Delete(c.lanes, at, at+1)
	delete(c.byUID, l.uid)
	if at < c.cursor {
		c.cursor--
	}
	if c.cursor >= len(c.lanes) {
		c.cursor = 0
	}
}

// lane is a heap of the messages of one uid in one class: by when they are due, and
// those of one time by arrival.
type lane struct {
	uid   uint32
	items *slab
	due   []uint32
}

func (l *lane) push(n uint32) { heap.Push(l, n) }

func (l *lane) Len() int { return len(l.due) }

func (l *lane) Less(i, j int) bool {
	a, b := l.items.at(l.due[i]), l.items.at(l.due[j])
	if a.next != b.next {
		return a.next < b.next
	}
	return a.id < b.id
}

func (l *lane) Swap(i, j int) {
	l.due[i], l.due[j] = l.due[j], l.due[i]
	l.items.at(l.due[i]).pos, l.items.at(l.due[j]).pos = uint32(i), uint32(j)
}

// Push implements heap.Interface.
func (l *lane) Push(x any) {
	n := x.(uint32)
	l.items.at(n).pos = uint32(len(l.due))
	l.due = append(l.due, n)
}

// Pop implements heap.Interface.
func (l *lane) Pop() any {
	last := len(l.due) - 1
	n := l.due[last]
	l.due = l.due[:last]
	return n
}
