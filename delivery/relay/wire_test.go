package relay

import (
	"io"
	"net"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"postino/spool"
)

// FuzzReply feeds the wire whatever a server might send. Laws: a whole reply has one
// code, at least one line and no more octets than allowed; written out again it
// reads the same; what follows it is still there; and the Reply made of it is one
// printable line, of the class of its code.
func FuzzReply(f *testing.F) {
	for _, s := range []string{"250 ok\r\n", "250-a\r\n250 b\r\n", "250-a\r\n550 b\r\n", "220\r\n", "550 5.1.1\r\n", "550-5.7.1 a\r\n550 5.7.1 b\r\n", "HTTP/1.1 400\r\n\r\n", "250", "421 x\n", "250-\r\n250 \r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		w := wireOver(s)
		a, err := w.reply()
		if err != nil {
			return
		}
		if a.code < 200 || a.code > 599 || len(a.lines) == 0 || len(strings.Join(a.lines, "\n")) > maxReply {
			t.Fatalf("%q: got %+v", s, a)
		}
		again, err := wireOver(render(a) + "250 next\r\n").reply()
		if err != nil || !reflect.DeepEqual(a, again) {
			t.Fatalf("%q: got %+v, and written again %+v, %v", s, a, again, err)
		}
		rest, _ := io.ReadAll(w.in)
		if used := len(s) - len(rest); used < 4 || s[used-1] != '\n' || strings.Count(s[:used], "\n") != len(a.lines) {
			t.Fatalf("%q: %d lines, but %q is left", s, len(a.lines), rest)
		}
		reply := remote{}.judge("X", a)
		if reply.Text != spool.CleanText(reply.Text) || !wellFormed(reply.Status) {
			t.Fatalf("%q: got %+v", s, reply)
		}
		if class := int(reply.Class()); class != a.code/100 && a.code/100 != 3 {
			t.Fatalf("%q: class %d of %+v", s, class, reply)
		}
	})
}

// render is a reply as a server writes it.
func render(a answer) string {
	var b strings.Builder
	for i, line := range a.lines {
		mark := "-"
		if i == len(a.lines)-1 {
			mark = " "
		}
		b.WriteString(strconv.Itoa(a.code) + mark + line + "\r\n")
	}
	return b.String()
}

// wireOver is a wire whose remote says s and no more.
func wireOver(s string) *wire {
	conn := speech{strings.NewReader(s)}
	return newWire(conn, conn)
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

// Nothing is sent while something is there that was not asked for.
func TestCommandWantsSilence(t *testing.T) {
	w := wireOver("220 a\r\n250 b\r\n")
	if a, err := w.reply(); err != nil || a.code != 220 {
		t.Fatalf("got %+v, %v", a, err)
	}
	if _, err := w.command("EHLO x", time.Second); err != errUnasked || w.written.Load() != 0 {
		t.Errorf("a command with a reply unread gives %v after %d octets, want %v and none", err, w.written.Load(), errUnasked)
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
		s, quoted := onWire(*a), false
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
