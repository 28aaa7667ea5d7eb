package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"time"

	"postino/delivery/control"
)

const (
	// logLines is how many lines are printed where the caller does not say, and
	// followLines how many before those that follow.
	logLines    = 1000
	followLines = 10
	// followPoll is how often a follower looks for the next runner.
	followPoll = time.Second
)

// runLog is the log command.
func runLog(ctx context.Context, a *app, o options, operands []string) error {
	q := control.LogQuery{Selection: o.selection, Since: o.since, Lines: o.lines, Follow: o.follow}
	var err error
	if q.Selection.IDs, err = parseIDs(operands); err != nil {
		return err
	}
	if len(operands) > maxLogIDs {
		return usageError("log takes at most %d queue IDs", maxLogIDs)
	}
	switch {
	case q.Lines == 0 && q.Follow && q.Since.IsZero():
		q.Lines = followLines
	case q.Lines == 0 && q.Since.IsZero():
		q.Lines = logLines
	}
	p := entryPrinter{w: a.stdout, zone: a.zone, json: o.json}
	if o.follow {
		return a.follow(ctx, q, &p)
	}
	return a.query(ctx, func(w io.Writer, s source) error {
		p.w = w
		return p.print(s.Log(ctx, q))
	})
}

// maxLogIDs is how many messages one question about the log may name.
const maxLogIDs = 500

// follow prints lines until somebody interrupts us. When the runner ends it waits
// for the next one.
func (a *app) follow(ctx context.Context, q control.LogQuery, p *entryPrinter) error {
	for first := true; ; first = false {
		client := control.Dial(a.spool)
		err := p.print(client.Log(ctx, q))
		client.Close()
		if p.failed != nil || ctx.Err() != nil || first && err != nil && !errors.Is(err, control.ErrNoRunner) {
			return errors.Join(err, p.failed)
		}
		fmt.Fprintf(a.stderr, "%s: the runner is not running: waiting for it\n", a.name)
		if !p.last.IsZero() { // on with what came behind the last line
			q.Since, q.Lines = p.last.Add(1), 0
		}
		if err := a.awaitAnswer(ctx); err != nil {
			return err
		}
	}
}

// awaitAnswer returns when a runner answers.
func (a *app) awaitAnswer(ctx context.Context) error {
	client := control.Dial(a.spool)
	defer client.Close()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(followPoll):
		}
		if _, err := client.Status(ctx); !errors.Is(err, control.ErrNoRunner) {
			return err
		}
	}
}

// entryPrinter prints lines of the log.
type entryPrinter struct {
	w      io.Writer
	zone   *time.Location
	json   bool
	last   time.Time // of the newest line
	failed error     // of writing
}

// print prints what entries yields; the error is one of reading.
func (p *entryPrinter) print(entries iter.Seq2[control.Entry, error]) error {
	var failed failures
	for e, err := range entries {
		if err != nil {
			failed.add(err)
			continue
		}
		if p.failed = p.line(e); p.failed != nil {
			break
		}
		if e.Time.After(p.last) {
			p.last = e.Time
		}
	}
	return failed.err()
}

// line prints one line as the runner's log has it.
func (p *entryPrinter) line(e control.Entry) error {
	if p.json {
		line, err := control.Line(e)
		if err == nil {
			_, err = p.w.Write(line)
		}
		return err
	}
	e.Time = e.Time.In(p.zone)
	return slog.NewTextHandler(p.w, nil).Handle(context.Background(), e.Record())
}
