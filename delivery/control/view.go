package control

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"

	"postino/spool"
	"postino/spool/address"
)

// maxTraces is how many messages one Trace finds at most, the newest ones. A
// question with more answers was not precise enough.
const maxTraces = 1000

// ErrContentGone means: the message is finished, and only mode capture keeps content.
var ErrContentGone = errors.New("its content is gone: that of finished mail is kept in mode capture alone")

// View answers questions about a spool for somebody with a certain Access. A nil
// Spool is one in which nothing was ever stored.
type View struct {
	Spool  *spool.Spool
	Access Access
	// Hop tells the next hop for an address; nil means that none is known.
	Hop func(address.Address) string
	// Waiting are messages that no runner has taken yet, newer than all others.
	Waiting []Message
}

// Queue yields the unsettled messages that sel means, oldest first. What cannot be
// read is an error, and the walk goes on; of a message that sel names it is also
// spool.ErrNotFound and, when it is finished, ErrConflict.
func (v View) Queue(sel Selection) iter.Seq2[Message, error] {
	return first(sel.Limit, func(yield func(Message, error) bool) {
		for m, err := range v.queue(sel) {
			var out Message
			if err == nil {
				out = newMessage(m, v.Access)
			}
			if (err != nil || sel.matches(&out, v.Hop)) && !yield(out, err) {
				return
			}
		}
		for _, m := range v.Waiting {
			if sel.matches(&m, v.Hop) && !yield(m, nil) {
				return
			}
		}
	})
}

// queue yields what is worth a look for sel.
func (v View) queue(sel Selection) iter.Seq2[*spool.Message, error] {
	switch {
	case len(sel.IDs) > 0:
		return v.named(sel.IDs)
	case v.Spool == nil:
		return func(func(*spool.Message, error) bool) {}
	}
	return v.Spool.Queue()
}

// named yields the messages of the queue that have these IDs.
func (v View) named(ids []spool.ID) iter.Seq2[*spool.Message, error] {
	return func(yield func(*spool.Message, error) bool) {
		for _, id := range ids {
			m, err := v.message(id, func(*spool.Message) bool { return true })
			if err == nil && !m.Finished.IsZero() {
				err = fmt.Errorf("%s: %w: it is finished", id, ErrConflict)
				if !v.Access.sees(m) {
					err = fmt.Errorf("%s: %w", id, spool.ErrNotFound)
				}
			}
			if !yield(m, err) {
				return
			}
		}
	}
}

// Show returns one message, queued or finished. The error is spool.ErrNotFound
// also for a message that the asker may not see.
func (v View) Show(id spool.ID) (Trace, error) {
	m, err := v.message(id, v.Access.sees)
	if err != nil {
		return Trace{}, err
	}
	return v.trace(m)
}

// message returns a message if the asker may.
func (v View) message(id spool.ID, may func(*spool.Message) bool) (*spool.Message, error) {
	if v.Spool == nil {
		return nil, fmt.Errorf("%s: %w", id, spool.ErrNotFound)
	}
	m, err := v.Spool.Message(id)
	switch {
	case errors.Is(err, spool.ErrNotFound):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%s: %w", id, err)
	case !may(m):
		return nil, fmt.Errorf("%s: %w", id, spool.ErrNotFound)
	}
	return m, nil
}

func (v View) trace(m *spool.Message) (Trace, error) {
	attempts, err := v.Spool.Attempts(m.ID)
	if err != nil {
		return Trace{}, err
	}
	return newTrace(m, attempts), nil
}

// Trace yields the messages, queued or finished, that what names, newest last:
// the one with that queue ID, else those with that Message-ID, those from or to
// that address, and those with that text in their subject, in any case.
func (v View) Trace(what string) iter.Seq2[Trace, error] {
	if id, err := spool.ParseID(what); err == nil {
		if t, err := v.Show(id); !errors.Is(err, spool.ErrNotFound) {
			return func(yield func(Trace, error) bool) { yield(t, err) }
		}
	}
	matches := matcher(what)
	return v.find(func(m *spool.Message) bool { return v.Access.sees(m) && matches(m) })
}

// Captured yields the finished messages whose content was kept, newest last.
func (v View) Captured() iter.Seq2[Trace, error] {
	return v.find(func(m *spool.Message) bool { return m.Captured && !m.Finished.IsZero() && v.Access.owns(m) })
}

// find yields the newest messages that match.
func (v View) find(matches func(*spool.Message) bool) iter.Seq2[Trace, error] {
	return func(yield func(Trace, error) bool) {
		if v.Spool == nil {
			return
		}
		found := make(map[spool.ID]*spool.Message)
		// The queue first: what is finished meanwhile is then seen twice, not never.
		for _, walk := range []iter.Seq2[*spool.Message, error]{v.Spool.Queue(), v.Spool.History()} {
			for m, err := range walk {
				if err != nil {
					if !yield(Trace{}, err) {
						return
					}
					continue
				}
				if matches(m) {
					found[m.ID] = m
				}
				if len(found) > 2*maxTraces {
					found = newest(found)
				}
			}
		}
		found = newest(found)
		for _, id := range slices.Sorted(maps.Keys(found)) {
			if !yield(v.trace(found[id])) {
				return
			}
		}
	}
}

// newest keeps the maxTraces newest messages.
func newest(found map[spool.ID]*spool.Message) map[spool.ID]*spool.Message {
	ids := slices.SortedFunc(maps.Keys(found), func(a, b spool.ID) int { return cmp.Compare(b, a) })
	for _, id := range ids[min(len(ids), maxTraces):] {
		delete(found, id)
	}
	return found
}

func matcher(what string) func(*spool.Message) bool {
	messageID := bareID(what)
	part := strings.ToLower(what)
	key := ""
	if a, err := address.Parse(what); err == nil && a.Domain != "" {
		key = a.Key()
	}
	return func(m *spool.Message) bool {
		if what == "" {
			return false
		}
		return messageID != "" && messageID == bareID(m.MessageID) ||
			key != "" && involves(m, key) ||
			strings.Contains(strings.ToLower(decodeWords(m.Subject)), part)
	}
}

// bareID is a Message-ID without its angle brackets.
func bareID(s string) string { return strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">") }

func involves(m *spool.Message, key string) bool {
	return m.Sender.Key() == key ||
		slices.ContainsFunc(m.Recipients, func(r spool.Recipient) bool { return r.Address.Key() == key })
}

// Content opens what is stored of a message, in CRLF lines. It does not need the
// Spool any more. A read that finds damage returns spool.ErrDamaged at the end.
func (v View) Content(id spool.ID) (io.ReadCloser, error) {
	m, err := v.message(id, v.Access.owns)
	if err != nil {
		return nil, err
	}
	var content io.ReadCloser
	if !gone(m) {
		if content, err = v.Spool.Content(m); err == nil {
			return content, nil
		}
		// It may have been finished a moment ago.
		if m, again := v.message(id, v.Access.owns); again != nil || !gone(m) {
			return nil, fmt.Errorf("%s: %w", id, err)
		}
	}
	return nil, fmt.Errorf("%s: %w", id, ErrContentGone)
}

func gone(m *spool.Message) bool { return !m.Finished.IsZero() && !m.Captured }
