package delivery

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"time"

	"postino/config"
	"postino/delivery/dsn"
	"postino/spool"
)

// A storm of reports is gathered. One to an operator, or to an address of this machine
// (root, cron, www-data), goes out at once if none went there within noticeInterval;
// else it waits for the end of that, and all that wait then go in one mail. A sender
// elsewhere gets each report on its own (programs read them), up to storm within
// noticeInterval. Who asked for reports with NOTIFY gets them one by one in any case.
const (
	noticeInterval = time.Hour
	storm          = 100
	// maxListed is how many reports a digest lists, maxReplaced how many are settled in
	// one transaction.
	maxListed   = 1000
	maxReplaced = 500
	// maxNoticed is how many recipients of reports are remembered: those of the last
	// hour, unless they are more.
	maxNoticed = 10_000
)

// notices remembers who was told something within noticeInterval.
type notices struct {
	digesting sync.Mutex // held while a digest is made: two at a time would tell the same

	mu  sync.Mutex
	log map[string]notice // guarded by mu: by Address.Key
}

type notice struct {
	begin time.Time // of the interval, with the first report in it
	sent  int       // reports on their own since then
}

// until says whether a report has to wait, and until when. one is for recipients of
// one mail in an interval; last finds in the spool when the latest went out.
func (n *notices) until(key string, one bool, now time.Time, last func() time.Time) (time.Time, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	told, known := n.log[key]
	if !known && one {
		if told.begin = last(); !told.begin.IsZero() {
			told.sent = 1
		}
	}
	end := told.begin.Add(noticeInterval)
	most := storm
	if one {
		most = 1
	}
	switch {
	case told.begin.IsZero() || !now.Before(end) || told.begin.After(now):
		told = notice{begin: now}
	case told.sent >= most:
		n.put(key, told)
		return end, true
	}
	told.sent++
	n.put(key, told)
	return now, false
}

// put is called with mu held.
func (n *notices) put(key string, told notice) {
	if n.log == nil || len(n.log) >= maxNoticed {
		fresh := make(map[string]notice)
		for k, v := range n.log {
			if time.Since(v.begin) < noticeInterval && len(fresh) < maxNoticed/2 {
				fresh[k] = v
			}
		}
		n.log = fresh
	}
	n.log[key] = told
}

// digest notes that a digest went out: whatever comes now waits.
func (n *notices) digest(key string, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.put(key, notice{begin: now, sent: storm})
}

// forget is for a report that could not be queued.
func (n *notices) forget(key string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.log, key)
}

// gathers reports whether a report about m has to wait for others, and until when.
func (r *Runner) gathers(s *spool.Spool, c *config.Config, m *spool.Message, o owed, now time.Time) (until time.Time, wait bool) {
	asked := slices.ContainsFunc(o.about, func(n int) bool { return len(m.Recipients[n].Notify) > 0 })
	if o.action != dsn.Failed && o.action != dsn.Delayed || asked && !o.operator {
		return now, false
	}
	one := o.operator || o.here || isLocal(c, o.to.Domain)
	return r.notices.until(o.to.Key(), one, now, func() time.Time { return lastNotice(s, o.to.Key(), now) })
}

// lastNotice is when a report to an address, on its own or a digest, was last made
// within noticeInterval; zero if none was.
func lastNotice(s *spool.Spool, key string, now time.Time) (last time.Time) {
	isReport := func(record []byte) bool { return bytes.Contains(record, []byte(`"via":"dsn"`)) }
	for _, walk := range []iter.Seq2[*spool.Message, error]{s.FindQueued(isReport), s.FindFinished(isReport)} {
		for m, err := range walk { // newest first
			if err != nil {
				continue
			}
			if now.Sub(m.Arrived) >= noticeInterval {
				break
			}
			if m.Gathered == nil && len(m.Recipients) > 0 && m.Recipients[0].Address.Key() == key {
				if m.Arrived.After(last) {
					last = m.Arrived
				}
				break
			}
		}
	}
	return last
}

// together has gathered reports go out in one mail. What is returned is to be attempted
// on its own: one that has no company, or nil.
func (r *Runner) together(s *spool.Spool, c *config.Config, m *spool.Message) (alone *spool.Message, err error) {
	r.notices.digesting.Lock()
	defer r.notices.digesting.Unlock()
	to, now := m.Recipients[0], time.Now()
	d := &dsn.Digest{To: to.Address, Hostname: c.Hostname, Domain: c.Domain, Now: now}
	var ids []spool.ID
	for g, err := range s.Gathered(to.Address) {
		if err != nil {
			return nil, err
		}
		if ids = append(ids, g.ID); len(d.Items) == maxListed {
			d.More++
			continue
		}
		d.Items = append(d.Items, dsn.Item{
			About: g.Gathered.About, Action: dsn.Action(g.Gathered.Action), Subject: g.Subject, At: g.Arrived, Gist: g.Gathered.Gist,
			Open: func() (io.ReadCloser, error) { return s.Content(g) },
		})
	}
	if !slices.Contains(ids, m.ID) {
		return nil, nil // another digest had it
	}
	r.notices.digest(to.Address.Key(), now)
	if len(ids) == 1 {
		return m, nil
	}
	draft, err := s.NewReportDraft()
	if err != nil {
		return nil, err
	}
	d.ID = draft.ID()
	if err := d.Write(draft); err != nil {
		draft.Discard()
		return nil, err
	}
	by := &spool.Report{Draft: draft, Message: &spool.Message{
		Arrived: now, UTF8: m.UTF8, Subject: d.Subject(), From: m.From,
		Recipients: []spool.Recipient{{Address: to.Address, Status: spool.Queued, Notify: to.Notify, Bare: to.Bare}},
		Origin:     spool.Origin{Via: spool.ViaDSN, UID: m.Origin.UID, Reports: len(ids)},
	}}
	reply := spool.Reply{Status: "2.0.0", Text: fmt.Sprintf("sent together with others as %s", d.ID), Command: "digest"}
	size := int64(0)
	for part := range slices.Chunk(ids, maxReplaced) {
		if err := s.Replace(part, by, reply); err != nil {
			return nil, err
		}
		if by != nil {
			size, by = by.Message.Size, nil
		}
	}
	r.log.Info("digest", "id", d.ID, "to", to.Address.String(), "size", size, "reports", len(ids))
	return nil, nil
}
