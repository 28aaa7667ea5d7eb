package control

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"postino/spool"
)

// MaxLogLines is how many lines of log are told at most, the newest ones; what
// follows comes on top. They are sorted in memory.
const MaxLogLines = 10_000

// LogQuery says which lines of the log are meant. The zero value means the newest
// MaxLogLines.
type LogQuery struct {
	// Selection is which messages the lines are about, be they queued or finished.
	// Unless it is zero, lines about no message are left out.
	Selection Selection
	// Since is the time of the oldest line; zero means any.
	Since time.Time
	// Lines is how many lines at most, the newest ones; 0 and more than MaxLogLines
	// mean MaxLogLines.
	Lines int
	// Follow: go on with what happens.
	Follow bool
}

const (
	keySince  = "since"
	keyLines  = "lines"
	keyFollow = "follow"
)

// Values is q as a query string, from which ParseLogQuery makes q again.
func (q *LogQuery) Values() url.Values {
	v := q.Selection.Values()
	if !q.Since.IsZero() {
		v.Set(keySince, q.Since.UTC().Format(time.RFC3339Nano))
	}
	if q.Lines != 0 {
		v.Set(keyLines, strconv.Itoa(q.Lines))
	}
	if q.Follow {
		v.Set(keyFollow, "1")
	}
	return v
}

// ParseLogQuery reads what Values writes, and refuses whatever else there is.
func ParseLogQuery(v url.Values) (q LogQuery, err error) {
	rest := url.Values{}
	for key, values := range v {
		if !slices.Contains([]string{keySince, keyLines, keyFollow}, key) {
			rest[key] = values
			continue
		}
		if len(values) != 1 {
			return LogQuery{}, fmt.Errorf("%w: %q is there twice", errBadRequest, key)
		}
		value := values[0]
		switch key {
		case keySince:
			q.Since, err = parseTime(value)
		case keyLines:
			if q.Lines, err = natural(value); q.Lines == 0 {
				err = errors.New("want a number from 1")
			}
		case keyFollow:
			if q.Follow = value == "1"; !q.Follow {
				err = errors.New(`want "1"`)
			}
		}
		if err != nil {
			return LogQuery{}, fmt.Errorf("%w: %q: %w", errBadRequest, key, err)
		}
	}
	q.Selection, err = ParseSelection(rest)
	if err != nil {
		return LogQuery{}, err
	}
	return q, nil
}

// limit is how many lines q means.
func (q *LogQuery) limit() int {
	if q.Lines == 0 {
		return MaxLogLines
	}
	return min(q.Lines, MaxLogLines)
}

// Log yields what the spool knows of the past, in the order of its time.
func (v View) Log(q LogQuery) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		entries, err := v.log(q, nil)
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
		if err != nil {
			yield(Entry{}, err)
		}
	}
}

// log collects the lines about messages, and of more those that are meant. The
// error is what could not be read; the lines are good all the same.
func (v View) log(q LogQuery, more []Entry) ([]Entry, error) {
	c := collector{limit: q.limit(), floor: q.Since}
	if v.Access.Admin && q.Selection.all() {
		for _, e := range more {
			c.add(e)
		}
	}
	var failed []error
	if v.Spool != nil {
		failed = v.collect(q.Selection, &c)
	}
	entries := c.newest()
	if q.Lines == 0 && c.left > 0 {
		entries = slices.Insert(entries, 0, newEntry(c.floor, slog.LevelWarn, "earlier lines left out", slog.Int("n", c.left)))
	}
	return entries, errors.Join(failed...)
}

// maxUnreadable is how many records that cannot be read are told of.
const maxUnreadable = 20

func (v View) collect(sel Selection, c *collector) (failed []error) {
	sel.settled = true
	queued := make(map[spool.ID]bool)
	take := func(m *spool.Message, err error) {
		if err == nil && v.logs(m, &sel) {
			var attempts []spool.Attempt
			if attempts, err = v.Spool.Attempts(m.ID); err == nil {
				for _, e := range life(m, attempts, v.reports(m)) {
					c.add(e)
				}
			}
		}
		if err != nil && len(failed) < maxUnreadable {
			failed = append(failed, err)
		}
	}
	for m, err := range v.Spool.FindQueued(nil) {
		if take(m, err); err == nil {
			queued[m.ID] = true
		}
	}
	// Nothing of a message is newer than its end.
	recent := func(record []byte) bool {
		at := spool.RecordFinished(record)
		return at.IsZero() || !at.Before(c.floor)
	}
	for m, err := range v.Spool.FindFinished(recent) {
		if err != nil || !queued[m.ID] { // else it finished while we looked
			take(m, err)
		}
	}
	return failed
}

// reports are the reports about a message that are known still.
func (v View) reports(m *spool.Message) []*spool.Message {
	var list []*spool.Message
	for _, id := range m.Reports {
		if r, err := v.Spool.Message(id); err == nil { // else history has forgotten it
			list = append(list, r)
		}
	}
	return list
}

// logs reports whether the asker may see lines about m, and asked for them.
func (v View) logs(m *spool.Message, sel *Selection) bool {
	if !v.Access.sees(m) {
		return false
	}
	if sel.all() {
		return true
	}
	seen := newMessage(m, v.Access)
	return sel.matches(&seen, v.Hop)
}

// collector keeps the newest lines.
type collector struct {
	limit   int
	floor   time.Time // older lines are not wanted
	entries []Entry
	left    int // lines that were wanted and are not kept
}

func (c *collector) add(e Entry) {
	if e.Time.Before(c.floor) {
		return
	}
	if c.entries = append(c.entries, e); len(c.entries) >= 2*c.limit+100 {
		c.newest()
	}
}

// newest sorts what there is, and forgets what is more than the limit.
func (c *collector) newest() []Entry {
	slices.SortStableFunc(c.entries, func(a, b Entry) int { return a.Time.Compare(b.Time) })
	if n := len(c.entries) - c.limit; n > 0 {
		c.left += n
		c.entries = slices.Delete(c.entries, 0, n)
		c.floor = c.entries[0].Time
	}
	return c.entries
}

// life is what the runner's log said of a message, made again from its records and
// those of the reports about it.
func life(m *spool.Message, attempts []spool.Attempt, reports []*spool.Message) []Entry {
	line := func(at time.Time, msg string, attrs ...any) Entry {
		var r slog.Record
		r.Add(attrs...)
		list := []slog.Attr{slog.Any("id", m.ID)}
		r.Attrs(func(a slog.Attr) bool {
			list = append(list, a)
			return true
		})
		return newEntry(at, slog.LevelInfo, msg, list...)
	}
	entries := []Entry{line(m.Arrived, "accepted", "from", m.Sender.String(), "rcpts", len(m.Recipients), "size", m.Size,
		"via", string(m.Origin.Via), "uid", m.Origin.UID)}
	if n := m.Origin.Reports; n > 0 && len(m.Recipients) > 0 {
		entries = append(entries, line(m.Arrived, "digest", "to", m.Recipients[0].Address.String(), "size", m.Size, "reports", n))
	}
	for _, r := range reports {
		if len(r.Recipients) > 0 {
			entries = append(entries, line(r.Arrived, "report", "report", r.ID.String(), "action", r.Origin.Action,
				"to", r.Recipients[0].Address.String(), "size", r.Size, "gathered", r.Gathered != nil))
		}
	}
	last := m.Arrived
	counts, attempted := make(map[int]int), make(map[int]spool.Reply)
	for _, a := range attempts {
		last = a.At.Add(a.Took)
		for _, o := range a.Outcomes {
			if o.Recipient < 0 || o.Recipient >= len(m.Recipients) || o.Status == spool.Queued {
				continue // in the last case nothing was attempted
			}
			counts[o.Recipient]++
			attempted[o.Recipient] = o.Reply
			attrs := []any{"rcpt", m.Recipients[o.Recipient].Address.String(), "hop", a.Hop, "reply", o.Reply.String(),
				"took", a.Took.Round(time.Millisecond), "status", string(o.Status), "n", counts[o.Recipient]}
			if a.TLS != "" {
				attrs = append(attrs, "tls", a.TLS)
			}
			if o.Reply.Host != "" {
				attrs = append(attrs, "host", o.Reply.Host)
			}
			if !a.From.IsNull() {
				attrs = append(attrs, "from", a.From.String())
			}
			attrs = append(attrs, "age", last.Sub(m.Arrived).Round(time.Millisecond))
			if o.Status == spool.Deferred {
				attrs = append(attrs, "next", o.Next.UTC().Format(time.RFC3339))
			}
			entries = append(entries, line(last, "attempt", attrs...))
		}
	}
	if m.Held != "" {
		entries = append(entries, line(last, "held", "why", m.Held))
	}
	if m.Finished.IsZero() {
		return entries
	}
	for i := range m.Recipients {
		if r := &m.Recipients[i]; r.Reply != attempted[i] { // settled without an attempt
			entries = append(entries, line(m.Finished, "settled", "rcpt", r.Address.String(), "reply", r.Reply.String(), "status", string(r.Status)))
		}
	}
	return append(entries, line(m.Finished, "finished", "age", m.Finished.Sub(m.Arrived).Round(time.Millisecond)))
}

// logLines answers with lines of the log.
func (s *Server) logLines(w http.ResponseWriter, r *request) error {
	q, err := ParseLogQuery(r.URL.Query())
	if err != nil {
		return err
	}
	if !q.Follow {
		return stream(w, func(yield func(Entry, error) bool) {
			entries, err := r.view.log(q, s.o.Journal.recent())
			tell(yield, entries, err)
		})
	}
	// The deadline for the request must not end the answer.
	if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	return stream(w, s.followed(q, r))
}

func tell(yield func(Entry, error) bool, entries []Entry, err error) bool {
	for _, e := range entries {
		if !yield(e, nil) {
			return false
		}
	}
	return err == nil || yield(Entry{}, err)
}

// followed yields the past and then what happens.
func (s *Server) followed(q LogQuery, r *request) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		f := s.o.Journal.follow() // before looking back, so that nothing is between
		defer s.o.Journal.leave(f)
		past, err := r.view.log(q, s.o.Journal.recent())
		told := make(map[string]bool)
		for _, e := range past {
			told[e.key()] = true
		}
		if !tell(yield, past, err) {
			return
		}
		sel := q.Selection
		sel.settled = true
		for {
			var e Entry
			select {
			case <-r.Context().Done():
				return
			case <-s.ending:
				return
			case e = <-f.entries:
			}
			if n := f.lost.Swap(0); n > 0 && !yield(newEntry(e.Time, slog.LevelWarn, "log lines lost", slog.Int64("n", n)), nil) {
				return
			}
			if !told[e.key()] && r.view.showsLine(&e, &sel) && !yield(e, nil) {
				return
			}
		}
	}
}

// showsLine reports whether the asker may see a line, and asked for it.
func (v View) showsLine(e *Entry, sel *Selection) bool {
	if e.ID == 0 {
		return v.Access.Admin && sel.all()
	}
	if v.Access.All && sel.all() {
		return true
	}
	m, err := v.Spool.Message(e.ID)
	return err == nil && v.logs(m, sel)
}

// key is the same for a line of the log and for what life makes of the records that
// were written just before.
func (e *Entry) key() string {
	if e.ID == 0 {
		return e.Time.String() + e.Msg
	}
	k := e.ID.String() + e.Msg
	for _, a := range e.Attrs {
		if a.Key == "rcpt" || a.Key == "n" || a.Key == "report" {
			k += " " + cmp.Or(a.Value.String(), "-")
		}
	}
	return k
}
