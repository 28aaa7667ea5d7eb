package delivery

import (
	"slices"
	"sync"
)

// gates keep one next hop from taking the attempts of all others, and one mailbox those
// of all others of its hop: what is more than it may have at a time is put aside, without
// a goroutine and out of the schedule, until one of its attempts is over. As in the
// schedule, the uids take turns: whoever has much put aside has nobody wait behind it.
type gates struct {
	mu   sync.Mutex
	hops map[string]*gate // guarded by mu: those with attempts under way
}

type gate struct {
	running int
	aside   []turns // in the order to go on
}

// turns are jobs of one uid and class, in the order to go on.
type turns struct {
	uid   uint32
	class int
	jobs  []job
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
		first := h.aside[0]
		j, ok = first.jobs[0], true
		h.aside = h.aside[1:]
		if first.jobs = first.jobs[1:]; len(first.jobs) > 0 {
			h.aside = append(h.aside, first)
		}
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
	at := slices.IndexFunc(h.aside, func(t turns) bool { return t.uid == j.uid && t.class == j.class })
	if at < 0 {
		at = len(h.aside)
		h.aside = append(h.aside, turns{uid: j.uid, class: j.class})
	}
	h.aside[at].jobs = append(h.aside[at].jobs, j)
	return true
}
