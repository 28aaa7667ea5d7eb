package relay

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"postino/config"
	"postino/delivery/relay/relaytest"
)

// The content arrives as it is, and SIZE is its length before dot-stuffing.
func TestContentArrivesUnaltered(t *testing.T) {
	for _, content := range []string{
		hello,
		"A: b\r\n\r\n.\r\n..\r\n.a\r\n...\r\n",
		"A: b\r\n\r\n" + strings.Repeat(".x\r\n", 100_000),
		"A: b\r\n\r\ngr\xfc\xdf\r\n",
	} {
		server := relaytest.New(t, relaytest.Options{})
		replies := newRelay(t, settings(server), patient()).Deliver(t.Context(), batch(content, "a@x.test"))
		want{"2", 250, "dot", ""}.check(t, replies[0])
		if got := server.Messages(); len(got) != 1 || string(got[0].Data) != content {
			t.Errorf("content %.40q… of %d octets arrived changed", content, len(content))
		}
		said(t, server, fmt.Sprintf(`^MAIL FROM:<s@sender\.test> SIZE=%d$`, len(content)))
	}
}

// failing is content that cannot be read to its end.
type failing struct {
	io.Reader
	err error
}

func (f failing) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if err == io.EOF {
		err = f.err
	}
	return n, err
}

func (f failing) Close() error { return nil }

// A message that cannot be read to its end is never ended: no dot, and no command
// whose sending would make go-smtp write one. Afterwards the connection is gone.
func TestLocalErrorEndsInSilence(t *testing.T) {
	for _, size := range []int{100, 100_000} {
		server := relaytest.New(t, relaytest.Options{})
		r := newRelay(t, settings(server), patient())
		b := one()
		b.Message.Size = 3 * int64(size)
		b.Open = func() (io.ReadCloser, error) {
			return failing{strings.NewReader(strings.Repeat("x\r\n", size)), errors.New("checksum does not match")}, nil
		}
		replies := r.Deliver(t.Context(), b)
		r.Close()
		server.Close()
		want{"4.3.0", 0, "", "checksum does not match"}.check(t, replies[0])
		if replies[0].Maybe || len(server.Messages()) != 0 {
			t.Errorf("the server took %d messages of broken content, reply %+v", len(server.Messages()), replies[0])
		}
		if size > smallContent {
			never(t, server, "^(QUIT|RSET|NOOP)")
		} else {
			never(t, server, "^MAIL") // it was found out before
		}
	}
}

// Content that cannot be opened costs the session nothing.
func TestUnopenedContentDefers(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{})
	r := newRelay(t, settings(server), patient())
	b := one()
	b.Open = func() (io.ReadCloser, error) { return nil, errors.New("no such file") }
	want{"4.3.0", 0, "open", "no such file"}.check(t, r.Deliver(t.Context(), b)[0])
	want{"2", 250, "dot", ""}.check(t, r.Deliver(t.Context(), one())[0])
	if n := server.Connections(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// After the end of the content, no answer means that nobody knows. (Of silence see
// TestEachStepHasItsTime.)
func TestNoAnswerToDotIsMaybe(t *testing.T) {
	for _, rule := range []relaytest.Rule{
		{At: "dot", Do: relaytest.Close},
		{At: "dot", Do: relaytest.Reset},
		{At: "dot", Raw: "250-a\r\n550 b"},
		{At: "dot", Raw: "garbage"},
		{At: "dot", Reply: "354 more"},
	} {
		server := relaytest.New(t, relaytest.Options{Rules: []relaytest.Rule{rule}})
		r := newRelay(t, settings(server), patient())
		reply := r.Deliver(t.Context(), one())[0]
		want{"4.", 0, "dot", "may have been delivered"}.check(t, reply)
		if !reply.Maybe {
			t.Errorf("%+v: got %+v, want Maybe", rule, reply)
		}
		if n := server.Connections(); n != 1 {
			t.Errorf("%+v: %d connections, want 1", rule, n)
		}
	}
}

// Before the end of the content nothing can have been taken; what the remote said
// in the middle is the verdict, unless it says success.
func TestContentCutShort(t *testing.T) {
	large := "A: b\r\n\r\n" + strings.Repeat(strings.Repeat("x", 78)+"\r\n", 100_000)
	for _, tt := range []struct {
		rule relaytest.Rule
		want want
	}{
		{relaytest.Rule{At: "body", After: 1000, Do: relaytest.Reset}, want{"4.4.2", 0, "DATA", ""}},
		{relaytest.Rule{At: "body", After: 1000, Do: relaytest.Close}, want{"4.4.2", 0, "DATA", ""}},
		{relaytest.Rule{At: "body", After: 1000, Do: relaytest.Stall}, want{"4.4.2", 0, "DATA", "timeout"}},
		{relaytest.Rule{At: "body", After: 1000, Reply: "552 5.3.4 too big", Do: relaytest.Close}, want{"5.3.4", 552, "DATA", "too big"}},
		{relaytest.Rule{At: "body", After: 1000, Reply: "552 5.3.4 too big", Do: relaytest.Stall}, want{"5.3.4", 552, "DATA", "too big"}},
		{relaytest.Rule{At: "body", After: 1000, Reply: "421 4.3.2 bye", Do: relaytest.Close}, want{"4.3.2", 421, "DATA", "bye"}},
		{relaytest.Rule{At: "body", After: 1000, Reply: "250 2.0.0 taken already", Do: relaytest.Stall}, want{"4.", 0, "DATA", ""}},
	} {
		for _, tls := range []relaytest.TLS{relaytest.Plain, relaytest.Implicit} {
			t.Run(fmt.Sprintf("%.30s-%s-%d", tt.rule.Reply, tt.rule.Do, tls), func(t *testing.T) {
				t.Parallel()
				server := relaytest.New(t, relaytest.Options{TLS: tls, Extensions: []string{}, Rules: []relaytest.Rule{tt.rule}})
				c := settings(server)
				if tls == relaytest.Implicit {
					c.TLS = config.Implicit
				}
				timeouts := patient()
				if tt.want.text == "timeout" { // of all others the remote tells
					timeouts.Data = config.Duration(time.Second)
				}
				reply := newRelay(t, c, timeouts).Deliver(t.Context(), batch(large, "a@x.test"))[0]
				tt.want.check(t, reply)
				if reply.Maybe {
					t.Errorf("%+v: got %+v, want nothing in doubt", tt.rule, reply)
				}
				never(t, server, "^(QUIT|RSET|NOOP)")
			})
		}
	}
}

// FuzzLines: however content is cut, what goes out has no CR or LF alone, ends once,
// and read as a receiver does (RFC 5321 §4.5.2) is the content, its line ends made
// CRLF.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\r\n.\r\n..b\r\n"), 3)
	f.Add([]byte(".\n.\r.\r\n\r\r\n\n."), 1)
	f.Fuzz(func(t *testing.T, content []byte, size int) {
		var plain, data []byte
		l, d := lines{}, lines{dots: true}
		for part := range slices.Chunk(content, max(1, size)) {
			plain, data = l.add(plain, part), d.add(data, part)
		}
		plain, data = l.end(plain), d.end(data)
		normal := strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(string(content), "\r\n", "\n"), "\r", "\n"), "\n", "\r\n")
		if normal != "" && !strings.HasSuffix(normal, "\r\n") {
			normal += "\r\n"
		}
		if string(plain) != normal {
			t.Fatalf("%q became %q, want %q", content, plain, normal)
		}
		var got strings.Builder
		rest := string(data)
		for {
			line, after, found := strings.Cut(rest, "\r\n")
			if !found {
				t.Fatalf("%q became %q, which has no end", content, data)
			}
			rest = after
			if line == "." {
				break
			}
			got.WriteString(strings.TrimPrefix(line, ".") + "\r\n")
		}
		if rest != "" || got.String() != normal {
			t.Fatalf("%q became %q, read as %q with %q left", content, data, got.String(), rest)
		}
	})
}
