package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"postino/delivery"
	"postino/delivery/control"
	"postino/spool"
)

// runHosts is the hosts command. Without a runner it reads what the last one stored.
func runHosts(ctx context.Context, a *app, o options, operands []string) error {
	if len(operands) > 0 {
		return usageError(`hosts takes no operands: "hosts --forget HOST" forgets one`)
	}
	if o.host != "" {
		return forgetHost(ctx, a, o)
	}
	client := control.Dial(a.spool)
	defer client.Close()
	list, err := client.Hosts(ctx)
	if errors.Is(err, control.ErrNoRunner) {
		list, err = storedHosts(a.spool)
	}
	if err != nil {
		return err
	}
	return a.output(func(w io.Writer) error {
		if !o.json {
			return a.writeHosts(w, list)
		}
		for _, h := range list {
			if err := writeLine(w, h); err != nil {
				return err
			}
		}
		return nil
	})
}

func forgetHost(ctx context.Context, a *app, o options) error {
	client := control.Dial(a.spool)
	defer client.Close()
	f, err := client.ForgetHost(ctx, o.host)
	if err != nil {
		return err
	}
	return a.output(func(w io.Writer) error {
		if o.json {
			return writeLine(w, f)
		}
		_, err := fmt.Fprintf(w, "%d hosts forgotten\n", f.Hosts)
		return err
	})
}

func storedHosts(dir string) ([]control.Host, error) {
	known, err := delivery.StoredHosts(dir)
	if err != nil {
		return nil, err
	}
	var list []control.Host
	for _, h := range known {
		list = append(list, control.NewHost(h, time.Now()))
	}
	return list, nil
}

// writeHosts prints a line for each host: what it is, how it is, and why.
func (a *app) writeHosts(w io.Writer, list []control.Host) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "Nothing is known of any host")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "HOST\tKIND\tSTATE\tLAST MESSAGE\tREMARKS")
	for _, h := range list {
		last := "-"
		if !h.LastSuccess.IsZero() {
			last = h.LastSuccess.In(a.zone).Format(mailqTime)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", spool.CleanText(h.Host), h.Kind, h.State, last, spool.CleanText(strings.Join(a.remarks(h), "; ")))
	}
	return table.Flush()
}

func (a *app) remarks(h control.Host) []string {
	var list []string
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	at := func(t time.Time) string { return t.In(a.zone).Format(mailqTime) }
	if h.Sender != "" {
		add("mail from %s", h.Sender)
	}
	switch h.State {
	case control.HostDown:
		add("left alone until %s, failures: %d", at(h.Until), h.Failures)
	case control.HostShut:
		add("since %s, tried again at %s", at(h.LastFailure), at(h.Until))
	case control.HostFailing:
		add("failures: %d", h.Failures)
	}
	if h.Connections > 0 {
		add("bears %d connections", h.Connections)
	}
	if !h.PlaintextUntil.IsZero() {
		add("its TLS is broken, without until %s", at(h.PlaintextUntil))
	}
	if h.LastError != "" && h.State == control.HostOK && !h.LastFailure.IsZero() {
		add("failed at %s", at(h.LastFailure))
	}
	if h.LastError != "" {
		list = append(list, h.LastError)
	}
	if h.Remedy != "" {
		add("remedy: %s", h.Remedy)
	}
	return list
}
