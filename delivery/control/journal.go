package control

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"postino/spool"
)

const (
	// followerBuffer is how many lines wait for a follower that is slow. When there
	// are more it is told how many it missed.
	followerBuffer = 1000
	// maxTroubles is how many warnings and errors that are about no message are kept.
	maxTroubles = 1000
)

// Journal is the runner's log for those who ask over control.sock: what is said now
// goes to the followers, and the last warnings and errors that are about no message
// are kept; of messages the spool itself knows what happened. Make it with
// NewJournal, log through its Handler, and give it to the Server.
type Journal struct {
	watched atomic.Int32 // followers

	mu        sync.Mutex
	troubles  []Entry            // guarded by mu: a ring
	oldest    int                // guarded by mu: index into troubles
	followers map[*follower]bool // guarded by mu
}

// NewJournal returns an empty Journal.
func NewJournal() *Journal { return &Journal{followers: make(map[*follower]bool)} }

// follower is somebody who reads on.
type follower struct {
	entries chan Entry
	lost    atomic.Int64 // entries there was no room for
}

func (j *Journal) follow() *follower {
	f := &follower{entries: make(chan Entry, followerBuffer)}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.followers[f] = true
	j.watched.Add(1)
	return f
}

func (j *Journal) leave(f *follower) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.followers, f)
	j.watched.Add(-1)
}

// recent returns the troubles that are kept, oldest first.
func (j *Journal) recent() []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append(append([]Entry(nil), j.troubles[j.oldest:]...), j.troubles[:j.oldest]...)
}

// take never waits: a slow follower must not stop the runner.
func (j *Journal) take(e Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for f := range j.followers {
		select {
		case f.entries <- e:
		default:
			f.lost.Add(1)
		}
	}
	switch {
	case e.ID != 0 || e.Level < slog.LevelWarn:
	case len(j.troubles) < maxTroubles:
		j.troubles = append(j.troubles, e)
	default:
		j.troubles[j.oldest] = e
		j.oldest = (j.oldest + 1) % maxTroubles
	}
}

// Handler passes everything on to next, and to the Journal.
func (j *Journal) Handler(next slog.Handler) slog.Handler {
	wants := func(level slog.Level) bool { return j.watched.Load() > 0 || level >= slog.LevelWarn }
	return &tee{Handler: next, take: j.take, wants: wants}
}

// Tee returns a handler that passes everything on to next, and to take.
func Tee(next slog.Handler, take func(Entry)) slog.Handler {
	return &tee{Handler: next, take: take, wants: func(slog.Level) bool { return true }}
}

type tee struct {
	slog.Handler
	take   func(Entry)
	wants  func(slog.Level) bool
	attrs  []slog.Attr // of With
	prefix string      // of WithGroup
}

func (h *tee) WithAttrs(attrs []slog.Attr) slog.Handler {
	g := *h
	g.Handler, g.attrs = h.Handler.WithAttrs(attrs), h.attrs[:len(h.attrs):len(h.attrs)]
	for _, a := range attrs {
		a.Key = h.prefix + a.Key
		g.attrs = append(g.attrs, a)
	}
	return &g
}

func (h *tee) WithGroup(name string) slog.Handler {
	g := *h
	g.Handler, g.prefix = h.Handler.WithGroup(name), h.prefix+name+"."
	return &g
}

func (h *tee) Enabled(context.Context, slog.Level) bool { return true }

func (h *tee) Handle(ctx context.Context, r slog.Record) error {
	if h.wants(r.Level) {
		attrs := h.attrs[:len(h.attrs):len(h.attrs)]
		r.Attrs(func(a slog.Attr) bool {
			a.Key = h.prefix + a.Key
			attrs = append(attrs, a)
			return true
		})
		h.take(newEntry(r.Time, r.Level, r.Message, attrs...))
	}
	return h.Handler.Handle(ctx, r)
}

// Entry is one line of the runner's log.
type Entry struct {
	Time  time.Time
	Level slog.Level
	Msg   string // what happened: "accepted", "attempt", "finished", …
	// ID is the message that it is about; zero when it is about none.
	ID spool.ID
	// Attrs are what else there is, in the order of the log: text, numbers, truth
	// values. Text has no control characters.
	Attrs []slog.Attr
}

// newEntry takes the ID from among the attributes, and makes each of the others a
// simple value. Text is bounded, since entries are kept.
func newEntry(at time.Time, level slog.Level, msg string, attrs ...slog.Attr) Entry {
	e := Entry{Time: at.UTC(), Level: level, Msg: msg}
	for _, a := range attrs {
		v := a.Value.Resolve()
		if id, ok := v.Any().(spool.ID); ok && a.Key == "id" && e.ID == 0 {
			e.ID = id
			continue
		}
		switch v.Kind() {
		case slog.KindBool, slog.KindFloat64, slog.KindInt64, slog.KindUint64:
		case slog.KindTime:
			v = slog.StringValue(v.Time().UTC().Format(time.RFC3339))
		default:
			v = slog.StringValue(spool.CleanText(fmt.Sprint(v.Any())))
		}
		e.Attrs = append(e.Attrs, slog.Attr{Key: a.Key, Value: v})
	}
	return e
}

// Record is e as a log/slog handler takes it.
func (e Entry) Record() slog.Record {
	r := slog.NewRecord(e.Time, e.Level, e.Msg, 0)
	if e.ID != 0 {
		r.AddAttrs(slog.String("id", e.ID.String()))
	}
	r.AddAttrs(e.Attrs...)
	return r
}
