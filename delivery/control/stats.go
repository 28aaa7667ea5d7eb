package control

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"postino/spool"
	"postino/spool/address"
)

// Stats counts what is in the queue and what became of mail, as far as the asker may
// see messages.
type Stats struct {
	// Queued, Deferred and Held are the messages of the queue: held, else with a
	// recipient that was deferred, else not attempted yet.
	Queued   int `json:"queued"`
	Deferred int `json:"deferred"`
	Held     int `json:"held"`
	// Hour and Day are what attempts ended in the last hour, and in the last 24.
	Hour Ended `json:"hour"`
	Day  Ended `json:"day"`
	// Hops are the next hops with something to count, in the order of their names.
	Hops []HopStats `json:"hops"`
}

// Ended counts recipients by what an attempt made of them.
type Ended struct {
	Delivered int `json:"delivered"`
	Relayed   int `json:"relayed"`
	Failed    int `json:"failed"`
}

// HopStats are the recipients of one next hop.
type HopStats struct {
	Hop string `json:"hop"`
	// Waiting are those of the queue that would go there now, Deferred those of them
	// that were attempted.
	Waiting  int   `json:"waiting"`
	Deferred int   `json:"deferred"`
	Day      Ended `json:"day"`
}

func (e *Ended) count(s spool.Status) bool {
	switch s {
	case spool.Delivered:
		e.Delivered++
	case spool.Relayed:
		e.Relayed++
	case spool.Failed:
		e.Failed++
	default:
		return false
	}
	return true
}

// Stats counts. The error is what could not be read; the rest is counted.
func (v View) Stats() (Stats, error) {
	c := counter{view: v, now: time.Now(), hops: make(map[string]*HopStats)}
	if v.Spool != nil {
		for m, err := range v.Spool.FindQueued(nil) {
			c.message(m, err)
		}
		day := func(record []byte) bool { return c.now.Sub(spool.RecordFinished(record)) < 24*time.Hour }
		for m, err := range v.Spool.FindFinished(day) {
			c.message(m, err)
		}
	}
	c.Hops = []HopStats{}
	for _, h := range c.hops {
		c.Hops = append(c.Hops, *h)
	}
	slices.SortFunc(c.Hops, func(a, b HopStats) int { return cmp.Compare(a.Hop, b.Hop) })
	return c.Stats, errors.Join(c.failed...)
}

type counter struct {
	Stats
	view   View
	now    time.Time
	hops   map[string]*HopStats
	failed []error
}

func (c *counter) message(m *spool.Message, err error) {
	var attempts []spool.Attempt
	if err == nil && c.view.Access.sees(m) {
		if m.Finished.IsZero() {
			c.queued(m)
		}
		if m.Attempts > 0 {
			attempts, err = c.view.Spool.Attempts(m.ID)
		}
	}
	if err != nil && len(c.failed) < maxUnreadable {
		c.failed = append(c.failed, err)
	}
	for _, a := range attempts {
		age := c.now.Sub(a.At.Add(a.Took))
		if age >= 24*time.Hour {
			continue
		}
		for _, o := range a.Outcomes {
			if !c.Day.count(o.Status) {
				continue
			}
			c.hop(a.Hop).Day.count(o.Status)
			if age < time.Hour {
				c.Hour.count(o.Status)
			}
		}
	}
}

func (c *counter) queued(m *spool.Message) {
	deferred := false
	for _, r := range m.Recipients {
		if r.Status.Settled() {
			continue
		}
		deferred = deferred || r.Status == spool.Deferred
		if c.view.Hop == nil {
			continue
		}
		h := c.hop(c.view.Hop(m.Sender, r.Address))
		h.Waiting++
		if r.Status == spool.Deferred {
			h.Deferred++
		}
	}
	switch {
	case m.Held != "":
		c.Held++
	case deferred:
		c.Deferred++
	default:
		c.Queued++
	}
}

func (c *counter) hop(name string) *HopStats {
	h := c.hops[name]
	if h == nil {
		h = &HopStats{Hop: name}
		c.hops[name] = h
	}
	return h
}

func (s *Server) stats(w http.ResponseWriter, r *request) error {
	return stream(w, func(yield func(Stats, error) bool) {
		st, err := r.view.Stats()
		if yield(st, nil) && err != nil {
			yield(Stats{}, err)
		}
	})
}

// Stats is View.Stats.
func (c *Client) Stats(ctx context.Context) (Stats, error) {
	var st Stats
	var failed []error
	for v, err := range list[Stats](ctx, c, http.MethodGet, "/stats") {
		if err != nil {
			failed = append(failed, err)
		} else {
			st = v
		}
	}
	return st, errors.Join(failed...)
}

// nextHop tells the next hop for a recipient of a sender's mail.
type nextHop = func(sender, recipient address.Address) string
