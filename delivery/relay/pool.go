package relay

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"postino/config"
	"postino/spool"
)

const (
	// idleTime is how long a connection is kept for the next message: long enough
	// for a burst of mail, short enough not to be a burden to the remote.
	idleTime = 10 * time.Second
	// maxAge is how long a connection is given new messages: remotes behind a
	// balancer, and certificates, change.
	maxAge = 5 * time.Minute
	// growAfter is how many transactions must go well before one more connection is
	// tried where the remote did not want so many.
	growAfter = 20
)

// pool is what waits to be sent to a peer, and the sessions with it that send it.
// Whatever a session can take at once it takes; what is left has another session
// opened, as far as allowed.
type pool struct {
	peer *peer
	// most connections at a time, each for so many transactions.
	most, perConnection int
	rate                config.Rate
	idle                time.Duration // see idleTime

	ended sync.WaitGroup // sessions

	mu       sync.Mutex
	waiting  []*job     // guarded by mu, as all below
	sessions []*session // those that are being opened too
	allowed  int        // sessions at a time, as the remote has it: 1 to most
	streak   int        // transactions that went well since allowed changed
	confused bool       // BDAT is not known, or answers do not match their commands: no BDAT any more
	lockstep bool       // what was sent ahead was not heard: no PIPELINING any more
	next     time.Time  // when rate allows the next transaction
	pacer    *time.Timer
	closed   bool
}

func newPool(p *peer, most, perConnection int, rate config.Rate) *pool {
	most = max(1, most)
	return &pool{peer: p, most: most, allowed: most, perConnection: perConnection, rate: rate, idle: idleTime}
}

// deliver sends b's message to the recipients at positions to and puts their
// replies into replies. It returns those whom another host may be asked about.
func (p *pool) deliver(ctx context.Context, b *spool.Batch, replies []spool.Reply, to []int) (elsewhere []int) {
	d := &delivery{Batch: b, replies: replies, left: len(to), done: make(chan struct{})}
	p.mu.Lock()
	p.put(&job{delivery: d, to: to}, false)
	p.mu.Unlock()
	select {
	case <-d.done:
	case <-ctx.Done():
		p.interrupt(d)
		<-d.done
	}
	if d.final {
		return nil
	}
	return d.elsewhere
}

// put has j wait for a session, before all others when it has waited already.
func (p *pool) put(j *job, first bool) {
	if j.interrupted || p.closed {
		j.settle(j.to, remote{}.local("connect", "4.3.2", "interrupted while waiting for a connection"))
		return
	}
	if first {
		p.waiting = slices.Insert(p.waiting, 0, j)
	} else {
		p.waiting = append(p.waiting, j)
	}
	p.serve()
}

// serve finds a session for what waits.
func (p *pool) serve() {
	if len(p.waiting) == 0 || p.tooSoon() {
		return
	}
	unserved, opening := len(p.waiting), 0
	for _, idle := range []bool{true, false} {
		for _, s := range p.sessions {
			// An idle one that does not listen is about to look here anyway.
			able := s.idle() || !idle && s.listening && s.room()
			if unserved > 0 && idle == s.idle() && able {
				s.listening = false
				s.changed.Signal()
				unserved--
			}
		}
	}
	for _, s := range p.sessions {
		if !s.ready {
			opening++
		}
	}
	for ; unserved > opening && len(p.sessions) < p.allowed && !p.closed; opening++ {
		p.start()
	}
}

// start opens a session, in a goroutine of its own.
func (p *pool) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s := &session{pool: p, changed: sync.NewCond(&p.mu), most: p.perConnection, cancel: cancel}
	p.sessions = append(p.sessions, s)
	p.ended.Go(func() {
		defer cancel()
		s.run(ctx)
	})
}

// interrupt ends what is done for d: what waits is settled, and sessions that
// carry some of it are cut.
func (p *pool) interrupt(d *delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d.interrupted = true
	p.waiting = slices.DeleteFunc(p.waiting, func(j *job) bool {
		if j.delivery != d {
			return false
		}
		j.settle(j.to, remote{}.local("connect", "4.3.2", "interrupted while waiting for a connection"))
		return true
	})
	for _, s := range p.sessions {
		if slices.ContainsFunc(s.flight, func(t *transaction) bool { return t.delivery == d }) {
			s.fail(fault{err: errInterrupted})
		}
		if !s.ready && len(p.waiting) == 0 {
			s.cancel()
		}
	}
}

// refused takes note that no session came about. While there are others what waits
// is theirs, and the remote is not asked for so many again soon; else it is
// settled.
func (p *pool) refused(s *session, why *refusal) {
	p.remove(s)
	if n := len(p.sessions); n > 0 {
		p.shrink(n)
		return
	}
	waiting := p.waiting
	p.waiting = nil
	for _, j := range waiting {
		j.final = j.final || why.final
		j.pass(j.to, why.Reply)
	}
}

func (p *pool) remove(s *session) {
	p.sessions = slices.DeleteFunc(p.sessions, func(other *session) bool { return other == s })
}

// working is how many sessions are open and may begin another transaction.
func (p *pool) working() (n int) {
	for _, s := range p.sessions {
		if s.ready && !s.leaving && s.fault == nil {
			n++
		}
	}
	return n
}

// hopeful reports whether a session works or is being opened.
func (p *pool) hopeful() bool {
	return slices.ContainsFunc(p.sessions, func(s *session) bool { return !s.leaving && s.fault == nil })
}

// shrink keeps to n sessions: the remote does not want more.
func (p *pool) shrink(n int) { p.allowed, p.streak = max(1, min(p.allowed, n)), 0 }

// went notes that a transaction went well. Now and then that allows one more
// session.
func (p *pool) went() {
	if p.streak++; p.streak >= growAfter && p.allowed < p.most {
		p.allowed++
		p.streak = 0
		p.serve()
	}
}

// crowded reports whether the remote ends a session since there are too many, or
// too much comes at a time.
func crowded(a *answer) bool {
	if a == nil {
		return false
	}
	text := strings.ToLower(strings.Join(a.lines, " "))
	return strings.Contains(text, "too many") || strings.Contains(text, "concurren") || strings.Contains(text, "connection limit")
}

// tooSoon reports whether rate forbids another transaction now. Then serve runs
// again when it does not.
func (p *pool) tooSoon() bool {
	wait := time.Until(p.next)
	if p.rate.N == 0 || wait <= 0 {
		return false
	}
	if p.pacer == nil {
		p.pacer = time.AfterFunc(wait, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.pacer = nil
			p.serve()
		})
	}
	return true
}

// interval is the time from one transaction to the next at the rate.
func (p *pool) interval() time.Duration { return p.rate.Per / time.Duration(p.rate.N) }

// spend takes note of a transaction for rate.
func (p *pool) spend() {
	if p.rate.N == 0 {
		return
	}
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(p.interval())
}

// room is how many deliveries the pool can use at a time: enough to fill the
// sessions that may be, and no more, since what waits here waits in line.
func (p *pool) room() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, s := range p.sessions {
		if s.ready && !s.pipelining() {
			n++
		} else {
			n += s.depth.limit()
		}
	}
	n += max(0, p.allowed-len(p.sessions)) * new(depth).limit()
	if p.rate.N > 0 {
		n = min(n, max(p.most, int(depthTime/p.interval())))
	}
	return n
}

// close ends the sessions, those that are idle with QUIT in 2 s at most, and waits
// for them. No deliver may be under way.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	for _, s := range p.sessions {
		s.cancel()
		s.changed.Signal()
	}
	if p.pacer != nil {
		p.pacer.Stop()
	}
	p.mu.Unlock()
	p.ended.Wait()
}
