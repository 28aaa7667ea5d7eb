package relay

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// contentTime and contentRate bound how long the content of one message may take in
// all, over and above the timeout of each write: a quarter of an hour, and a second for
// each 4 KiB. A slower remote would hold a connection for days.
const (
	contentTime = 15 * time.Minute
	contentRate = 4 << 10
)

// chunks reports whether t goes by BDAT. A yes to it has the class of one to MAIL or
// RCPT, where DATA has a 354 of its own: so the remote must answer in words of which
// it can be seen that it did not answer once too often.
func (s *session) chunks(t *transaction) bool {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	chunks := s.words.differ() && !s.pool.confused && s.ext.has("CHUNKING") && t.content.ReadCloser == nil && !s.pool.peer.lmtp
	s.chunked, t.bdat = s.chunked || chunks, chunks
	return chunks
}

// bdat sends the content in one chunk.
func (s *session) bdat(t *transaction) {
	s.w.append(func(out []byte) []byte {
		var l lines
		command := len(out)
		out = l.end(l.add(out, t.content.text))
		return slices.Insert(out, command, fmt.Appendf(nil, "BDAT %d LAST\r\n", len(out)-command)...)
	})
	s.ended(t)
}

// ended notes that the content of t is complete in what is gathered.
func (s *session) ended(t *transaction) {
	s.pool.mu.Lock()
	t.end = s.w.queued
	s.sending = nil
	s.expect(stepDot, t)
	s.pool.mu.Unlock()
	if !s.pipelining() {
		s.await(func() bool { return t.over })
	}
}

// data sends the content by DATA. Until its end is answered the only way out is to
// close the socket: anything sent would end the content and have it taken as it is.
func (s *session) data(t *transaction) {
	if !s.say(stepData, t, "DATA") || !s.await(func() bool { return t.goAhead || t.over }) {
		return
	}
	s.pool.mu.Lock()
	over, hopeless := t.over, t.hopeless()
	switch {
	case over:
	case hopeless && s.pool.peer.lmtp:
		// Nobody gets a reply, so that none can be waited for.
		s.fail(fault{err: errUnasked})
		over = true
	case !hopeless:
		s.sending = t
	}
	s.pool.mu.Unlock()
	switch {
	case over:
		return
	case hopeless:
		s.w.line(".") // an empty message to nobody; what becomes of it does not matter
		s.ended(t)
		return
	}
	if alive, err := s.body(t); err != nil {
		s.pool.mu.Lock()
		t.settle(t.accepted, s.local("DATA", "4.3.0", "cannot read the content: "+err.Error()))
		t.accepted = nil
		s.fail(fault{err: errInterrupted})
		s.pool.mu.Unlock()
	} else if alive {
		s.ended(t)
	}
}

// body gathers the content of t and its end, and writes all but the last of it. It
// reports whether the session goes on; the error is one of reading.
func (s *session) body(t *transaction) (alive bool, err error) {
	l := lines{dots: true}
	if t.content.ReadCloser == nil {
		s.w.append(func(out []byte) []byte { return l.end(l.add(out, t.content.text)) })
		return true, nil
	}
	until := time.Now().Add(contentTime + time.Duration(t.Message.Size/contentRate)*time.Second)
	block := make([]byte, gather/2)
	for err == nil {
		var n int
		n, err = t.content.Read(block)
		s.w.append(func(out []byte) []byte { return l.add(out, block[:n]) })
		patience := min(time.Duration(s.pool.peer.time.Data), time.Until(until))
		if len(s.w.out) >= gather && !s.flush(patience) {
			return false, nil
		}
	}
	if err != io.EOF {
		return true, err
	}
	s.w.append(l.end)
	return true, nil
}
