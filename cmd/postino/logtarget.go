package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"postino/config"
)

const (
	syslogSocket  = "/dev/log"
	journalSocket = "/run/systemd/journal/socket"
	// facilityMail is LOG_MAIL of syslog(3).
	facilityMail = 2
	// maxDatagram is how many octets of a line go to syslog or the journal: what their
	// sockets take, and more than any reply has.
	maxDatagram = 32 << 10
	// logPatience bounds one write to syslog or the journal.
	logPatience = 5 * time.Second
)

// logTarget is where the configuration and our surroundings have the log go. What
// nobody reads on standard error is for the journal or syslog.
func logTarget(to config.LogTarget, untilEmpty bool, stderr *os.File, journalStream string) config.LogTarget {
	switch {
	case to != config.LogAuto:
		return to
	case isJournal(stderr, journalStream):
		return config.LogJournal
	case !untilEmpty && isDevNull(stderr) && isSocket(syslogSocket):
		return config.LogSyslog
	}
	return config.LogStderr
}

// toTarget is where lines for a target are written; out is what there is without one.
func toTarget(to config.LogTarget, out io.Writer) io.Writer {
	switch to {
	case config.LogSyslog:
		return &datagrams{path: syslogSocket, end: '\n', instead: out}
	case config.LogJournal:
		return &datagrams{path: journalSocket, end: endOfEntry, instead: out}
	}
	return out
}

// isJournal reports whether a file is the stream that systemd made for our log.
func isJournal(f *os.File, stream string) bool {
	var st unix.Stat_t
	return stream != "" && unix.Fstat(int(f.Fd()), &st) == nil && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino) && isSocket(journalSocket)
}

func isSocket(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK
}

// newLogger is the runner's log, in the form that the configuration names.
func newLogger(w *logWriter, target config.LogTarget, c *config.Config, zone *time.Location) *slog.Logger {
	host, _, _ := strings.Cut(c.Hostname, ".")
	write := func(l line) {
		text := l.text
		if !l.whole {
			text = l.stamp(zone, host)
		}
		w.Write([]byte(text + "\n"))
	}
	switch target {
	case config.LogSyslog:
		write = func(l line) {
			w.Write([]byte(fmt.Sprintf("<%d>%s %s[%d]: %s\n", facilityMail<<3|priority(l.entry.Level), l.entry.Time.In(zone).Format(time.Stamp),
				l.ident, os.Getpid(), l.text)))
		}
	case config.LogJournal:
		write = func(l line) { w.Write(journalEntry(l)) }
	}
	h := formatter(c.Log.Format, target != config.LogStderr, write)
	w.lostLines = func(n int) { slog.New(h).Warn("log lines lost", "n", n) }
	return slog.New(h)
}

// priority is the severity of syslog(3).
func priority(level slog.Level) int {
	switch {
	case level >= slog.LevelError:
		return 3
	case level >= slog.LevelWarn:
		return 4
	case level >= slog.LevelInfo:
		return 6
	}
	return 7
}

// endOfEntry divides entries of the journal on their way; no field has it.
const endOfEntry = 0

// journalEntry is a line in the journal's own protocol, with what is known of it as
// fields: "journalctl POSTINO_ID=...".
func journalEntry(l line) []byte {
	var b bytes.Buffer
	field := func(name, value string) {
		fmt.Fprintf(&b, "%s=%s\n", name, strings.Map(func(c rune) rune {
			if c == '\n' || c == endOfEntry {
				return ' '
			}
			return c
		}, value))
	}
	field("MESSAGE", l.text)
	field("PRIORITY", fmt.Sprint(priority(l.entry.Level)))
	field("SYSLOG_FACILITY", fmt.Sprint(facilityMail))
	field("SYSLOG_IDENTIFIER", l.ident)
	if l.entry.ID != 0 {
		field("POSTINO_ID", l.entry.ID.String())
	}
	for _, a := range l.entry.Attrs {
		field("POSTINO_"+strings.ToUpper(a.Key), a.Value.String())
	}
	b.WriteByte(endOfEntry)
	return b.Bytes()
}

// datagrams sends each line, or entry, that is written to a socket as a datagram. The
// daemon behind it may be restarted; while it cannot be reached, and it is tried once
// for each write, lines go to instead.
type datagrams struct {
	path    string
	end     byte // of a line
	instead io.Writer
	conn    net.Conn
}

// Write is called by one goroutine. It always succeeds.
func (d *datagrams) Write(p []byte) (int, error) {
	for text := range bytes.SplitAfterSeq(p, []byte{d.end}) {
		text = bytes.TrimSuffix(text, []byte{d.end})
		if len(text) > 0 && d.send(text[:min(len(text), maxDatagram)]) != nil {
			_, _ = d.instead.Write(append(bytes.ReplaceAll(text, []byte("\n"), []byte(" ")), '\n'))
		}
	}
	return len(p), nil
}

func (d *datagrams) send(text []byte) error {
	var err error
	for range 2 { // the second time over a new socket
		if d.conn == nil {
			if d.conn, err = net.DialTimeout("unixgram", d.path, logPatience); err != nil {
				d.conn = nil
				return err
			}
		}
		if err = d.conn.SetWriteDeadline(time.Now().Add(logPatience)); err == nil {
			_, err = d.conn.Write(text)
		}
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		d.conn.Close()
		d.conn = nil
	}
	return err
}
