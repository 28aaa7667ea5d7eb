package main

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	logSocket = "/dev/log"
	// The system's log has a facility for mail; the severities are those of RFC 5424
	// §6.2.1.
	facilityMail   = 2 << 3
	severityError  = 3
	severityNotice = 5
	// maxLogLine octets of text are logged: a line to read, whatever a caller sends.
	maxLogLine = 500
)

// syslog tells the system's log at the socket path. It is where an administrator
// looks for what callers such as cron and PHP throw away. Nobody waits for it:
// where no one listens, or is slow to, nothing is said.
func syslog(path string, severity int, text string) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	text = clean(text[:min(len(text), maxLogLine)])
	line := "<" + strconv.Itoa(facilityMail|severity) + ">sendmail[" + strconv.Itoa(os.Getpid()) + "]: uid=" +
		strconv.Itoa(os.Getuid()) + ": " + text
	_ = unix.Sendto(fd, []byte(line), unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: path})
}
