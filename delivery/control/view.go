package control

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"postino/spool"
	"postino/spool/address"
)

// ErrContentGone means: the message is finished, and only mode capture keeps content.
var ErrContentGone = errors.New("its content is gone: of finished mail only what failed is kept, for a while, and what mode capture took")

// View answers questions about a spool for somebody with a certain Access. A nil
// Spool is one in which nothing was ever stored.
type View struct {
	Spool  *spool.Spool
	Access Access
	// Hop tells the next hop for a recipient of a sender's mail; nil means that none
	// is known.
	Hop func(sender, recipient address.Address) string
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
			if !sel.Failed && sel.matches(&m, v.Hop) && !yield(m, nil) {
				return
			}
		}
	})
}

// queue yields what is worth a look for sel.
func (v View) queue(sel Selection) iter.Seq2[*spool.Message, error] {
	switch {
	case len(sel.IDs) > 0:
		return v.named(sel)
	case v.Spool == nil:
		return func(func(*spool.Message, error) bool) {}
	}
	if sel.Failed {
		return v.Spool.Failed()
	}
	return v.Spool.Queue()
}

// named yields the messages of the queue that have the IDs of sel; where it says so,
// those of the failed list as well.
func (v View) named(sel Selection) iter.Seq2[*spool.Message, error] {
	return func(yield func(*spool.Message, error) bool) {
		for _, id := range sel.IDs {
			m, err := v.message(id, func(*spool.Message) bool { return true })
			if err == nil && !m.Finished.IsZero() && !(m.Kept && (sel.Failed || sel.orFailed)) {
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

func gone(m *spool.Message) bool { return !m.Finished.IsZero() && !m.Captured && !m.Kept }
