package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// manager is the service manager that started us, as far as it spoke the protocols of
// sd_notify(3) and sd_listen_fds(3), which others have taken over. The zero value is
// one that did not.
type manager struct {
	socket   string        // where it wants to be told; "" is nowhere
	watchdog time.Duration // it ends us when it hears nothing for so long; 0 is never
	submit   *net.UnixListener
	ports    []*port // for programs that only speak SMTP
}

// firstPassed is the first descriptor that a service manager passes.
const firstPassed = 3

// takeManager finds out about the service manager, and keeps what is meant for us
// from the programs that we start. A runner that a front end started for the moment
// has none: what it finds is its caller's.
func takeManager(untilEmpty bool) (*manager, error) {
	m := &manager{socket: os.Getenv("NOTIFY_SOCKET")}
	if isUs(os.Getenv("WATCHDOG_PID")) {
		if usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 {
			m.watchdog = time.Duration(usec) * time.Microsecond
		}
	}
	passed := 0
	if pid := os.Getenv("LISTEN_PID"); pid != "" && isUs(pid) {
		passed, _ = strconv.Atoi(os.Getenv("LISTEN_FDS"))
	}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name) // it fails for impossible names alone
	}
	if untilEmpty {
		return new(manager), nil
	}
	for fd := firstPassed; fd < firstPassed+passed; fd++ {
		if err := m.take(fd); err != nil {
			return nil, &exitError{status: exConfig, err: fmt.Errorf("descriptor %d from the service manager: %w", fd, err)}
		}
	}
	return m, nil
}

// isUs reports whether pid is our process or, since a manager may leave it out, "".
func isUs(pid string) bool { return pid == "" || pid == strconv.Itoa(os.Getpid()) }

// take keeps one socket that was opened for us.
func (m *manager) take(fd int) error {
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "passed")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("want a socket that listens: %w", err)
	}
	switch l := l.(type) {
	case *net.UnixListener:
		if m.submit != nil {
			l.Close()
			return errors.New("want one unix socket, submit.sock in the spool directory, and this is another")
		}
		m.submit = l
	case *net.TCPListener:
		if at, ok := l.Addr().(*net.TCPAddr); !ok || !at.IP.IsLoopback() {
			l.Close()
			return fmt.Errorf("%s is not of this machine's loopback; nobody else is to send mail here", l.Addr())
		}
		m.ports = append(m.ports, &port{TCPListener: l})
	default:
		l.Close()
		return fmt.Errorf("a socket for %s is of no use here", l.Addr().Network())
	}
	return nil
}

// tell says how we do, in lines of sd_notify(3). Nothing depends on being heard.
func (m *manager) tell(lines ...string) {
	if m.socket == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: m.socket})
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(tellWait))
	_, _ = conn.Write([]byte(strings.Join(lines, "\n")))
}

// tellWait is how long we wait for a service manager that reads nothing. It is longer
// than a machine may stand still, after which what was not told would stay untold.
const tellWait = 30 * time.Second

// reloading is what systemd wants to know before READY=1 ends it.
func reloading() string {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // of that clock it cannot fail
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/int64(time.Microsecond))
}
