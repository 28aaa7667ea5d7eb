package cmd_test

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postino/delivery/relay/servertest"
)

// byActivation starts a runner as systemd does: the first submission finds a socket,
// and nobody but a service manager behind it.
func (b *box) byActivation(t testing.TB, listen ...string) *runner {
	t.Helper()
	activate := needs(t, "systemd-socket-activate", "systemd")
	if err := os.Mkdir(filepath.Join(b.spool, "drop"), 0o733); err != nil {
		t.Fatal(err)
	}
	var args []string
	for _, l := range append([]string{filepath.Join(b.spool, "submit.sock")}, listen...) {
		args = append(args, "--listen="+l)
	}
	for _, variable := range b.env() {
		args = append(args, "--setenv="+variable)
	}
	r := b.launchBy(activate, append(args, program("postino"), "run")...)
	awaitIn(t, b.spool, "a socket", func() bool {
		return os.Chmod(filepath.Join(b.spool, "submit.sock"), 0o666) == nil
	})
	return r
}

// A socket that a service manager listens on is served: a submission that came before
// the runner is taken by way of it, the port beside it is served as well, and the name
// is still there when the runner has ended.
func TestSocketOfTheServiceManagerIsServed(t *testing.T) {
	t.Parallel()
	_, b := plainRelay(t)
	port := servertest.FreePort(t)
	r := b.byActivation(t, "127.0.0.1:"+strconv.Itoa(port))
	b.sendmail("Subject: before the runner\n\nhello\n", "-t", "-i", "alice@example.org")
	b.log.await(t, "msg=finished")
	if tr := b.trace("before the runner"); tr.Via != "socket" {
		t.Errorf("it came by way of %q, want the socket", tr.Via)
	}
	conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		t.Fatal(err)
	}
	greeting := make([]byte, 3)
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(greeting); err != nil || string(greeting) != "220" {
		t.Errorf("the port says %q, %v", greeting, err)
	}
	conn.Close()
	r.stop()
	if _, err := os.Lstat(filepath.Join(b.spool, "submit.sock")); err != nil {
		t.Errorf("the service manager's socket is gone: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(b.spool, "control.sock")); err == nil {
		t.Error("our own socket is still there")
	}
}

// What is passed and is of no use ends the runner, and says what would be.
func TestUselessSocketOfTheServiceManagerIsRefused(t *testing.T) {
	t.Parallel()
	for listen, says := range map[string]string{
		"0.0.0.0:" + strconv.Itoa(servertest.FreePort(t)): "not of this machine's loopback",
		"other": "want one unix socket",
	} {
		_, b := plainRelay(t)
		if listen == "other" {
			listen = filepath.Join(b.dir, listen)
		}
		r := b.byActivation(t, listen)
		b.sendmail("Subject: x\n\nhello\n", "alice@example.org")
		if code := r.wait(); code != 78 {
			t.Errorf("%s: status %d, want 78", listen, code)
		}
		b.log.await(t, "descriptor 4 from the service manager", says)
		if n := b.drops(); n != 1 {
			t.Errorf("%s: %d drop files, want the message", listen, n)
		}
	}
}

// The service manager is told when mail is taken, that we live, of a reload and of the
// end, and none of it is for the programs that we start.
func TestServiceManagerIsTold(t *testing.T) {
	t.Parallel()
	_, b := plainRelay(t)
	path := filepath.Join(b.dir, "notify")
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	heard := newLines()
	go func() {
		message := make([]byte, 4096)
		for {
			n, err := told.Read(message)
			if err != nil {
				return // the test has ended
			}
			_, _ = heard.Write([]byte(strings.ReplaceAll(string(message[:n]), "\n", " ") + "\n"))
		}
	}()
	r := b.launchBy("/usr/bin/env", "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=300000", program("postino"), "run")
	heard.await(t, "READY=1", "STATUS=mode deliver, 0 messages")
	if !b.accepts("submit.sock") {
		t.Error("ready, and nobody takes mail")
	}
	heard.awaitN(t, 3, "WATCHDOG=1")
	ready := heard.count("READY=1")
	if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	heard.await(t, "RELOADING=1", "MONOTONIC_USEC=")
	heard.awaitN(t, ready+1, "READY=1")
	r.stop()
	heard.await(t, "STOPPING=1")
}
