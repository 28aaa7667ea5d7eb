package relay

import (
	"bufio"
	"io"
	"net"
	"net/textproto"
	"reflect"
	"strings"
	"testing"
	"time"

	"postino/spool"
)

// FuzzReply feeds the guard whatever a server might send. Laws: a whole reply has
// one code, at least one line and no more octets than allowed; go-smtp's reader
// sees what the guard keeps; and the Reply made of it is one printable line, of
// the class of its code.
func FuzzReply(f *testing.F) {
	for _, s := range []string{"250 ok\r\n", "250-a\r\n250 b\r\n", "250-a\r\n550 b\r\n", "220\r\n", "550 5.1.1\r\n", "550-5.7.1 a\r\n550 5.7.1 b\r\n", "HTTP/1.1 400\r\n\r\n", "250", "421 x\n", "250-\r\n250 \r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ours, err := guardOver(s).answer()
		code, text, textErr := textproto.NewReader(bufio.NewReader(guardOver(s))).ReadResponse(0)
		if (err == nil) != (textErr == nil) {
			t.Fatalf("%q: guard says %v, textproto %v", s, err, textErr)
		}
		if err != nil {
			return
		}
		if ours.code < 200 || ours.code > 599 || ours.code != code || len(ours.lines) == 0 || len(strings.Join(ours.lines, "\n")) > maxReply {
			t.Fatalf("%q: got %+v, textproto %d", s, ours, code)
		}
		if got, want := strings.Count(text, "\n")+1, len(ours.lines); got != want {
			t.Fatalf("%q: %d lines, textproto %d", s, want, got)
		}
		reply := remote{}.judge("X", ours)
		if reply.Text != spool.CleanText(reply.Text) || !wellFormed(reply.Status) {
			t.Fatalf("%q: got %+v", s, reply)
		}
		if class := int(reply.Class()); class != code/100 && code/100 != 3 {
			t.Fatalf("%q: class %d of %+v", s, class, reply)
		}
	})
}

// guardOver is a guard whose remote says s and no more.
func guardOver(s string) *guard {
	conn := speech{strings.NewReader(s)}
	return newGuard(conn, conn, time.Second)
}

// speech is a connection of which only the reading end exists.
type speech struct{ io.Reader }

func (speech) Write(p []byte) (int, error)      { return len(p), nil }
func (speech) Close() error                     { return nil }
func (speech) LocalAddr() net.Addr              { return place("") }
func (speech) RemoteAddr() net.Addr             { return place("") }
func (speech) SetDeadline(time.Time) error      { return nil }
func (speech) SetReadDeadline(time.Time) error  { return nil }
func (speech) SetWriteDeadline(time.Time) error { return nil }

// The guard hands out a line at a time: what follows stays where it can be seen.
func TestGuardNeverReadsAhead(t *testing.T) {
	g := guardOver("250-a\r\n250 b\r\n220 c\r\n")
	for _, want := range []string{"250-a\r\n", "250 b\r\n"} {
		p := make([]byte, 4096)
		n, err := g.Read(p)
		if got := string(p[:n]); got != want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	if _, err := g.Write([]byte("MAIL\r\n")); err != errUnasked {
		t.Errorf("write with a reply unread gives %v, want %v", err, errUnasked)
	}
}

func TestParseEHLO(t *testing.T) {
	for _, tt := range []struct {
		lines []string
		want  extensions
	}{
		{nil, extensions{}},
		{[]string{"relay.test STARTTLS"}, extensions{}},
		{[]string{"r", "starttls", "Size 10", ""}, extensions{"STARTTLS": "", "SIZE": "10"}},
		{[]string{"r", "SIZE -1"}, extensions{}},
		{[]string{"r", "SIZE 99999999999999999999"}, extensions{}},
		{[]string{"r", "AUTH=LOGIN", "AUTH plain"}, extensions{"AUTH": "LOGIN plain"}},
		{[]string{"r", "auth=LOGIN PLAIN"}, extensions{"AUTH": "LOGIN PLAIN"}},
	} {
		if got := parseEHLO(answer{250, tt.lines}); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("parseEHLO(%q) = %v, want %v", tt.lines, got, tt.want)
		}
	}
}

func TestEnhanced(t *testing.T) {
	for _, tt := range []struct {
		code         int
		line         string
		status, text string
	}{
		{550, "5.1.1 no", "5.1.1", "no"},
		{550, "5.1.1", "5.1.1", ""},
		{550, "4.1.1 no", "", "4.1.1 no"},
		{550, "5.01.1 no", "", "5.01.1 no"},
		{550, "5.1.1000 no", "", "5.1.1000 no"},
		{550, "5.1 no", "", "5.1 no"},
		{550, "5.1.1: no", "", "5.1.1: no"},
		{250, "2.0.0 Ok: queued as A", "2.0.0", "Ok: queued as A"},
	} {
		status, text := enhanced(answer{tt.code, []string{tt.line}})
		if status != tt.status || text != tt.text {
			t.Errorf("%d %s: got %q, %q, want %q, %q", tt.code, tt.line, status, text, tt.status, tt.text)
		}
	}
}

// FuzzAddress: whatever the address, what is let through stays inside its brackets
// on one line.
func FuzzAddress(f *testing.F) {
	f.Add("a", "x.test")
	f.Add(`a> "b`, "x.test")
	f.Add("a", "x.test> SIZE=1 X=<")
	f.Fuzz(func(t *testing.T, local, domain string) {
		b := one()
		a := &b.Message.Recipients[0].Address
		a.Local, a.Domain = local, domain
		if badAddress(*a) {
			return
		}
		s, quoted := a.String(), false
		for i := 0; i < len(s); i++ {
			switch c := s[i]; {
			case c == '\r' || c == '\n' || c == 0:
				t.Fatalf("%q has a control character", s)
			case c == '\\' && quoted:
				i++
			case c == '"':
				quoted = !quoted
			case !quoted && strings.IndexByte("<> ", c) >= 0:
				t.Fatalf("%q ends its path early", s)
			}
		}
		if quoted {
			t.Fatalf("%q has an open quote", s)
		}
	})
}
