package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"postino/config"
	"postino/spool"
)

// result is what an attempt leaves behind in the schedule.
type result struct {
	m    *spool.Message // as it is afterwards; nil when there is nothing left to do
	busy string         // the next hop that had too much to do for some of it; empty if none had
	shut bool           // a way was shut for some of it: see breakers
}

// attempt makes one attempt for the recipients of a message that are due, and
// records it.
func (r *Runner) attempt(ctx context.Context, s *spool.Spool, it job) (out result) {
	p := r.use()
	defer p.users.Done()
	defer r.catch(s, &spool.Message{ID: it.id})
	m, err := s.Message(it.id)
	if err != nil {
		if !errors.Is(err, spool.ErrNotFound) {
			r.log.Error("message not readable", "id", it.id, "err", err)
		}
		return result{}
	}
	// Gathered reports wait until their time, or until they are asked for by name.
	list := due(m, time.Now(), it.force && m.Gathered == nil)
	if len(list) > 0 && m.Gathered != nil {
		if m, err = r.together(s, p.config, m); err != nil {
			return result{m: r.notYet(it, err)}
		}
		if m == nil {
			return result{}
		}
	}
	if p.config.Mode == config.Deliver && m.Refused == nil {
		var busy string
		if m, list, busy = r.expandInTurn(ctx, s, p, m, list); busy != "" {
			return result{m: m, busy: busy}
		}
	}
	if len(list) == 0 {
		return result{m: m}
	}
	if m.Refused != nil && p.config.Mode != config.Capture {
		return result{m: r.record(ctx, s, p.config, m, refused(m, list))}
	}
	return r.travel(ctx, s, p, m, list)
}

// notYet leaves a message alone for a while, since its attempt could not begin.
func (r *Runner) notYet(it job, err error) *spool.Message {
	say := r.log.Error
	if errors.Is(err, spool.ErrNoSpace) {
		say = r.often.Error // of many messages, as long as the disk is full
	}
	say("attempt not begun", "id", it.id, "err", err)
	return &spool.Message{ID: it.id, Recipients: []spool.Recipient{{Status: spool.Queued, Next: time.Now().Add(lookAnyway)}}}
}

// expandInTurn is expand, or names the gate that lets no more in now.
func (r *Runner) expandInTurn(ctx context.Context, s *spool.Spool, p *plan, m *spool.Message, list []int) (*spool.Message, []int, string) {
	if gate, most := p.asksUsers(m, list); gate != "" {
		if !r.gates.enter(gate, most) {
			return m, nil, gate
		}
		defer r.leaveGate(gate)
	}
	m, list = r.expand(ctx, s, p, m, list)
	return m, list, ""
}

// expand has aliases take the place of recipients, and returns the message as it is
// then with who of it is to be attempted. The message is nil when nothing is left.
func (r *Runner) expand(ctx context.Context, s *spool.Spool, p *plan, m *spool.Message, list []int) (*spool.Message, []int) {
	a, rest := p.expand(m, list, time.Now())
	if a == nil {
		return m, list
	}
	before := len(m.Recipients)
	if m = r.record(ctx, s, p.config, m, a); m == nil || m.Held != "" {
		return m, nil
	}
	for n := before; n < len(m.Recipients); n++ {
		rest = append(rest, n)
	}
	return m, rest
}

// travel has each next hop of these recipients attempted at the same time, and
// returns when all of that has been recorded.
func (r *Runner) travel(ctx context.Context, s *spool.Spool, p *plan, m *spool.Message, list []int) (out result) {
	legs := p.legs(m, list)
	results := make([]*spool.Message, len(legs))
	var waiting []wait
	var all sync.WaitGroup
	for i, l := range legs {
		results[i] = m
		if busy := r.enter(l); busy != "" {
			out.busy = busy
			continue
		}
		attempt := func() {
			defer r.catch(s, m)
			defer r.leave(l)
			results[i] = r.attemptLeg(ctx, s, p, m, l)
		}
		if l.offline = l.route.remote && r.network.isDown(); l.offline {
			r.leave(l)
			continue
		}
		if why, again, shut := r.breakers.enter(l.way(), time.Now()); shut {
			r.leave(l)
			waiting = append(waiting, wait{l, again})
			results[i] = r.deferLeg(ctx, s, p, m, l, why, again)
			continue
		}
		if i < len(legs)-1 {
			all.Go(attempt)
		} else {
			attempt()
		}
	}
	all.Wait()
	for _, l := range legs {
		if l.offline {
			waiting = append(waiting, wait{l, time.Now().Add(lookAnyway)})
		}
	}
	// The one that was recorded last knows of the others.
	out.m = slices.MaxFunc(results, func(a, b *spool.Message) int { return cmp.Compare(recorded(a), recorded(b)) })
	out.shut = postpone(out.m, waiting) || faulty(out.m, list)
	return out
}

// enter begins an attempt, or names the gate that lets no more in now.
func (r *Runner) enter(l *leg) (busy string) {
	share, most := l.share()
	if share != "" && !r.gates.enter(share, most) {
		return share
	}
	if r.gates.enter(l.hop, l.route.most()) {
		return ""
	}
	if share != "" {
		r.leaveGate(share)
	}
	return l.hop
}

// leave ends an attempt.
func (r *Runner) leave(l *leg) {
	r.leaveGate(l.hop)
	if share, _ := l.share(); share != "" {
		r.leaveGate(share)
	}
}

// leaveGate lets one that waited there go on.
func (r *Runner) leaveGate(name string) {
	if j, ok := r.gates.leave(name); ok {
		r.queue.back(j)
	}
}

func recorded(m *spool.Message) int {
	if m == nil {
		return -1
	}
	return m.Attempts
}

// catch keeps one message that we cannot handle from stopping all the others, now and
// after each restart. It is to be deferred.
func (r *Runner) catch(s *spool.Spool, m *spool.Message) {
	if bug := recover(); bug != nil {
		r.log.Error("message held", "id", m.ID, "err", fmt.Sprint(bug), "stack", string(debug.Stack()))
		r.hold(s, m, fmt.Sprintf("postino failed on it: %v", bug))
	}
}

// attemptLeg attempts the part of a message that has one next hop, and records it.
func (r *Runner) attemptLeg(ctx context.Context, s *spool.Spool, p *plan, m *spool.Message, l *leg) *spool.Message {
	start := time.Now()
	var found damage
	l.batch.Open = func() (io.ReadCloser, error) {
		c, err := s.Content(m)
		if err != nil {
			found.note(err)
			return nil, err
		}
		return &damageWatch{c, &found}, nil
	}
	replies := p.deliver(ctx, l)
	if l.offline = l.route.remote && ctx.Err() == nil && r.network.lost(replies); l.offline {
		return m // that was no attempt
	}
	again := r.learn(ctx, s, p, l, replies, start)
	bad := found.err()
	a := &spool.Attempt{At: start, Took: time.Since(start), Hop: l.hop, Keep: l.route.keep}
	if from := l.batch.Message.Sender; from != m.Sender {
		a.From = from
	}
	for i, about := range l.about {
		if bad != nil && replies[i].Class() != spool.Success {
			continue // it says nothing about them that is worth a bounce
		}
		for _, n := range about {
			o := outcome(m, n, replies[i], l.route.success, p.config.Retry, time.Now())
			if replies[i].Fault != "" && !again.IsZero() {
				o.Next = again
			}
			a.Outcomes = append(a.Outcomes, o)
		}
		if replies[i].TLS != "" {
			a.TLS = replies[i].TLS
		}
	}
	if bad == nil {
		return r.record(ctx, s, p.config, m, a)
	}
	r.log.Error("message held", "id", m.ID, "err", bad)
	// Who had all of it before the damage was found must not get it again.
	if len(a.Outcomes) > 0 {
		if m = r.record(ctx, s, p.config, m, a); m == nil || m.Settled() {
			return m
		}
	}
	return r.hold(s, m, bad.Error())
}

// deliver signs what is to be signed and hands it to the transport.
func (p *plan) deliver(ctx context.Context, l *leg) []spool.Reply {
	if why, ok := l.route.sender.rewrite(l.batch); !ok {
		return same(l.batch, why)
	}
	if l.route.unsigned {
		return l.route.mailbox(ctx, l.batch)
	}
	if !l.route.keep {
		if why, ok := p.sign(l.batch); !ok {
			return same(l.batch, why)
		}
	}
	return l.route.transport.Deliver(ctx, l.batch)
}

// recordAgain is how long to wait for room to record an outcome.
const recordAgain = 5 * time.Second

// record stores what an attempt did, and queues the reports that are owed about it.
func (r *Runner) record(ctx context.Context, s *spool.Spool, c *config.Config, m *spool.Message, a *spool.Attempt) *spool.Message {
	a.KeepFailed = r.keepsFailed(s, c, m, a)
	after, err := r.recordOnce(s, c, m, a)
	for errors.Is(err, spool.ErrNoSpace) && ctx.Err() == nil {
		// To forget the outcome would be to send the message twice: wait for room.
		r.often.Error("attempt not recorded yet", "id", m.ID, "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(recordAgain):
			after, err = r.recordOnce(s, c, m, a)
		}
	}
	if err != nil {
		// The message may have been deleted meanwhile. What became of it is told all
		// the same: the remote may have it.
		r.log.Error("attempt not recorded", "id", m.ID, "err", err)
		r.report(m, a)
		if errors.Is(err, spool.ErrDamaged) {
			return r.hold(s, m, err.Error())
		}
		return nil
	}
	r.report(after, a)
	if after.Settled() {
		r.kept(after, c)
		r.log.Info("finished", "id", m.ID, "age", time.Since(m.Arrived).Round(time.Millisecond))
	}
	return after
}

func (r *Runner) recordOnce(s *spool.Spool, c *config.Config, m *spool.Message, a *spool.Attempt) (*spool.Message, error) {
	var reports []*spool.Report
	after := m.After(a.Outcomes)
	list := reportsOwed(c, m, after, a.Outcomes)
	for _, o := range list {
		now := time.Now()
		until, wait := r.gathers(s, c, m, o, now)
		report, err := writeReport(s, c, after, o, now)
		if err != nil {
			for _, written := range reports {
				written.Draft.Discard()
			}
			r.untold(list)
			return nil, err
		}
		if wait {
			report.gather(until)
		}
		reports = append(reports, report.Report)
	}
	stored, err := s.Record(m.ID, a, reports...)
	if err != nil {
		r.untold(list)
		return nil, err
	}
	for i, report := range reports {
		if id := report.Message.ID; slices.Contains(stored.Reports, id) {
			r.log.Info("report", "id", m.ID, "report", id, "action", string(list[i].action), "to", list[i].to.String(), "size", report.Message.Size, "gathered", report.Message.Gathered != nil)
		}
	}
	return stored, nil
}

// untold has those who were not told anything get the next report at once.
func (r *Runner) untold(list []owed) {
	for _, o := range list {
		r.notices.forget(o.to.Key())
	}
}

// report logs what an attempt did, a line for each recipient.
func (r *Runner) report(m *spool.Message, a *spool.Attempt) {
	for _, o := range a.Outcomes {
		rcpt := m.Recipients[o.Recipient]
		log := r.log.With("id", m.ID, "rcpt", rcpt.Address.String(), "hop", a.Hop, "reply", o.Reply.String(),
			"took", a.Took.Round(time.Millisecond), "status", string(o.Status), "n", rcpt.Attempts)
		if a.TLS != "" {
			log = log.With("tls", a.TLS)
		}
		if o.Reply.Host != "" {
			log = log.With("host", o.Reply.Host)
		}
		if !a.From.IsNull() {
			log = log.With("from", a.From.String())
		}
		if o.Reply.Unannounced {
			log = log.With("eightbit", "unannounced")
		}
		log = log.With("age", a.At.Add(a.Took).Sub(m.Arrived).Round(time.Millisecond))
		if o.Status == spool.Deferred {
			log = log.With("next", o.Next.UTC().Format(time.RFC3339))
		}
		log.Info("attempt")
	}
}

// hold keeps a message from being attempted and returns it. Where that cannot be
// stored the message is left alone for a while.
func (r *Runner) hold(s *spool.Spool, m *spool.Message, why string) *spool.Message {
	held, err := s.Hold(m.ID, why)
	if err == nil {
		return held
	}
	r.log.Error("message not held", "id", m.ID, "err", err)
	if errors.Is(err, spool.ErrNotFound) {
		return nil
	}
	for i := range m.Recipients {
		m.Recipients[i].Next = time.Now().Add(lookAnyway)
	}
	return m
}

// damage is the first sign that content is damaged, which no Reply can say.
type damage struct{ first atomic.Pointer[error] }

func (d *damage) note(err error) {
	if errors.Is(err, spool.ErrDamaged) {
		d.first.CompareAndSwap(nil, &err)
	}
}

func (d *damage) err() error {
	if first := d.first.Load(); first != nil {
		return *first
	}
	return nil
}

// damageWatch notes damage that is found while content is read.
type damageWatch struct {
	io.ReadCloser
	found *damage
}

func (w *damageWatch) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	w.found.note(err)
	return n, err
}
