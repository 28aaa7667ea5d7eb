package delivery

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"postino/config"
	"postino/spool"
)

const (
	// probeShare of retry.max is the longest wait between two probes of a way that is
	// shut, by default an hour: who has mended something does not wait longer.
	probeShare = 4
	// maxShut is how many ways are remembered as shut. There are few routes; senders
	// that a relay does not take may be many.
	maxShut = 1000
)

// breakers shut the ways on which the operator has something to mend (see
// spool.Fault), so that mail for them waits in the queue as it is. Now and then one
// attempt, a probe, is let through; when it finds nothing wrong the way is open again.
type breakers struct {
	log *slog.Logger

	mu    sync.Mutex
	retry config.Retry      // guarded by mu
	shut  map[way]*shutdown // guarded by mu
}

// way is where mail goes: a next hop, with the user name there, and, for a fault that is
// the sender's alone, from whom.
type way struct{ hop, sender string }

// way is that of a part of a message.
func (l *leg) way() way {
	w := way{l.hop, l.batch.Message.Sender.String()}
	if l.route.account != "" {
		w.hop += " as " + l.route.account
	}
	return w
}

// shutdown is a way that is shut.
type shutdown struct {
	why    spool.Reply
	since  time.Time
	last   time.Time // when it was found to be so again
	until  time.Time // when the next probe may begin
	probes int       // so many attempts found it so
}

// Alert is something that the operator has to mend, as status tells it.
type Alert struct {
	Hop string
	// Sender is whose mail waits; empty is everybody's.
	Sender string
	Since  time.Time
	// Next is when the next probe may begin.
	Next  time.Time
	Reply spool.Reply
}

// news is what an attempt has changed: a way is shut, or one is open again.
type news struct {
	shut   *Alert
	opened bool
}

// enter reports whether an attempt may begin now. If not, it says why and when to ask
// again. An attempt that may begin although the way is shut is the probe.
func (b *breakers) enter(w way, now time.Time) (why spool.Reply, again time.Time, shut bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var probed []*shutdown
	for _, w := range []way{{hop: w.hop}, w} {
		s := b.shut[w]
		switch {
		case s == nil:
		case now.Before(s.until) && s.until.Sub(now) <= farthest:
			return s.why, s.until, true
		default:
			probed = append(probed, s)
		}
	}
	for _, s := range probed {
		s.until = now.Add(b.wait(s.probes + 1)) // for all others
	}
	return spool.Reply{}, time.Time{}, false
}

// wait is how long the nth probe is waited for.
func (b *breakers) wait(n int) time.Duration {
	most := max(time.Duration(b.retry.Max)/probeShare, time.Duration(b.retry.First))
	return RetryAfter(n, time.Duration(b.retry.First), most).Truncate(time.Microsecond)
}

// learn takes in what came of an attempt that began at start, by a way of a route, and
// tells what is new of it. again is when what met a fault is to be attempted next; zero
// is by the schedule.
func (b *breakers) learn(route string, w way, replies []spool.Reply, start, now time.Time) (again time.Time, n news) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range replies {
		switch r.Fault {
		case "":
		case spool.FaultSender:
			return b.close(w, r, start, now)
		case spool.FaultPort:
			// An alert, and nothing is shut: each host has its own pauses (see relay.Memory).
			_, n = b.close(way{hop: route}, r, start, now)
			return time.Time{}, n
		default:
			return b.close(way{hop: w.hop}, r, start, now)
		}
	}
	for _, w := range []way{{hop: route}, {hop: w.hop}, w} {
		// What began before the fault was found says nothing about it, but that a port
		// is not closed.
		if s := b.shut[w]; s != nil && (s.why.Fault == spool.FaultPort || !start.Before(s.last)) && slices.ContainsFunc(replies, s.gone) {
			delete(b.shut, w)
			n.opened = true
			b.say(w, slog.LevelWarn, "route open again", "after", now.Sub(s.since).Round(time.Second))
		}
	}
	return time.Time{}, n
}

// close shuts a way, or keeps it so, and returns when the next probe may begin.
func (b *breakers) close(w way, why spool.Reply, start, now time.Time) (again time.Time, n news) {
	s := b.shut[w]
	if s == nil {
		if len(b.shut) >= maxShut {
			b.forgetOldest()
		}
		s = &shutdown{since: now, why: why}
		b.shut[w] = s
		b.say(w, slog.LevelError, "route shut: its mail waits until this is mended", "reply", why.Said(), "remedy", why.Remedy)
		n.shut = &Alert{Hop: w.hop, Sender: w.sender, Since: now, Reply: why}
	} else if start.Before(s.last) {
		return s.until, n // it was under way when that was found out
	}
	s.why, s.last = why, now
	s.probes++
	s.until = now.Add(b.wait(s.probes))
	return s.until, n
}

// gone reports whether a reply shows that the fault is no more: the relay took
// something or refused it for its own sake, or it came at least to that where no
// session came about.
func (s *shutdown) gone(r spool.Reply) bool {
	if s.why.Fault == spool.FaultPort && (r.Code != 0 || r.Command == "connect" && r.Status == "4.4.1") {
		return true // this exchanger was reached, or it is not suspected any more since one was
	}
	switch r.Class() {
	case spool.Success, spool.Permanent:
		return r.Code != 0
	}
	inSession := func(command string) bool { return slices.Contains([]string{"MAIL", "RCPT", "DATA", "dot"}, command) }
	return r.Code != 0 && inSession(r.Command) && !inSession(s.why.Command)
}

func (b *breakers) forgetOldest() {
	var oldest way
	for w, s := range b.shut {
		if o := b.shut[oldest]; o == nil || s.last.Before(o.last) {
			oldest = w
		}
	}
	delete(b.shut, oldest)
}

func (b *breakers) say(w way, level slog.Level, msg string, attrs ...any) {
	log := b.log.With("hop", w.hop)
	if w.sender != "" {
		log = log.With("sender", w.sender)
	}
	log.Log(context.Background(), level, msg, attrs...)
}

// doubt has each way that is shut probed at once: the operator says that something
// may have been mended.
func (b *breakers) doubt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.shut {
		s.until = time.Time{}
	}
}

// reset opens all ways, since the configuration is another.
func (b *breakers) reset(retry config.Retry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.retry = retry
	b.shut = make(map[way]*shutdown)
}

// alerts are the ways that are shut, longest first.
func (b *breakers) alerts() []Alert {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]Alert, 0, len(b.shut))
	for w, s := range b.shut {
		next := s.until
		if now := time.Now(); next.Before(now) {
			next = now // with the next mail for it
		}
		list = append(list, Alert{Hop: w.hop, Sender: w.sender, Since: s.since, Next: next, Reply: s.why})
	}
	slices.SortFunc(list, func(x, y Alert) int {
		return cmp.Or(x.Since.Compare(y.Since), cmp.Compare(x.Hop, y.Hop), cmp.Compare(x.Sender, y.Sender))
	})
	return list
}

// wait is a part of an attempt that was not made, since its way is shut.
type wait struct {
	leg   *leg
	again time.Time
}

// deferLeg notes for recipients that were never attempted what their mail waits for,
// so that whoever asks is told. For others nothing is worth a record.
func (r *Runner) deferLeg(ctx context.Context, s *spool.Spool, p *plan, m *spool.Message, l *leg, why spool.Reply, again time.Time) *spool.Message {
	a := &spool.Attempt{At: time.Now(), Hop: l.hop}
	for _, about := range l.about {
		for _, n := range about {
			if m.Recipients[n].Status == spool.Queued {
				a.Outcomes = append(a.Outcomes, spool.Outcome{Recipient: n, Status: spool.Deferred, Reply: why, Next: again})
			}
		}
	}
	if len(a.Outcomes) == 0 {
		return m
	}
	return r.record(ctx, s, p.config, m, a)
}

// postpone has the recipients whose way is shut wait, in m alone and so in the
// schedule: stored is when they are due, whatever is shut. It reports whether there are
// such.
func postpone(m *spool.Message, waiting []wait) (some bool) {
	if m == nil {
		return false
	}
	for _, w := range waiting {
		for _, about := range w.leg.about {
			for _, n := range about {
				if rcpt := &m.Recipients[n]; !rcpt.Status.Settled() {
					rcpt.Next, some = w.again, true
				}
			}
		}
	}
	return some
}

// faulty reports whether some of these recipients wait for the operator.
func faulty(m *spool.Message, list []int) bool {
	return m != nil && slices.ContainsFunc(list, func(n int) bool {
		return !m.Recipients[n].Status.Settled() && m.Recipients[n].Reply.Fault != ""
	})
}

// learn takes in what came of an attempt; when that opens a way, what waits for it is
// due. It returns when what met a fault is to be attempted again.
func (r *Runner) learn(ctx context.Context, s *spool.Spool, p *plan, l *leg, replies []spool.Reply, start time.Time) time.Time {
	if ctx.Err() != nil {
		return start // we ended it, and nothing was learned
	}
	again, n := r.breakers.learn(l.route.hop, l.way(), replies, start, time.Now())
	if n.opened {
		r.queue.wake()
	}
	if n.shut != nil {
		r.tellOperator(s, p, l.route.hop, *n.shut)
	}
	return again
}

// Alerts are the ways that are shut since somebody has to mend something, longest
// first.
func (r *Runner) Alerts() []Alert {
	list := r.breakers.alerts()
	if since, down := r.network.since(); down {
		list = append(list, Alert{Hop: "the network", Since: since, Next: time.Now().Add(networkPoll), Reply: spool.Reply{
			Status: "4.4.1", Text: "no interface but the loopback is up", Remedy: "connect this machine to a network"}})
	}
	return list
}

// Doubt has ways that are shut and hosts that were down tried again at once: the
// operator says so.
func (r *Runner) Doubt() {
	r.known.Forgive()
	r.breakers.doubt()
	r.network.doubt()
}
