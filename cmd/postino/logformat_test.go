package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postino/config"
	"postino/spool"
)

// logged is what a log in that form has to say to a target of what say does.
func logged(format config.LogFormat, target config.LogTarget, say func(*slog.Logger)) string {
	var out bytes.Buffer
	w := newLogWriter(&out)
	c := config.Default()
	c.Hostname, c.Log.Format = "web1.example.com", format
	say(newLogger(w, target, c, time.UTC))
	w.close()
	<-w.done // which close waits for only so long
	return out.String()
}

func someMail(log *slog.Logger) {
	id, report := spool.ID(0x6611539AF8043854), spool.ID(0x6611539AF8B6FAF9)
	log.Info("accepted", "id", id, "from", "ann@sender.test", "rcpts", 2, "size", 267, "via", "socket", "uid", 33)
	attempt := log.With("id", id, "hop", "relay mx1.test:25", "took", 30*time.Millisecond, "age", 1230*time.Millisecond, "host", "mx1.test[192.0.2.1]:25")
	attempt.Info("attempt", "rcpt", "bob@x.test", "reply", "250 2.0.0 Ok: queued as Q1", "status", "relayed", "n", 1)
	attempt.Info("attempt", "rcpt", "no@x.test", "reply", "550 5.1.1 No such user", "status", "failed", "n", 1)
	log.Info("attempt", "id", id, "hop", "mx x.test", "rcpt", "late@x.test", "reply", "4.4.1 connection refused", "took", 0, "status", "deferred", "n", 1)
	log.Info("attempt", "id", id, "hop", "aliases /etc/aliases", "rcpt", "team@x.test", "reply", "2.0.0 alias for a, b", "took", 0, "status", "expanded", "n", 1)
	log.Info("attempt", "id", id, "hop", "maildir:/home/{user}/Maildir", "rcpt", "ann@here.test", "reply", "2.0.0 in the mailbox", "took", 0, "status", "delivered", "n", 1)
	log.Info("report", "id", id, "report", report, "action", "failed", "to", "ann@sender.test", "size", 2000, "gathered", false)
	log.Info("finished", "id", id, "age", time.Second)
	log.Error("history not trimmed", "err", errors.New("a\nb"))
}

// The lines of Postfix's log, as its readers know them.
func TestLogInPostfixsWords(t *testing.T) {
	t.Parallel()
	text := logged(config.LogPostfix, config.LogStderr, someMail)
	var got []string
	for l := range strings.Lines(text) {
		l = strings.TrimSuffix(l, "\n")
		if _, err := time.Parse(time.Stamp, l[:len(time.Stamp)]); err != nil {
			t.Errorf("%q: %v", l, err)
		}
		program, rest, _ := strings.Cut(strings.TrimPrefix(l[len(time.Stamp):], " web1 "), "[")
		_, rest, _ = strings.Cut(rest, "]: ")
		got = append(got, program+" "+rest)
	}
	const id = "6611539AF8043854: "
	want := []string{
		"postfix/pickup " + id + "uid=33 from=<ann@sender.test>",
		"postfix/qmgr " + id + "from=<ann@sender.test>, size=267, nrcpt=2 (queue active)",
		"postfix/smtp " + id + "to=<bob@x.test>, relay=mx1.test[192.0.2.1]:25, delay=1.23, delays=1.20/0/0/0.03, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as Q1)",
		"postfix/smtp " + id + "to=<no@x.test>, relay=mx1.test[192.0.2.1]:25, delay=1.23, delays=1.20/0/0/0.03, dsn=5.1.1, status=bounced (host mx1.test[192.0.2.1]:25 said: 550 5.1.1 No such user)",
		"postfix/smtp " + id + "to=<late@x.test>, relay=none, delay=0, delays=0/0/0/0, dsn=4.4.1, status=deferred (4.4.1 connection refused)",
		"postfix/local " + id + "to=<ann@here.test>, relay=local, delay=0, delays=0/0/0/0, dsn=2.0.0, status=sent (2.0.0 in the mailbox)",
		"postfix/bounce " + id + "sender non-delivery notification: 6611539AF8B6FAF9",
		"postfix/qmgr 6611539AF8B6FAF9: from=<>, size=2000, nrcpt=1 (queue active)",
		"postfix/qmgr " + id + "removed",
		"postfix/master warning: history not trimmed err=a b",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// One object a line, whatever is said.
func TestLogInJSON(t *testing.T) {
	t.Parallel()
	n := 0
	for l := range strings.Lines(logged(config.LogJSON, config.LogStderr, someMail)) {
		var v struct{ Time, Level, Msg, ID, Rcpt string }
		if err := json.Unmarshal([]byte(l), &v); err != nil || v.Time == "" || v.Msg == "" {
			t.Errorf("%q: %v", l, err)
		}
		n++
	}
	if n != 9 {
		t.Errorf("%d lines, want 9", n)
	}
}

// syslog gets a line a datagram with the mail facility, the journal its fields, and
// standard error what neither can be told; a daemon that comes back gets the rest.
func TestLogGoesToSyslogAndTheJournal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		target config.LogTarget
		end    byte
		want   []string
	}{
		{config.LogSyslog, '\n', []string{"<22>", " postino[", "]: msg=accepted id=6611539AF8043854 from=ann@sender.test"}},
		{config.LogJournal, endOfEntry, []string{"\nPRIORITY=6\n", "\nSYSLOG_FACILITY=2\nSYSLOG_IDENTIFIER=postino\n", "\nPOSTINO_ID=6611539AF8043854\n", "\nPOSTINO_FROM=ann@sender.test\n", "MESSAGE=msg=accepted id="}},
	} {
		path := filepath.Join(t.TempDir(), "log")
		listen := func() *net.UnixConn {
			c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(patience))
			return c
		}
		daemon := listen()
		var stderr bytes.Buffer
		out := &datagrams{path: path, end: tt.end, instead: &stderr}
		text := logged(config.LogText, tt.target, someMail)
		_, _ = out.Write([]byte(text))
		buf := make([]byte, maxDatagram)
		for i := range 9 {
			n, err := daemon.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if i == 0 && !strings.Contains("\n"+string(buf[:n]), want) {
					t.Errorf("%s: %q lacks %q", tt.target, buf[:n], want)
				}
			}
		}
		daemon.Close()
		_, _ = out.Write(append([]byte("meanwhile"), tt.end))
		if stderr.String() != "meanwhile\n" {
			t.Errorf("%s: without a daemon standard error has %q", tt.target, stderr.String())
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		daemon = listen()
		_, _ = out.Write(append([]byte("again"), tt.end))
		if n, err := daemon.Read(buf); err != nil || string(buf[:n]) != "again" {
			t.Errorf("%s: a new daemon got %q, %v", tt.target, buf[:n], err)
		}
		daemon.Close()
	}
}
