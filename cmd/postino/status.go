package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"postino/delivery/control"
	"postino/spool"
)

// runStatus is the status command.
func runStatus(ctx context.Context, a *app, o options, operands []string) error {
	if len(operands) > 0 {
		return usageError("status takes no operands")
	}
	client := control.Dial(a.spool)
	defer client.Close()
	st, err := client.Status(ctx)
	if err != nil {
		return err
	}
	return a.output(func(w io.Writer) error {
		if o.json {
			line, err := control.Line(st)
			w.Write(line)
			return err
		}
		for _, line := range statusLines(a.spool, st) {
			fmt.Fprintln(w, spool.CleanText(line))
		}
		return nil
	})
}

// statusLines is st as people read it.
func statusLines(dir string, st control.Status) []string {
	lines := []string{
		fmt.Sprintf("postino %s runs as pid %d since %s", st.Version, st.PID, (time.Duration(st.UptimeMS) * time.Millisecond).Round(time.Second)),
		"spool: " + dir,
		"mode: " + st.Mode,
		fmt.Sprintf("pending: %d", st.Pending),
	}
	for _, warning := range st.Warnings {
		lines = append(lines, "warning: "+warning)
	}
	for _, a := range st.Alerts {
		whose := ""
		if a.Sender != "" {
			whose = " from " + a.Sender
		}
		lines = append(lines,
			fmt.Sprintf("alert: mail%s for %s waits since %s: %s", whose, a.Hop, a.Since.Format(time.RFC3339), a.Reply),
			fmt.Sprintf("remedy: %s (tried again at %s, or at once by postino retry --all)", a.Remedy, a.Next.Format(time.RFC3339)))
	}
	return lines
}
