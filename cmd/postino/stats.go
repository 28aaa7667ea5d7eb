package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"postino/delivery/control"
	"postino/spool"
)

// runStats is the stats command.
func runStats(ctx context.Context, a *app, o options, operands []string) error {
	if len(operands) > 0 {
		return usageError("stats takes no operands")
	}
	if o.prometheus {
		return a.printMetrics(ctx)
	}
	return a.query(ctx, func(w io.Writer, s source) error {
		st, err := s.Stats(ctx)
		if o.json && st.Hops != nil {
			line, lineErr := control.Line(st)
			if lineErr != nil {
				return lineErr
			}
			w.Write(line)
		} else if st.Hops != nil {
			writeStats(w, &st)
		}
		return err
	})
}

// printMetrics prints what the runner counted since it started; without one there is
// nothing.
func (a *app) printMetrics(ctx context.Context) error {
	client := control.Dial(a.spool)
	defer client.Close()
	text, err := client.Metrics(ctx)
	if err != nil {
		return err
	}
	return a.output(func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
}

func writeStats(w io.Writer, st *control.Stats) {
	fmt.Fprintf(w, "messages   %d queued, %d deferred, %d held\n", st.Queued, st.Deferred, st.Held)
	for _, line := range []struct {
		name string
		control.Ended
	}{{"last hour", st.Hour}, {"last day", st.Day}} {
		fmt.Fprintf(w, "%-10s %d delivered, %d relayed, %d failed\n", line.name, line.Delivered, line.Relayed, line.Failed)
	}
	if len(st.Hops) == 0 {
		return
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "waiting\tdeferred\tdelivered\trelayed\tfailed\t  next hop (last day)")
	for _, h := range st.Hops {
		fmt.Fprintf(t, "%d\t%d\t%d\t%d\t%d\t  %s\n", h.Waiting, h.Deferred, h.Day.Delivered, h.Day.Relayed, h.Day.Failed, spool.CleanText(h.Hop))
	}
	t.Flush()
}
