package cmd_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postino/spool/standstill"
)

// late ends a test whose patience has ended, with what all that it has started is doing.
func late(t testing.TB, what string) {
	t.Helper()
	t.Fatalf("%s: not within %v\n%s", what, patience, standstill.Of(os.Getpid()))
}

// limited has a process that has not ended after limit killed, once the test has failed
// with what that was doing. Whoever has waited for its end calls stop, which ends a test
// that has failed so.
func limited(t testing.TB, cmd *exec.Cmd, limit time.Duration) (stop func()) {
	timer := time.AfterFunc(limit, func() {
		t.Errorf("%v: not done within %v\n%s", cmd.Args, limit, standstill.Of(cmd.Process.Pid))
		_ = cmd.Process.Kill() // it may have ended just now
	})
	return func() {
		if !timer.Stop() {
			t.FailNow()
		}
	}
}

// lines is what a process says, for as long as a test lasts.
type lines struct {
	mu      sync.Mutex
	text    strings.Builder // guarded by mu
	changed chan struct{}   // closed at each write and replaced; guarded by mu
}

func newLines() *lines { return &lines{changed: make(chan struct{})} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	return l.text.Write(p)
}

// String is all that was said.
func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// count is how many lines have all these words in them.
func (l *lines) count(words ...string) int {
	text := l.String()
	n := 0
	for line := range strings.Lines(text[:strings.LastIndexByte(text, '\n')+1]) {
		if hasAll(line, words) {
			n++
		}
	}
	return n
}

// await waits for a line with all these words in it.
func (l *lines) await(t testing.TB, words ...string) {
	t.Helper()
	l.awaitN(t, 1, words...)
}

// awaitN waits for the nth such line.
func (l *lines) awaitN(t testing.TB, n int, words ...string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		if l.count(words...) >= n {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			late(t, fmt.Sprintf("%d lines with %q", n, words))
		}
	}
}

func hasAll(s string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(s, w) {
			return false
		}
	}
	return true
}

// awaitIn waits until cond holds, and looks each time something changes in dir.
func awaitIn(t testing.TB, dir, what string, cond func() bool) {
	t.Helper()
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer events.Close()
	const any = syscall.IN_CREATE | syscall.IN_DELETE | syscall.IN_ATTRIB | syscall.IN_MODIFY |
		syscall.IN_CLOSE_WRITE | syscall.IN_MOVED_TO | syscall.IN_MOVED_FROM
	if _, err := syscall.InotifyAddWatch(fd, dir, any); err != nil {
		t.Fatal(err)
	}
	if err := events.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	for !cond() {
		if _, err := events.Read(buf); errors.Is(err, os.ErrDeadlineExceeded) {
			late(t, what)
		} else if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// poll waits until cond holds where nothing announces it.
func poll(t testing.TB, what string, cond func() bool) {
	t.Helper()
	const interval = 20 * time.Millisecond
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			late(t, what)
		}
		time.Sleep(interval)
	}
}
