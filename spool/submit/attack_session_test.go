package submit_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postino/spool"
	"postino/spool/standstill"
)

// A session that is over takes nothing more, though the rest came in the same write.
func TestNothingIsTakenAfterTheEnd(t *testing.T) {
	const mail = "EHLO x\r\nMAIL FROM:<late@b.test>\r\nRCPT TO:<x@y.test>\r\nBDAT 17 LAST\r\nSubject: late\r\n\r\n"
	for name, end := range map[string]string{
		"QUIT":        "QUIT\r\n",
		"many errors": strings.Repeat("garbage\r\n", 5),
	} {
		r := newRig(t)
		r.talk("EHLO x\r\n" + end + mail)
		r.drop(dropName(1), "EHLO "+dropName(1)+".submission.invalid\r\n"+end+mail)
		r.scan()
		r.shutdown()
		if n := len(r.messages()); n != 0 {
			t.Errorf("after %s %d messages are taken", name, n)
		}
		if list := r.dropped(); len(list) != 1 || list[0] != "rejected."+dropName(1) {
			t.Errorf("after %s in drop/: %q", name, list)
		}
	}
}

// Who reads no replies is not told that his mail is stored, so it is not.
func TestClientThatReadsNothingIsLeft(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	if err := c.CloseRead(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, recorded(submissionName, "late@b.test", []string{"x@y.test"}, hello)) // or it was closed already
	c.Close()
	r.talk("QUIT\r\n") // behind it in line, so that the server has taken both in
	r.shutdown()
	if n := len(r.messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// go-smtp remembers each RCPT, also those that name somebody again.
func TestRepeatedRecipientsAreCounted(t *testing.T) {
	r := newRig(t)
	commands := strings.Repeat("RCPT TO:<x@y.test>\r\n", 5000)
	session := strings.Replace(recorded(submissionName, "a@b.test", []string{"x@y.test"}, hello), "BDAT", commands+"BDAT", 1)
	c := r.dial()
	go func() {
		_, _ = io.WriteString(c, session) // the reader sees what becomes of it
		_ = c.CloseWrite()
	}()
	accepted := 0
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "x@y.test") {
			accepted++
		}
	}
	r.inTime(lines.Err())
	if accepted > 500 || len(r.messages()) != 0 {
		t.Errorf("%d times one recipient, %d messages", accepted, len(r.messages()))
	}
}

// shutdown waits for all sessions to end.
func (r *rig) shutdown() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r.srv.Shutdown(ctx)
	if ctx.Err() != nil {
		r.t.Errorf("sessions go on after %v; log:\n%s", patience, r.log)
	}
}

func (r *rig) dial() *net.UnixConn {
	r.t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: filepath.Join(r.dir, "s")})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// Whatever stands where a size should, no message comes of it, and the next client is
// served.
func TestImpossibleChunkSizes(t *testing.T) {
	r := newRig(t)
	for _, size := range []string{"-1", "+5", "0x10", "1e3", "5 5", "5 LAST LAST", "4294967296", "18446744073709551616",
		"9223372036854775807", "99999999999999999999999999", "", " ", "5\x00", "٥", "LAST", "LAST 5", "4294967295 LAST"} {
		session := recorded(submissionName, "evil@b.test", []string{"x@y.test"}, hello)
		r.talk(strings.Replace(session, fmt.Sprintf("BDAT %d LAST", len(hello)), "BDAT "+size, 1))
		name := dropName(len(r.dropped()) + 1)
		session = strings.Replace(session, submissionName, name, 1)
		r.drop(name, strings.Replace(session, fmt.Sprintf("BDAT %d LAST", len(hello)), "BDAT "+size, 1))
		r.scan()
	}
	if n := len(r.messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
	for _, name := range r.dropped() {
		if !strings.HasPrefix(name, "rejected.") {
			t.Errorf("%s is left to be read again", name)
		}
	}
	r.talk(recorded(submissionName, victim, []string{"x@y.test"}, hello))
	if r.stored(victim) != 1 {
		t.Error("the next client is not served")
	}
}

// One uid has so many sessions at a time, and another's, root's above all, is served
// meanwhile; when they are over all is as before. This test is root, who has no limit,
// or an ordinary user, who has one.
func TestManySilentClients(t *testing.T) {
	r := newRig(t)
	var held []net.Conn
	for range 300 {
		c := r.dial()
		_, _ = io.WriteString(c, "EHLO x\r\nMAIL FROM:<a@b.test>\r\n")
		held = append(held, c)
	}
	for _, c := range held {
		c.Close()
	}
	standstill.Wait(t, patience, "somebody is served again", func() bool {
		r.talk(recorded(submissionName, victim, []string{"x@y.test"}, hello))
		return r.stored(victim) == 1
	})
}

// queuedIDs are those that replies name.
func queuedIDs(replies []string) map[string]bool {
	ids := make(map[string]bool)
	for _, reply := range replies {
		if _, id, ok := strings.Cut(reply, "Ok: queued as "); ok {
			ids[id] = true
		}
	}
	return ids
}

var sessionSeeds = []string{
	recorded(submissionName, "a@b.test", []string{"x@y.test"}, hello),
	"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nDATA\r\nSubject: x\r\n\r\n..\r\n.\r\nQUIT\r\nNOOP\r\n",
	"EHLO x\nMAIL FROM:<a>\nRCPT TO:<b>\nDATA\nx\n.\n",
	"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nBDAT 5\r\nabcdeBDAT 3 LAST\r\nab\x00RSET\r\n",
	"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nBDAT 5\r\nabcdeRSET\r\nMAIL FROM:<>\r\nBDAT 2 LAST\r\nxx",
	"EHLO x\r\nBDAT 99999 LAST\r\nEHLO y\r\nMAIL FROM:<\"a\\\"b\"@c.test> SIZE=-1 ENVID=+ RET=X\r\n",
	"MAIL FROM:<\r\nRCPT TO:>\r\n\r\n\x00\r\nSTARTTLS\r\nAUTH PLAIN =\r\nVRFY x\r\nHELP\r\n",
}

// The law: whatever a client sends, the messages in the spool are those that it was
// told of, the server lives on, and no panic was caught.
func FuzzSession(f *testing.F) {
	for _, seed := range sessionSeeds {
		f.Add([]byte(seed))
	}
	shared := newSharedRig(f)
	f.Fuzz(func(t *testing.T, session []byte) {
		r := shared.in(t)
		told := queuedIDs(r.talk(string(session)))
		fresh := r.fresh()
		for id := range told {
			if !fresh[id] && !r.known[id] {
				t.Fatalf("%q: told of %s, which is not stored", session, id)
			}
		}
		for id := range fresh {
			if !told[id] {
				t.Fatalf("%q: %s is stored, which nobody was told", session, id)
			}
			r.known[id] = true
		}
		if text := r.log.String(); strings.Contains(text, "panic") {
			t.Fatalf("%q: %s", session, text)
		}
	})
}

// sharedRig is one rig for many runs: opening a spool takes longer than any session.
type sharedRig struct {
	*rig
	known map[string]bool
}

func newSharedRig(f *testing.F) *sharedRig {
	return &sharedRig{rig: newRig(f), known: make(map[string]bool)}
}

// in has a run report to its own test.
func (r *sharedRig) in(t *testing.T) *sharedRig {
	r.t = t
	return r
}

// fresh are the messages that are not known.
func (r *sharedRig) fresh() map[string]bool {
	ids := make(map[string]bool)
	for _, m := range r.messages() {
		if id := m.ID.String(); !r.known[id] {
			ids[id] = true
		}
	}
	return ids
}

// The law: whatever a drop file holds behind its own name, its owner's one message
// comes of it or none, nothing is left to be read again, and the file beside it is taken.
func FuzzDropFile(f *testing.F) {
	for _, seed := range sessionSeeds {
		_, rest, _ := strings.Cut(seed, "\n")
		f.Add([]byte(rest))
	}
	shared := newSharedRig(f)
	n := 0
	f.Fuzz(func(t *testing.T, rest []byte) {
		r := shared.in(t)
		n += 2
		name := fmt.Sprintf("%016x%016x", uint64(spool.NewID(time.Now())), n)
		beside := fmt.Sprintf("%016x%016x", uint64(spool.NewID(time.Now())), n+1)
		r.drop(name, "EHLO "+name+".submission.invalid\r\n"+string(rest))
		r.drop(beside, recorded(beside, victim, []string{"x@y.test"}, hello))
		r.scan()
		fresh := r.fresh()
		if len(fresh) < 1 || len(fresh) > 2 {
			t.Fatalf("%q: %d messages", rest, len(fresh))
		}
		for id := range fresh {
			r.known[id] = true
		}
		for _, left := range r.dropped() {
			if !strings.HasPrefix(left, "rejected.") {
				t.Fatalf("%q: %s is left; log:\n%s", rest, left, r.log)
			}
		}
		if text := r.log.String(); strings.Contains(text, "panic") {
			t.Fatalf("%q: %s", rest, text)
		}
	})
}

// Connections that are gone before the kernel is asked whose they are fill no log.
func TestConnectionsOfNobodyAreOneLine(t *testing.T) {
	r := newRig(t)
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	const many = 50 // fewer than wait in a listener
	for range many {
		c, err := net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
		must(t, err)
		must(t, c.SetLinger(0)) // a reset leaves no socket
		must(t, c.Close())
	}
	done := make(chan error, 1)
	go func() { done <- r.srv.ServeTCP(l) }()
	c, err := net.Dial("tcp", l.Addr().String()) // behind them in line
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(patience)))
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "220 ") {
		t.Fatalf("%q, %v", line, err)
	}
	if n := strings.Count(r.log.String(), "connection refused"); n != 1 {
		t.Errorf("%d lines about %d connections:\n%s", n, many, r.log)
	}
	c.Close()
	l.Close()
	must(t, <-done)
}
