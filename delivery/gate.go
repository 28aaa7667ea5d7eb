package delivery

import "sync"

// gates keep one next hop from taking the attempts of all others: what is more than
// it may have at a time is put aside, without a goroutine and out of the schedule,
// until one of its attempts is over.
type gates struct {
	mu   sync.Mutex
	hops map[string]*gate // guarded by mu: those with attempts under way
}

type gate struct {
	running int
	aside   []job // in the order to go on
}

// enter reports whether an attempt for a hop, which may have most at a time, can
// begin. Then leave ends it.
func (g *gates) enter(hop string, most int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.hops[hop]
	if h == nil {
		h = new(gate)
		if g.hops == nil {
			g.hops = make(map[string]*gate)
		}
		g.hops[hop] = h
	}
	if h.running >= max(1, most) {
		return false
	}
	h.running++
	return true
}

// leave ends an attempt, and returns what can go on in its place.
func (g *gates) leave(hop string) (j job, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.hops[hop]
	h.running--
	if len(h.aside) > 0 {
		j, ok = h.aside[0], true
		h.aside = h.aside[1:]
	}
	if h.running == 0 && len(h.aside) == 0 {
		delete(g.hops, hop)
	}
	return j, ok
}

// putAside keeps j until an attempt of the hop is over; false if there is none any
// more.
func (g *gates) putAside(hop string, j job) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.hops[hop]
	if h == nil || h.running == 0 {
		return false
	}
	h.aside = append(h.aside, j)
	return true
}
