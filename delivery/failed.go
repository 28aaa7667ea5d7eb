package delivery

import (
	"slices"
	"time"

	"postino/config"
	"postino/spool"
)

// refused is the attempt that fails recipients since policy does not take the message.
func refused(m *spool.Message, list []int) *spool.Attempt {
	a := &spool.Attempt{At: time.Now(), Hop: "policy"}
	for _, n := range list {
		a.Outcomes = append(a.Outcomes, spool.Outcome{Recipient: n, Status: spool.Failed, Reply: *m.Refused})
	}
	return a
}

// keepsFailed reports whether an attempt has a message join the failed list when it is
// finished. While the disk is full, or the list has twice its size, none does.
func (r *Runner) keepsFailed(s *spool.Spool, c *config.Config, m *spool.Message, a *spool.Attempt) bool {
	failed := slices.ContainsFunc(a.Outcomes, func(o spool.Outcome) bool { return o.Status == spool.Failed })
	most := int64(c.History.FailedSize)
	return failed && m.Size <= most && r.failed.Load()+m.Size <= 2*most && s.Room() == nil
}

// FailedOctets is how many octets of content the failed list has, about.
func (r *Runner) FailedOctets() int64 { return r.failed.Load() }

// kept counts a message that has just been finished.
func (r *Runner) kept(m *spool.Message, c *config.Config) {
	if m.Kept && r.failed.Add(m.Size) > int64(c.History.FailedSize) {
		select {
		case r.tooMuch <- struct{}{}:
		default:
		}
	}
}

// trimFailed keeps the failed list within its limits.
func (r *Runner) trimFailed(s *spool.Spool, keep config.History, now time.Time) error {
	left, n, err := s.TrimFailed(now.Add(-time.Duration(keep.KeepFailed)), int64(keep.FailedSize))
	r.failed.Store(left)
	if n > 0 {
		r.log.Info("failed mail forgotten", "messages", n)
	}
	return err
}
