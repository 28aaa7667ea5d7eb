package main

import (
	"context"
	"fmt"
	"io"
	"os/user"
	"strconv"

	"postino/delivery/control"
	"postino/spool"
)

// runSuspend is the suspend command: without a user it lists who is suspended.
func runSuspend(ctx context.Context, a *app, o options, operands []string) error {
	if len(operands) > 0 || o.user == nil && o.why != "" {
		return usageError("suspend takes --uid USER, and no operands")
	}
	if o.user == nil {
		return a.query(ctx, func(w io.Writer, s source) error {
			if o.json {
				return writeLines(w, s.Suspensions(ctx))
			}
			return a.writeSuspensions(ctx, w, s)
		})
	}
	client := control.Dial(a.spool)
	defer client.Close()
	sus, err := client.Suspend(ctx, *o.user, o.why)
	if err != nil {
		return err
	}
	return a.output(func(w io.Writer) error {
		if o.json {
			return writeLine(w, sus)
		}
		_, err := fmt.Fprintf(w, "%s is suspended: its mail is accepted and held until \"postino resume --uid %d\"\n", userText(sus.UID), sus.UID)
		return err
	})
}

func (a *app) writeSuspensions(ctx context.Context, w io.Writer, s source) error {
	var failed failures
	n := 0
	for sus, err := range s.Suspensions(ctx) {
		if err != nil {
			failed.add(err)
			continue
		}
		n++
		fmt.Fprintf(w, "%s since %s by uid %d", userText(sus.UID), sus.Since.In(a.zone).Format(mailqTime), sus.By)
		if sus.Reason != "" {
			fmt.Fprintf(w, ": %s", spool.CleanText(sus.Reason))
		}
		fmt.Fprintln(w)
	}
	if err := failed.err(); n > 0 || err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "Nobody is suspended")
	return err
}

// runResume is the resume command.
func runResume(ctx context.Context, a *app, o options, operands []string) error {
	if len(operands) > 0 || o.user == nil {
		return usageError(`resume takes --uid USER: "postino suspend" lists who is suspended`)
	}
	client := control.Dial(a.spool)
	defer client.Close()
	r, err := client.Resume(ctx, *o.user)
	if err != nil {
		return err
	}
	return a.output(func(w io.Writer) error {
		if o.json {
			return writeLine(w, r)
		}
		_, err := fmt.Fprintf(w, "%s is resumed, %s released\n", userText(r.UID), messages(r.Released))
		return err
	})
}

func writeLine(w io.Writer, v any) error {
	line, err := control.Line(v)
	if err != nil {
		return err
	}
	_, err = w.Write(line)
	return err
}

// userText is a uid with its name, where it has one.
func userText(uid int) string {
	text := "uid " + strconv.Itoa(uid)
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		text += " (" + spool.CleanText(u.Username) + ")"
	}
	return text
}
