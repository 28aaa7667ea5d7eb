package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"postino/config"
	"postino/delivery/control"
	"postino/spool"
)

// line is one line of log on its way to a target.
type line struct {
	ident string // "postino", or the program of Postfix that would have said it
	text  string // without the time, unless the form has one of its own
	whole bool   // text has the time and all, for targets without a header of their own
	entry control.Entry
}

// formatter makes lines of log of what happens, in a form that the configuration names.
// stamped says that the target writes time and level itself.
func formatter(format config.LogFormat, stamped bool, write func(line)) slog.Handler {
	if format == config.LogPostfix {
		return control.Tee(slog.DiscardHandler, func(e control.Entry) {
			for _, l := range postfixLines(e) {
				l.entry = e
				write(l)
			}
		})
	}
	return control.Tee(slog.DiscardHandler, func(e control.Entry) {
		write(line{ident: "postino", text: formatted(format, stamped, e), whole: true, entry: e})
	})
}

// formatted is e as log/slog writes it.
func formatted(format config.LogFormat, stamped bool, e control.Entry) string {
	var b strings.Builder
	o := &slog.HandlerOptions{Level: slog.LevelDebug}
	var h slog.Handler = slog.NewJSONHandler(&b, o)
	if format == config.LogText {
		if stamped {
			o.ReplaceAttr = func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey || a.Key == slog.LevelKey && e.Level == slog.LevelInfo {
					return slog.Attr{}
				}
				return a
			}
		}
		h = slog.NewTextHandler(&b, o)
	}
	_ = h.Handle(context.Background(), e.Record()) // a Builder takes all
	return strings.TrimSuffix(b.String(), "\n")
}

// postfixLines is e in the words of Postfix, as far as it has words for it: those of
// pflogsumm, mailgraph and logwatch.
func postfixLines(e control.Entry) []line {
	at := make(map[string]string)
	for _, a := range e.Attrs {
		at[a.Key] = a.Value.String()
	}
	id := e.ID.String() + ": "
	queued := func(id, from, size, rcpts string) line {
		return line{ident: "postfix/qmgr", text: fmt.Sprintf("%s: from=<%s>, size=%s, nrcpt=%s (queue active)", id, from, size, rcpts)}
	}
	switch e.Msg {
	case "accepted":
		first := line{ident: "postfix/pickup", text: fmt.Sprintf("%suid=%s from=<%s>", id, at["uid"], at["from"])}
		if at["via"] == string(spool.ViaTCP) {
			first = line{ident: "postfix/smtpd", text: id + "client=localhost[127.0.0.1]"}
		}
		return []line{first, queued(e.ID.String(), at["from"], at["size"], at["rcpts"])}
	case "report":
		bounce := "sender non-delivery notification"
		switch at["action"] {
		case "delayed":
			bounce = "sender delay notification"
		case "failed":
		default:
			bounce = "sender delivery status notification"
		}
		return []line{{ident: "postfix/bounce", text: id + bounce + ": " + at["report"]}, queued(at["report"], "", at["size"], "1")}
	case "digest":
		return []line{queued(e.ID.String(), "", at["size"], "1")}
	case "attempt":
		if at["status"] == string(spool.Expanded) {
			return nil // its children tell
		}
		return []line{postfixAttempt(id, at)}
	case "finished":
		return []line{{ident: "postfix/qmgr", text: id + "removed"}}
	}
	text := e.Msg
	for _, a := range e.Attrs {
		text += " " + a.Key + "=" + a.Value.String()
	}
	if e.Level >= slog.LevelWarn {
		text = "warning: " + text
	}
	if e.ID != 0 {
		text = id + text
	}
	return []line{{ident: "postfix/master", text: text}}
}

// postfixAttempt is what became of one recipient.
func postfixAttempt(id string, at map[string]string) line {
	kind, _, _ := strings.Cut(at["hop"], " ")
	program, _, _ := strings.Cut(kind, ":")
	relay := at["host"]
	switch program {
	case "relay", "mx":
		program = "smtp"
	case "lmtp":
	case "maildir", "mbox", "capture":
		program, relay = "local", "local"
	default:
		program = "error"
	}
	if relay == "" {
		relay = "none"
	}
	status := map[string]string{string(spool.Delivered): "sent", string(spool.Relayed): "sent", string(spool.Deferred): "deferred", string(spool.Failed): "bounced"}[at["status"]]
	reply := at["reply"] // "550 5.1.1 No such user", or without the code
	dsn, _, _ := strings.Cut(reply, " ")
	if len(dsn) == 3 {
		_, rest, _ := strings.Cut(reply, " ")
		dsn, _, _ = strings.Cut(rest, " ")
		if status != "sent" {
			reply = "host " + at["host"] + " said: " + reply
		}
	}
	age, took := duration(at["age"]), duration(at["took"])
	return line{ident: "postfix/" + program, text: fmt.Sprintf("%sto=<%s>, relay=%s, delay=%s, delays=%s/0/0/%s, dsn=%s, status=%s (%s)",
		id, at["rcpt"], relay, seconds(age), seconds(age-took), seconds(took), dsn, status, reply)}
}

func duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0
	}
	return d
}

func seconds(d time.Duration) string {
	return strings.TrimSuffix(fmt.Sprintf("%.2f", max(d, 0).Seconds()), ".00")
}

// stamp is a line as syslog(3) has it in files: time, host, program, process.
func (l line) stamp(zone *time.Location, host string) string {
	return fmt.Sprintf("%s %s %s[%d]: %s", l.entry.Time.In(zone).Format(time.Stamp), host, l.ident, os.Getpid(), l.text)
}
