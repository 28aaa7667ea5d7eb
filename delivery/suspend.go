package delivery

import (
	"errors"

	"postino/spool"
)

// Suspend has mail of a uid accepted and held until Resume. Of what it has in the
// queue nothing is attempted meanwhile; attempts under way go on.
func (r *Runner) Suspend(s *spool.Spool, sus spool.Suspension) error {
	if err := errors.Join(s.Suspend(sus), r.heedSuspensions(s)); err != nil {
		return err
	}
	r.log.Warn("suspended", "uid", sus.UID, "by", sus.By, "reason", sus.Reason)
	return nil
}

// Resume ends a suspension and releases what it held; see spool.Resume.
func (r *Runner) Resume(s *spool.Spool, uid, by int) (released int, err error) {
	released, err = s.Resume(uid)
	if err = errors.Join(err, r.heedSuspensions(s)); err == nil || released > 0 {
		r.log.Info("resumed", "uid", uid, "by", by, "released", released)
	}
	return released, err
}

// heedSuspensions has the schedule know who is suspended now.
func (r *Runner) heedSuspensions(s *spool.Spool) error {
	// Two at a time: the one that looks last must be the one that is heeded.
	r.heeding.Lock()
	defer r.heeding.Unlock()
	list, err := s.Suspensions()
	if err != nil {
		return err
	}
	uids := make(map[uint32]bool)
	for _, sus := range list {
		uids[uint32(sus.UID)] = true
	}
	r.queue.suspend(uids)
	return nil
}

// Load schedules what is in the spool already.
func (r *Runner) Load(s *spool.Spool) {
	if err := r.heedSuspensions(s); err != nil {
		r.log.Error("suspensions not readable", "err", err)
	}
	suspended := false
	for e, err := range s.Schedule() {
		if err != nil {
			r.log.Error("message not readable", "err", err)
			continue
		}
		suspended = suspended || e.HeldBy == spool.BySuspension
		r.queue.add(e)
	}
	if !suspended {
		return
	}
	released, err := s.ReleaseResumed()
	if released > 0 {
		r.log.Info("resumed what an earlier resume did not come to", "released", released)
	}
	if err != nil {
		r.log.Error("not released although resumed", "err", err)
	}
}
