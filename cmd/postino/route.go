package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"

	"postino/delivery"
	"postino/delivery/control"
	"postino/spool"
	"postino/spool/address"
)

// runRoute is the route command, and sendmail -bv: where mail for each address
// would go, without sending any.
func runRoute(ctx context.Context, a *app, o options, operands []string) error {
	if len(operands) == 0 {
		return usageError("route needs an address")
	}
	ask, end := a.router(ctx)
	defer end()
	return a.output(func(w io.Writer) error {
		var failed failures
		for _, operand := range operands {
			list, err := address.ParseList(operand)
			if err == nil && len(list) == 0 {
				err = errors.New("it names nobody")
			}
			if err != nil {
				failed.add(&exitError{status: exNoUser, err: fmt.Errorf("%q: %w", operand, err)})
				continue
			}
			for _, to := range list {
				for r, err := range ask(to) {
					if err == nil {
						err = printRoute(w, r, o.json)
					}
					if err != nil {
						return err
					}
				}
			}
		}
		return failed.err()
	})
}

func printRoute(w io.Writer, r control.Route, asJSON bool) error {
	text := r.Address + ": " + r.Hop
	switch {
	case r.TLS != "":
		text += " (TLS: " + r.TLS + ")"
	case r.Problem != "":
		text += " (" + r.Problem + ")"
	}
	line := []byte(spool.CleanText(text) + "\n")
	if asJSON {
		var err error
		if line, err = control.Line(r); err != nil {
			return err
		}
	}
	_, err := w.Write(line)
	return err
}

// router asks the runner for routes or, where there is none, the configuration.
func (a *app) router(ctx context.Context) (ask func(address.Address) iter.Seq2[control.Route, error], end func()) {
	client := control.Dial(a.spool)
	return func(to address.Address) iter.Seq2[control.Route, error] {
		return func(yield func(control.Route, error) bool) {
			for r, err := range client.Route(ctx, to) {
				if errors.Is(err, control.ErrNoRunner) {
					a.ownRoutes(ctx, to, yield)
					return
				}
				if !yield(r, err) {
					return
				}
			}
		}
	}, client.Close
}

// ownRoutes are those that the configuration says, without a runner.
func (a *app) ownRoutes(ctx context.Context, to address.Address, yield func(control.Route, error) bool) {
	own, err := a.idleRunner()
	if err != nil {
		yield(control.Route{}, err)
		return
	}
	defer own.Close()
	for _, d := range own.Route(ctx, to) {
		if !yield(control.Route{Address: d.Address.String(), Hop: d.Hop, TLS: d.TLS, Problem: d.Problem}, nil) {
			return
		}
	}
}

// idleRunner is one that only knows what the configuration says.
func (a *app) idleRunner() (*delivery.Runner, error) {
	c, err := a.loadConfig()
	var r *delivery.Runner
	if err == nil {
		r, err = delivery.New(c, slog.New(slog.DiscardHandler))
	}
	if err != nil {
		return nil, &exitError{status: exConfig, err: err}
	}
	return r, nil
}

// hop returns what tells next hops while there is no runner.
func (a *app) hop() (func(sender, recipient address.Address) string, error) {
	r, err := a.idleRunner()
	if err != nil {
		return nil, err
	}
	return r.Hop, nil
}
