package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync/atomic"
	"time"

	"postino/config"
	"postino/spool"
)

// attempt makes one attempt for the recipients of a message that are due, and
// records it. It returns the message as it is afterwards, nil when there is
// nothing left to do for it.
func (r *Runner) attempt(ctx context.Context, s *spool.Spool, it job) (m *spool.Message) {
	p := r.use()
	defer p.users.Done()
	defer func() {
		// One message that we cannot handle must not stop all the others, now and
		// after each restart.
		if bug := recover(); bug != nil {
			r.log.Error("message held", "id", it.id, "err", fmt.Sprint(bug), "stack", string(debug.Stack()))
			if m != nil {
				m = r.hold(s, m, fmt.Sprintf("postino failed on it: %v", bug))
			}
		}
	}()
	m, err := s.Message(it.id)
	if err != nil {
		if !errors.Is(err, spool.ErrNotFound) {
			r.log.Error("message not readable", "id", it.id, "err", err)
		}
		return nil
	}
	start := time.Now()
	b := &spool.Batch{Message: m, Recipients: due(m, start, it.force)}
	if len(b.Recipients) == 0 {
		return m
	}
	var found damage
	b.Open = func() (io.ReadCloser, error) {
		c, err := s.Content(m)
		if err != nil {
			found.note(err)
			return nil, err
		}
		return &damageWatch{c, &found}, nil
	}
	replies := p.route.transport.Deliver(ctx, b)
	bad := found.err()
	a := &spool.Attempt{At: start, Took: time.Since(start), Hop: p.route.hop, Keep: p.route.keep}
	for i, n := range b.Recipients {
		if bad != nil && replies[i].Class() != spool.Success {
			continue // it says nothing about them that is worth a bounce
		}
		a.Outcomes = append(a.Outcomes, outcome(m, n, replies[i], p.route.success, p.config.Retry, time.Now()))
		if replies[i].TLS != "" {
			a.TLS = replies[i].TLS
		}
	}
	if bad == nil {
		return r.record(ctx, s, m, a)
	}
	r.log.Error("message held", "id", m.ID, "err", bad)
	// Who had all of it before the damage was found must not get it again.
	if len(a.Outcomes) > 0 {
		if m = r.record(ctx, s, m, a); m == nil || m.Settled() {
			return m
		}
	}
	return r.hold(s, m, bad.Error())
}

// due returns the recipients to attempt.
func due(m *spool.Message, now time.Time, force bool) []int {
	var list []int
	if m.Held != "" {
		return nil
	}
	for i, rcpt := range m.Recipients {
		if !rcpt.Status.Settled() && (force || ripe(rcpt.Next, now)) {
			list = append(list, i)
		}
	}
	return list
}

// farthest is how far away a next attempt can be, by any schedule. One that is
// farther was set while the clock was wrong.
const farthest = 31 * 24 * time.Hour

// ripe reports whether an attempt planned for next is due.
func ripe(next, now time.Time) bool { return !next.After(now) || next.Sub(now) > farthest }

// outcome decides what a reply means for recipient n.
func outcome(m *spool.Message, n int, reply spool.Reply, success spool.Status, retry config.Retry, now time.Time) spool.Outcome {
	o := spool.Outcome{Recipient: n, Reply: reply}
	switch reply.Class() {
	case spool.Success:
		o.Status = success
	case spool.Permanent:
		o.Status = spool.Failed
	default:
		expiry := m.Arrived.Add(time.Duration(retry.Lifetime))
		if !now.Before(expiry) {
			o.Status, o.Reply = spool.Failed, reply.Expired(time.Duration(retry.Lifetime))
			break
		}
		o.Status = spool.Deferred
		o.Next = now.Add(RetryAfter(m.Recipients[n].Attempts+1, time.Duration(retry.First), time.Duration(retry.Max)))
		if o.Next.After(expiry) {
			o.Next = expiry // one more, just before it is given up
		}
	}
	return o
}

// recordAgain is how long to wait for room to record an outcome.
const recordAgain = 5 * time.Second

func (r *Runner) record(ctx context.Context, s *spool.Spool, m *spool.Message, a *spool.Attempt) *spool.Message {
	after, err := s.Record(m.ID, a)
	for errors.Is(err, spool.ErrNoSpace) && ctx.Err() == nil {
		// To forget the outcome would be to send the message twice: wait for room.
		r.log.Error("attempt not recorded yet", "id", m.ID, "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(recordAgain):
			after, err = s.Record(m.ID, a)
		}
	}
	if err != nil {
		// The message may have been deleted meanwhile. What became of it is told all
		// the same: the remote may have it.
		r.log.Error("attempt not recorded", "id", m.ID, "err", err)
		r.report(m, a)
		return nil
	}
	r.report(after, a)
	if after.Settled() {
		r.log.Info("finished", "id", m.ID, "age", time.Since(m.Arrived).Round(time.Millisecond))
	}
	return after
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
