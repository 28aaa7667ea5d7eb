package control

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"

	"postino/spool"
)

// maxReason is how many octets of a reason are taken. It stands in each message that
// is held for it.
const maxReason = 200

// Resumed is what came of Resume.
type Resumed struct {
	UID      int `json:"uid"`
	Released int `json:"released"` // messages
}

// Suspensions yields who is suspended, by uid.
func (v View) Suspensions() iter.Seq2[spool.Suspension, error] {
	return func(yield func(spool.Suspension, error) bool) {
		if v.Spool == nil {
			return
		}
		list, err := v.Spool.Suspensions()
		if err != nil {
			yield(spool.Suspension{}, err)
			return
		}
		for _, sus := range list {
			if !yield(sus, nil) {
				return
			}
		}
	}
}

func (s *Server) suspensions(w http.ResponseWriter, r *request) error {
	return stream(w, r.view.Suspensions())
}

func (s *Server) suspend(w http.ResponseWriter, r *request) error {
	uid, err := r.uid()
	if err != nil {
		return err
	}
	reason := r.URL.Query().Get("reason")
	if len(reason) > maxReason || !utf8.ValidString(reason) {
		return fmt.Errorf("%w: a reason has at most %d octets of UTF-8", errBadRequest, maxReason)
	}
	sus := spool.Suspension{UID: uid, Since: time.Now().UTC(), Reason: spool.CleanText(reason), By: r.peer.uid}
	if err := s.o.Runner.Suspend(s.o.Spool, sus); err != nil {
		return err
	}
	return answer(w, sus)
}

// resume answers with a list of one element, since it may take long.
func (s *Server) resume(w http.ResponseWriter, r *request) error {
	uid, err := r.uid()
	if err != nil {
		return err
	}
	return stream(w, func(yield func(Resumed, error) bool) {
		n, err := s.o.Runner.Resume(s.o.Spool, uid, r.peer.uid)
		if errors.Is(err, spool.ErrNotSuspended) {
			err = fmt.Errorf("%w: %w", ErrConflict, err)
		}
		yield(Resumed{UID: uid, Released: n}, err)
	})
}

// uid is the user that a request is about.
func (r *request) uid() (int, error) {
	text := r.URL.Query().Get(keyUID)
	uid, err := strconv.ParseInt(text, 10, 32)
	if err != nil || uid < 0 {
		return 0, fmt.Errorf("%w: %q is not a uid", errBadRequest, text)
	}
	return int(uid), nil
}

// Suspensions is View.Suspensions; ErrNotAllowed to all but administrators.
func (c *Client) Suspensions(ctx context.Context) iter.Seq2[spool.Suspension, error] {
	return list[spool.Suspension](ctx, c, http.MethodGet, "/suspensions")
}

// Suspend has mail of a uid accepted and held until Resume, and nothing attempted of
// what it has in the queue. The reason is one line of at most 200 octets, or empty.
func (c *Client) Suspend(ctx context.Context, uid int, reason string) (spool.Suspension, error) {
	var sus spool.Suspension
	q := url.Values{keyUID: {strconv.Itoa(uid)}, "reason": {reason}}
	err := c.call(ctx, http.MethodPost, "/suspend?"+q.Encode(), &sus)
	return sus, err
}

// Resume ends a suspension and releases what it held, and that alone; ErrConflict
// when the uid is not suspended.
func (c *Client) Resume(ctx context.Context, uid int) (Resumed, error) {
	var out Resumed
	var failed error
	for r, err := range list[Resumed](ctx, c, http.MethodPost, "/resume?"+keyUID+"="+strconv.Itoa(uid)) {
		out, failed = r, err
	}
	return out, failed
}
