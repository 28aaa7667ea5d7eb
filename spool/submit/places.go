package submit

import (
	"sync"
	"time"
)

const (
	// maxPlaces is how many transactions with much in memory may be open at a time: a
	// header section above header.SmallSection, or many recipients. maxPlacesPerUID are
	// those of one user. One takes some 8 MiB. Root has no limit, and most mail needs
	// no place: bodies are not kept in memory.
	maxPlaces       = 16
	maxPlacesPerUID = 4
	// fewRecipients need no place. In drop/ most are enough for a front end, and
	// messages with more are taken one at a time: one may take 100 MiB.
	fewRecipients     = 100
	fewDropRecipients = 10_000
	// placeWait bounds the wait for one. A front end leaves a drop file when it is not
	// answered within 20 seconds, so that it is told before.
	placeWait = 10 * time.Second
	// placeGrace and placeRate bound how long a place is kept: whoever has one must
	// send so many octets a second, and may fall behind by that time. A front end has
	// all it is going to send.
	placeGrace = 10 * time.Second
	placeRate  = 64 << 10
)

// places bounds what sessions keep in memory.
type places struct {
	max, perUID int

	mu    sync.Mutex
	users map[int]int   // guarded by mu: places taken by uid
	total int           // guarded by mu: their sum
	freed chan struct{} // guarded by mu: closed when one is given back; nil when nobody waits
}

// take takes a place, which leave gives back. It waits for one, and the result is
// nil when there is none in time.
func (p *places) take(uid int, patience time.Duration) (leave func()) {
	enough := time.NewTimer(patience)
	defer enough.Stop()
	for {
		freed, ok := p.try(uid)
		if ok {
			return sync.OnceFunc(func() { p.leave(uid) })
		}
		select {
		case <-freed:
		case <-enough.C:
			return nil
		}
	}
}

// try takes a place, or returns what is closed when there may be one.
func (p *places) try(uid int) (freed <-chan struct{}, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.total < p.max && p.users[uid] < p.perUID {
		if p.users == nil {
			p.users = make(map[int]int)
		}
		p.total++
		p.users[uid]++
		return nil, true
	}
	if p.freed == nil {
		p.freed = make(chan struct{})
	}
	return p.freed, false
}

func (p *places) leave(uid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total--
	if p.users[uid]--; p.users[uid] == 0 {
		delete(p.users, uid)
	}
	if p.freed != nil {
		close(p.freed)
		p.freed = nil
	}
}
