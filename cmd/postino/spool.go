package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"postino/delivery/control"
	"postino/spool"
)

// checked is what spool check found.
type checked struct {
	Spool  string   `json:"spool"`
	OK     bool     `json:"ok"`
	Faults []string `json:"faults"`
}

// runSpoolCheck is the spool check command. It needs a spool that nobody writes.
func runSpoolCheck(_ context.Context, a *app, o options, operands []string) error {
	if len(operands) > 0 {
		return usageError("spool check takes no operands: --spool names another directory")
	}
	if err := becomeOwner(a.spool); err != nil {
		return err
	}
	found := checked{Spool: a.spool, Faults: []string{}}
	var faults failures
	list, err := spool.Examine(a.spool)
	var locked *spool.LockedError
	if errors.As(err, &locked) {
		err = &exitError{status: exUnavailable, err: fmt.Errorf("%w, or have it checked at the start of the next", err)}
	}
	if err != nil {
		return err
	}
	for _, fault := range list {
		found.Faults = append(found.Faults, fault.Error())
		faults.add(fault)
	}
	found.OK = len(found.Faults) == 0
	if o.json {
		if err := a.output(func(w io.Writer) error { return writeLine(w, found) }); err != nil || found.OK {
			return err
		}
	} else if found.OK {
		return a.output(func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "%s: nothing is wrong\n", spool.CleanText(a.spool))
			return err
		})
	}
	return &exitError{status: exFailure, err: faults.err()}
}

// runSpoolSalvage is the spool salvage command: it does what the runner does at its
// start, and for any file.
func runSpoolSalvage(ctx context.Context, a *app, o options, operands []string) error {
	if len(operands) > 1 {
		return usageError("spool salvage takes one file, or none for those that were set aside")
	}
	s, err := a.openSpool(operands)
	if err != nil {
		return err
	}
	defer s.Close() // each step is on disk already
	files := operands
	if len(files) == 0 {
		aside, err := s.SetAside()
		if err != nil {
			return err
		}
		for _, f := range aside {
			files = append(files, f.Path)
		}
	}
	whole := true
	err = a.output(func(w io.Writer) error {
		if len(files) == 0 && !o.json {
			fmt.Fprintln(w, "nothing to salvage")
		}
		for _, name := range files {
			r, err := s.Salvage(ctx, name)
			if err != nil {
				return err
			}
			whole = whole && r.Held == 0 && len(r.Partial) == 0
			if o.json {
				err = writeLine(w, r)
			} else {
				err = writeSalvaged(w, r)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && !whole {
		return &exitError{status: exFailure, err: errors.New(`some mail is held or not whole: look at it with "postino queue --status held", then "postino release" or "postino delete"`)}
	}
	return err
}

func writeSalvaged(w io.Writer, r spool.Salvaged) error {
	_, err := fmt.Fprintf(w, "%s: %s back in the queue, %d held, %d in the history, %d known already\n",
		spool.CleanText(r.File), messages(r.Queued), r.Held, r.Finished, r.Known)
	for _, p := range r.Partial {
		fmt.Fprintf(w, "  %s\n", spool.CleanText(p))
	}
	return err
}

// runSpoolCompact is the spool compact command. A runner does it itself.
func runSpoolCompact(ctx context.Context, a *app, o options, operands []string) error {
	if len(operands) > 0 {
		return usageError("spool compact takes no operands")
	}
	client := control.Dial(a.spool)
	defer client.Close()
	c, err := client.Compact(ctx)
	if errors.Is(err, control.ErrNoRunner) {
		c, err = a.compact()
	}
	if err != nil {
		return err
	}
	return a.output(func(w io.Writer) error {
		if o.json {
			return writeLine(w, c)
		}
		_, err := fmt.Fprintf(w, "spool.db had %d octets and has %d\n", c.Before, c.After)
		return err
	})
}

func (a *app) compact() (c control.Compacted, err error) {
	s, err := a.openSpool(nil)
	if err != nil {
		return c, err
	}
	c.Before, c.After, err = s.Compact()
	return c, errors.Join(err, s.Close())
}

// openSpool opens the spool for a command that writes it, as its owner, who has to
// be able to read those files too, and the content beside them.
func (a *app) openSpool(files []string) (*spool.Spool, error) {
	if err := becomeOwner(a.spool); err != nil {
		return nil, err
	}
	for _, name := range files {
		if err := readable(name); err != nil {
			return nil, a.forOwner(err)
		}
		beside := filepath.Join(filepath.Dir(name), "content")
		if err := readable(beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, a.forOwner(err)
		}
	}
	return spool.Open(a.spool, spool.Options{})
}

func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// forOwner says who is not permitted to do it.
func (a *app) forOwner(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w for the owner of %s, as whom this is done: make it readable for that user", err, a.spool)
	}
	return err
}
