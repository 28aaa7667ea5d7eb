package relaytest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// conn is one connection to the server.
type conn struct {
	server  *Server
	socket  net.Conn
	rw      net.Conn
	in      *bufio.Reader
	number  int
	seen    map[string]int // visits by place
	edition int            // of the rules that seen is about
	tls     bool
	greeted bool // the whole greeting is out
	left    bool // guarded by server.mu
	user    string
	from    *string
	to      []string
	chunks  []byte // of BDAT, so far
}

func (r Rule) fits(at, line string, n, conn int) bool {
	return r.At == at && (r.N == 0 || r.N == n) && (r.Conn == 0 || r.Conn == conn) && strings.Contains(line, r.Arg)
}

// run speaks SMTP until the connection ends.
func (c *conn) run() {
	if c.server.options.TLS == Implicit && !c.handshake() {
		return
	}
	if _, ok := c.say("greeting", "", "220 relay.test ESMTP"); !ok {
		return
	}
	c.greeted = true
	for {
		line, ok := c.read()
		if !ok {
			return
		}
		c.server.record(line)
		verb, arg, _ := strings.Cut(line, " ")
		if !c.command(strings.ToUpper(verb), arg, line) {
			return
		}
	}
}

// command answers one command; false ends the connection.
func (c *conn) command(verb, arg, line string) bool {
	switch verb {
	case "EHLO", "LHLO":
		return c.ehlo(line)
	case "STARTTLS":
		code, ok := c.say(verb, line, "220 2.0.0 go ahead")
		return ok && (code != "220" || c.handshake())
	case "AUTH":
		return c.auth(arg, line)
	case "MAIL":
		if len(c.server.options.Users) > 0 && c.user == "" {
			_, ok := c.say(verb, line, "530 5.7.0 authentication required")
			return ok
		}
		code, ok := c.say(verb, line, "250 2.1.0 ok")
		if strings.HasPrefix(code, "2") {
			from := path(arg)
			c.from, c.to = &from, nil
		}
		return ok
	case "RCPT":
		usual := "250 2.1.5 ok"
		if c.from == nil {
			usual = "503 5.5.1 MAIL first"
		}
		code, ok := c.say(verb, line, usual)
		if strings.HasPrefix(code, "2") {
			c.to = append(c.to, path(arg))
		}
		return ok
	case "DATA":
		code, ok := c.say(verb, line, "354 go")
		return ok && (code != "354" || c.content())
	case "BDAT":
		return c.chunk(arg)
	case "QUIT":
		c.leave()
		c.say(verb, line, "221 2.0.0 bye")
		return false
	case "RSET":
		c.from, c.to, c.chunks = nil, nil, nil
		_, ok := c.say(verb, line, "250 2.0.0 ok")
		return ok
	case "HELO", "NOOP":
		_, ok := c.say(verb, line, "250 2.0.0 ok")
		return ok
	}
	_, ok := c.say(verb, line, "500 5.5.2 unknown command")
	return ok
}

func (c *conn) ehlo(line string) bool {
	o := c.server.options
	lines := o.Extensions
	if lines == nil {
		lines = []string{"8BITMIME", "SIZE 10485760", "ENHANCEDSTATUSCODES"}
		if len(o.Users) > 0 {
			lines = append(lines, "AUTH PLAIN LOGIN")
		}
	}
	if o.TLS == StartTLS && !c.tls {
		lines = append([]string{"STARTTLS"}, lines...)
	}
	_, ok := c.say("EHLO", line, multi("250", append([]string{"relay.test"}, lines...)))
	return ok
}

// multi joins lines to a reply.
func multi(code string, lines []string) string {
	out := make([]string, len(lines))
	for i, l := range lines {
		mark := "-"
		if i == len(lines)-1 {
			mark = " "
		}
		out[i] = code + mark + l
	}
	return strings.Join(out, "\n")
}

// path is what stands in angle brackets at the start of an argument, up to the
// bracket before a space or the end.
func path(arg string) string {
	_, arg, _ = strings.Cut(arg, "<")
	if p, _, ok := strings.Cut(arg, "> "); ok {
		return p
	}
	return strings.TrimSuffix(arg, ">")
}

// content reads a message to its end and takes it if the answer says so.
func (c *conn) content() bool {
	if r := c.server.rule(c, "body", ""); r != (Rule{}) {
		if _, err := io.CopyN(io.Discard, c.in, int64(r.After)); err != nil {
			return false
		}
		code, ok := c.answer(r, "")
		if !ok || code != "" {
			return false
		}
	}
	var data bytes.Buffer
	for {
		line, err := c.in.ReadBytes('\n')
		if err != nil {
			c.gaveUp(err, "end of the content", data.Len()+len(line))
			return false
		}
		if string(line) == ".\r\n" {
			break
		}
		data.Write(bytes.TrimPrefix(line, []byte(".")))
	}
	return c.end(data.Bytes(), "")
}

// chunk reads a chunk (RFC 3030 §2). Like a server it wants a recipient first.
func (c *conn) chunk(arg string) bool {
	size, last, _ := strings.Cut(arg, " ")
	n, err := strconv.Atoi(size)
	if err != nil || n < 0 || n > maxChunk {
		return c.write("501 5.5.4 syntax")
	}
	if r := c.server.rule(c, "body", ""); r != (Rule{}) {
		if _, err := io.CopyN(io.Discard, c.in, int64(min(n, r.After))); err != nil {
			return false
		}
		code, ok := c.answer(r, "")
		if !ok || code != "" {
			return false
		}
		n -= r.After
	}
	chunk := make([]byte, n)
	if got, err := io.ReadFull(c.in, chunk); err != nil {
		c.gaveUp(err, fmt.Sprintf("chunk of %d octets", n), got)
		return false
	}
	if c.from == nil || len(c.to) == 0 {
		return c.write("503 5.5.1 no recipients")
	}
	c.chunks = append(c.chunks, chunk...)
	if !strings.EqualFold(last, "LAST") {
		_, ok := c.say("BDAT", "BDAT "+arg, "250 2.0.0 ok")
		return ok
	}
	data := c.chunks
	c.chunks = nil
	return c.end(data, "BDAT")
}

// end takes a message and answers its end; by is BDAT, or empty for DATA.
func (c *conn) end(data []byte, by string) bool {
	// It is on record before the client can know.
	end := c.server.rule(c, "dot", by)
	const usual = "250 2.0.0 Ok: queued as Q1"
	if len(c.to) == 0 {
		c.server.mu.Lock()
		c.server.lost = append(c.server.lost, Message{Data: data, Conn: c.number})
		c.server.mu.Unlock()
	} else if strings.HasPrefix(end.text(usual), "2") && c.from != nil {
		c.server.mu.Lock()
		c.server.messages = append(c.server.messages, Message{*c.from, c.to, data, c.number, c.user, c.tls, c.socket.RemoteAddr().String()})
		c.server.mu.Unlock()
	}
	replies := 1
	if c.server.options.LMTP {
		replies = len(c.to)
	}
	for range replies {
		if _, ok := c.answer(end, usual); !ok {
			return false
		}
		if c.server.options.LMTP {
			end = c.server.rule(c, "dot", by)
		}
	}
	c.from, c.to = nil, nil
	r := c.server.rule(c, "idle", "")
	if r == (Rule{}) {
		return true
	}
	_, ok := c.answer(r, "")
	return ok
}

func (c *conn) handshake() bool {
	if _, ok := c.answer(c.server.rule(c, "tls", ""), ""); !ok {
		return false
	}
	conn := tls.Server(c.socket, c.server.config)
	if conn.Handshake() != nil {
		return false
	}
	c.wire(conn)
	c.tls = true
	return true
}

// say sends the reply for a place and returns its code; false ends the
// connection.
func (c *conn) say(at, line, usual string) (string, bool) {
	return c.answer(c.server.rule(c, at, line), usual)
}

// text is what a rule has the server say, without the last line end.
func (r Rule) text(usual string) string {
	switch {
	case r.Raw != "":
		return strings.TrimSuffix(r.Raw, "\r\n")
	case r.Reply != "":
		usual = r.Reply
	case r.Do == Close, r.Do == Reset, r.Do == Stall:
		return ""
	}
	return strings.ReplaceAll(usual, "\n", "\r\n")
}

// answer does what r says, or sends the usual reply if it says nothing. The code
// is that of the reply, empty when there was none.
func (c *conn) answer(r Rule, usual string) (string, bool) {
	if !c.until(r.Until) || !c.wait(r.Delay) {
		return "", false
	}
	if r.At == "dot" {
		c.lookAhead()
	}
	text := r.text(usual)
	ok := true
	switch {
	case text == "":
	case r.Do == Drip:
		ok = c.drip(strings.SplitAfter(text+"\r\n", ""), r.Pause)
	case r.Pause > 0:
		parts := strings.SplitAfter(text, "\n")
		parts[len(parts)-1] += "\r\n"
		ok = c.drip(parts, r.Pause)
	default:
		ok = c.write(text)
	}
	switch r.Do {
	case Close:
		ok = false
	case Reset:
		if tcp, ok := c.socket.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		ok = false
	case Stall:
		<-c.server.stop
		ok = false
	}
	return text[:min(3, len(text))], ok
}

// there is what has come in and was not read yet.
func (c *conn) there() []byte {
	c.rw.SetReadDeadline(time.Now().Add(time.Millisecond))
	c.in.Peek(c.in.Size()) // fills the buffer with what is there
	c.rw.SetReadDeadline(time.Time{})
	there, _ := c.in.Peek(c.in.Buffered())
	return there
}

// hearEarly notes a client that speaks before its turn.
func (c *conn) hearEarly() {
	if len(c.there()) > 0 {
		c.server.mu.Lock()
		defer c.server.mu.Unlock()
		c.server.early++
	}
}

// lookAhead counts the commands that are there already.
func (c *conn) lookAhead() {
	n := 0
	for line := range bytes.Lines(c.there()) {
		if verb, _, _ := bytes.Cut(line, []byte(" ")); len(verb) == 4 && strings.Contains("MAIL RCPT BDAT", string(verb)) {
			n++
		}
	}
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.server.ahead = max(c.server.ahead, n)
}

func (c *conn) write(text string) bool {
	c.rw.SetWriteDeadline(time.Now().Add(patience))
	_, err := io.WriteString(c.rw, text+"\r\n")
	return err == nil
}

// drip sends the parts of a text, with a pause behind each.
func (c *conn) drip(parts []string, pause time.Duration) bool {
	c.rw.SetWriteDeadline(time.Time{})
	for i, part := range parts {
		if i == len(parts)-1 && !c.greeted {
			c.hearEarly()
		}
		if _, err := io.WriteString(c.rw, part); err != nil {
			return false
		}
		if !c.wait(pause) {
			return false
		}
	}
	return true
}

// wait waits for d, and reports whether the server was there so long. No timer is made
// to wait for nothing: where several goroutines of a synctest bubble look at timers that
// are due at once, the race detector of Go 1.26 crashes.
func (c *conn) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-c.server.stop:
		return false
	case <-time.After(d):
		return true
	}
}

// until waits for what a rule waits for, and reports whether that came.
func (c *conn) until(opened <-chan struct{}) bool {
	if opened == nil {
		return true
	}
	select {
	case <-c.server.stop:
		return false
	case <-opened:
		return true
	}
}

func (c *conn) read() (string, bool) {
	if c.server.listener != nil {
		c.rw.SetReadDeadline(time.Now().Add(patience))
	}
	line, err := c.in.ReadString('\n')
	c.gaveUp(err, "command", len(line))
	if c.server.options.Deaf {
		_, _ = c.in.Discard(len(c.there()))
	}
	return strings.TrimRight(line, "\r\n"), err == nil
}

// gaveUp tells the test when a client was waited for in vain, and what there is of it.
func (c *conn) gaveUp(err error, what string, octets int) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.server.t.Logf("relaytest: connection %d is given up: no %s within %v, but %d octets; commands so far: %q",
			c.number, what, patience, octets, c.server.Commands())
	}
}
