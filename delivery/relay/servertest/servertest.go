// Package servertest starts servers that others wrote, on this machine's loopback and
// with a configuration of the test's own. It is for tests.
package servertest

import (
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

const (
	// readyWait is how long a server may take until it listens, on a busy machine, and
	// on one that stands still for a while.
	readyWait = 2 * time.Minute
	readyPoll = 20 * time.Millisecond
	// endWait is how long one may take to end when it is told to.
	endWait = 10 * time.Second
)

// Missing skips a test for want of something; with CI=true that is a failure.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// Needs skips a test that is not run by root, or without the file at path, which the
// Debian package pkg has.
func Needs(t testing.TB, path, pkg string) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "only root can start %s", path)
	}
	if _, err := os.Stat(path); err != nil {
		Missing(t, "%v: apt-get install %s", err, pkg)
	}
}

// Write makes a file below dir that everybody can read, and the directories to it. It
// returns the file's path.
func Write(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// Mkdir makes a directory below dir that belongs to uid. It returns its path.
func Mkdir(t testing.TB, dir, name string, uid int) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, uid, 0); err != nil {
		t.Fatal(err)
	}
	return path
}

// UID is that of a user of the system.
func UID(t testing.TB, name string) int {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		Missing(t, "%v", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	return uid
}

// FreePort is a port that is free on all addresses of the loopback, for now.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Listens reports whether somebody does.
func Listens(network, address string) bool {
	conn, err := net.Dial(network, address)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// Daemon runs a server in the foreground, in a process group of its own, until the
// test ends, and returns when it is ready. What it says goes to the end of the file
// log, and from there to the test's log when that fails.
func Daemon(t testing.TB, log string, ready func() bool, program string, args ...string) *os.Process {
	t.Helper()
	out, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is told to end
	}()
	t.Cleanup(func() {
		end(cmd.Process.Pid, ended)
		if text, err := os.ReadFile(log); err == nil && t.Failed() {
			t.Logf("%s says:\n%s", program, text)
		}
	})
	for last := time.Now().Add(readyWait); !ready(); time.Sleep(readyPoll) {
		select {
		case <-ended:
			t.Fatalf("%s has ended: %v", program, cmd.ProcessState)
		default:
		}
		if time.Now().After(last) {
			t.Fatalf("%s is not ready after %v", program, readyWait)
		}
	}
	return cmd.Process
}

// end ends the process group pid, unless its first process has ended by itself: then
// somebody else may have that number.
func end(pid int, ended <-chan struct{}) {
	select {
	case <-ended:
		return
	default:
	}
	_ = syscall.Kill(-pid, syscall.SIGTERM) // it may be about to end
	select {
	case <-ended:
	case <-time.After(endWait):
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL) // its children may be left
	<-ended
}
