package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"

	"postino/delivery/control"
	"postino/spool"
	"postino/spool/address"
)

// source answers questions about the spool: the runner, or the spool itself where
// no runner has it.
type source interface {
	Queue(context.Context, control.Selection) iter.Seq2[control.Message, error]
	Show(context.Context, spool.ID) (control.Trace, error)
	Trace(context.Context, string) iter.Seq2[control.Trace, error]
	Log(context.Context, control.LogQuery) iter.Seq2[control.Entry, error]
	Stats(context.Context) (control.Stats, error)
	Captured(context.Context) iter.Seq2[control.Trace, error]
	Content(context.Context, spool.ID) (io.ReadCloser, error)
	Suspensions(context.Context) iter.Seq2[spool.Suspension, error]
	Close()
}

// source asks the runner, and reads the spool when there is none.
func (a *app) source(ctx context.Context) (source, error) {
	client := control.Dial(a.spool)
	_, err := client.Status(ctx)
	if err == nil {
		return client, nil
	}
	if !errors.Is(err, control.ErrNoRunner) {
		client.Close()
		return nil, err
	}
	local, err := openLocal(a.spool)
	if err == nil {
		local.hop = a.hop
		client.Close()
		return local, nil
	}
	if _, again := client.Status(ctx); again == nil {
		return client, nil // a runner was just starting
	}
	client.Close()
	if errors.Is(err, fs.ErrPermission) {
		err = &exitError{status: exUnavailable, err: errors.New("the runner is not running and only its user may read the spool: " +
			`ask root, or start it with "postino run"`)}
	}
	return nil, err
}

// query has f print what it asks a source. It is printed when the source is closed
// again: an open spool keeps the runner from starting, and whoever reads our
// output may be slow.
func (a *app) query(ctx context.Context, f func(w io.Writer, s source) error) error {
	return a.output(func(w io.Writer) error {
		s, err := a.source(ctx)
		if err != nil {
			return err
		}
		defer s.Close()
		return f(w, s)
	})
}

// local is a spool that no runner has, read by its owner.
type local struct {
	dir   string
	view  control.View
	drops []control.Message // what waits in drop/
	hop   func() (func(sender, recipient address.Address) string, error)
}

// openLocal opens a spool directory for reading, as its owner. The error is
// fs.ErrPermission when we are not.
func openLocal(dir string) (*local, error) {
	if err := becomeOwner(dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = &exitError{status: exUnavailable, err: fmt.Errorf("spool directory: %w: start the runner once, or name another with --spool", err)}
		}
		return nil, err
	}
	l := &local{dir: dir, view: control.View{Access: control.Access{Admin: true}}}
	var err error
	if l.drops, err = readDrops(dir); err != nil {
		return nil, err
	}
	l.view.Spool, err = spool.OpenReadOnly(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil // nothing was ever stored
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (l *local) Close() {
	if l.view.Spool != nil {
		l.view.Spool.Close() // it was only read
	}
}

func (l *local) Queue(_ context.Context, sel control.Selection) iter.Seq2[control.Message, error] {
	view, err := l.viewFor(&sel)
	if err != nil {
		return failed[control.Message](err)
	}
	view.Waiting = l.drops
	return view.Queue(sel)
}

func (l *local) Log(_ context.Context, q control.LogQuery) iter.Seq2[control.Entry, error] {
	view, err := l.viewFor(&q.Selection)
	if err != nil {
		return failed[control.Entry](err)
	}
	return view.Log(q)
}

// Stats counts by next hop only what was attempted, where there is no configuration.
func (l *local) Stats(context.Context) (control.Stats, error) {
	view := l.view
	view.Hop, _ = l.hop()
	return view.Stats()
}

// viewFor reads the configuration where sel asks for a next hop.
func (l *local) viewFor(sel *control.Selection) (control.View, error) {
	view := l.view
	var err error
	if sel.Hop != "" {
		view.Hop, err = l.hop()
	}
	return view, err
}

// failed yields an error alone.
func failed[T any](err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		yield(none, err)
	}
}

func (l *local) Show(_ context.Context, id spool.ID) (control.Trace, error) {
	t, err := l.view.Show(id)
	if errors.Is(err, spool.ErrNotFound) {
		for _, m := range l.drops {
			if m.ID == id {
				return control.Trace{Message: m, Via: spool.ViaDrop, Attempts: []control.Attempt{}, Reports: []spool.ID{}}, nil
			}
		}
	}
	return t, err
}

func (l *local) Trace(_ context.Context, what string) iter.Seq2[control.Trace, error] {
	return l.view.Trace(what)
}

func (l *local) Captured(context.Context) iter.Seq2[control.Trace, error] { return l.view.Captured() }

func (l *local) Suspensions(context.Context) iter.Seq2[spool.Suspension, error] {
	return l.view.Suspensions()
}

func (l *local) Content(_ context.Context, id spool.ID) (io.ReadCloser, error) {
	return l.view.Content(id)
}
