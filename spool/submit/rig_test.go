package submit_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postino/spool"
	"postino/spool/spooltest"
	"postino/spool/standstill"
	"postino/spool/submit"
)

// rig is a spool with a server on its socket and drop directory.
type rig struct {
	t     testing.TB
	dir   string
	spool *spool.Spool
	srv   *submit.Server
	log   *logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// patience is how long a test waits before it fails, longer than a machine may stand
// still. Only a broken program has it waited for.
const patience = 3 * time.Minute

var testPolicy = submit.Policy{Hostname: "host.test", Domain: "dom.test", MaxMessageSize: 2 << 20, MaxRecipients: 5}

func newRig(t testing.TB) *rig {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "drop"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: dir, log: new(logBuffer)}
	r.spool = spooltest.Open(t, dir, spool.Options{})
	r.srv = submit.New(r.spool, testPolicy, slog.New(slog.NewTextHandler(r.log, nil)))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.srv.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		l.Close() // the server may not have got to it yet
		r.srv.Shutdown(ctx)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// talk sends everything in one write, as the front end does, and returns the
// replies' last lines.
func (r *rig) talk(session string) []string {
	r.t.Helper()
	c, err := net.Dial("unix", filepath.Join(r.dir, "s"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, session); err != nil {
		r.t.Fatal(err)
	}
	_ = c.(*net.UnixConn).CloseWrite()
	var last []string
	s := bufio.NewScanner(c)
	for s.Scan() {
		// 421 is what the server says to a client that hangs up without QUIT.
		if line := s.Text(); len(line) > 3 && line[3] == ' ' && !strings.HasPrefix(line, "421 4.4.0") {
			last = append(last, line)
		}
	}
	r.inTime(s.Err())
	return last
}

// inTime ends a test whose err is that its patience ended.
func (r *rig) inTime(err error) {
	r.t.Helper()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		r.t.Fatalf("the server is silent for %v; log:\n%s\n%s", patience, r.log, standstill.Here())
	}
}

// ends waits for the end of something that goes on beside the test.
func (r *rig) ends(what string, end <-chan struct{}) {
	r.t.Helper()
	select {
	case <-end:
	case <-time.After(patience):
		r.t.Fatalf("%s: not within %v; log:\n%s\n%s", what, patience, r.log, standstill.Here())
	}
}

// recorded is a session as the front end writes it.
func recorded(name, from string, rcpts []string, content string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "EHLO %s.submission.invalid\r\nMAIL FROM:<%s> SIZE=%d\r\n", name, from, len(content))
	for _, rcpt := range rcpts {
		fmt.Fprintf(&b, "RCPT TO:<%s>\r\n", rcpt)
	}
	fmt.Fprintf(&b, "BDAT %d LAST\r\n%s", len(content), content)
	return b.String()
}

func (r *rig) messages() []*spool.Message {
	r.t.Helper()
	var list []*spool.Message
	for m, err := range r.spool.Queue() {
		if err != nil {
			r.t.Fatal(err)
		}
		list = append(list, m)
	}
	return list
}

func (r *rig) content(m *spool.Message) string {
	r.t.Helper()
	c, err := r.spool.Content(m)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

func (r *rig) drop(name, session string) {
	r.t.Helper()
	tmp := filepath.Join(r.dir, "x."+name)
	if err := os.WriteFile(tmp, []byte(session), 0o640); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(r.dir, "drop", name)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) scan() {
	r.t.Helper()
	if err := r.srv.ScanDrops(context.Background()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) dropped() []string {
	r.t.Helper()
	entries, err := os.ReadDir(filepath.Join(r.dir, "drop"))
	if err != nil {
		r.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
