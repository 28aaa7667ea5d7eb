package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"postino/delivery/control"
	"postino/spool"
)

// What export writes for one message, behind its queue ID: the message as it is
// stored (RFC 5322, CRLF), and everything else as JSON. The second is written last.
const (
	contentSuffix  = ".eml"
	envelopeSuffix = ".json"
)

// exporter writes messages into a directory.
type exporter struct {
	dir    *os.Root
	client *control.Client
}

// runExport is the export command. Its last operand is a directory.
func runExport(ctx context.Context, a *app, o options, operands []string) error {
	if len(operands) == 0 {
		return usageError("export needs a directory to write to")
	}
	name, operands := operands[len(operands)-1], operands[:len(operands)-1]
	sel, err := o.chosen("export", operands)
	if err != nil {
		return err
	}
	client := control.Dial(a.spool)
	defer client.Close()
	if _, err := client.Status(ctx); err != nil {
		return err // before there is a directory
	}
	dir, err := makeExportDir(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	x := exporter{dir: dir, client: client}
	return a.output(func(w io.Writer) error {
		done, err := x.write(ctx, sel)
		if err == nil || len(done) > 0 {
			err = errors.Join(err, x.sync())
		}
		fmt.Fprintf(w, "%s exported\n", messages(len(done)))
		if err != nil || !o.remove {
			return err
		}
		removed, err := x.remove(ctx, done)
		fmt.Fprintf(w, "%s removed from the queue\n", messages(removed))
		return err
	})
}

// makeExportDir makes a directory, or takes one that is there, for files that are
// nobody else's business.
func makeExportDir(name string) (*os.Root, error) {
	if err := os.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	dir, err := os.OpenRoot(name)
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	return dir, nil
}

// exported is a message that was written, and how many attempts it had then.
type exported struct {
	id       spool.ID
	attempts int
}

// write writes the messages that sel means. What cannot be written is reported, and
// the others are.
func (x *exporter) write(ctx context.Context, sel control.Selection) ([]exported, error) {
	var done []exported
	var failed failures
	for e, err := range x.client.Export(ctx, sel) {
		if err == nil {
			err = x.one(ctx, e)
		}
		switch {
		case err == nil:
			done = append(done, exported{e.Message.ID, e.Message.Attempts})
		case errors.Is(err, control.ErrContentGone):
			// Finished while we looked: there is nothing left to move.
		case errors.Is(err, control.ErrNoRunner), errors.Is(err, control.ErrNotAllowed), errors.Is(err, unix.ENOSPC):
			return done, err
		default:
			failed.add(err)
		}
	}
	return done, failed.err()
}

func (x *exporter) one(ctx context.Context, e control.Envelope) error {
	m := e.Message
	content, err := x.client.Content(ctx, m.ID)
	if err != nil {
		return err
	}
	defer content.Close()
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	size, err := x.create(m.ID.String()+contentSuffix, io.TeeReader(content, sum))
	if err == nil && (size != m.Size || sum.Sum32() != m.Content.Sum) {
		err = fmt.Errorf("%s: %w", m.ID, spool.ErrDamaged)
	}
	if err != nil {
		return err
	}
	line, err := control.Line(e)
	if err != nil {
		return err
	}
	_, err = x.create(m.ID.String()+envelopeSuffix, bytes.NewReader(line))
	return err
}

// create makes a file that must not be there yet, and leaves none that is not whole.
func (x *exporter) create(name string, content io.Reader) (int64, error) {
	f, err := x.dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, fmt.Errorf("export: %w", err)
	}
	n, err := io.Copy(f, content)
	if err = errors.Join(err, f.Close()); err != nil {
		_ = x.dir.Remove(name)
		return 0, fmt.Errorf("export: %s: %w", name, err)
	}
	return n, nil
}

// sync makes all files durable at once.
func (x *exporter) sync() error {
	d, err := x.dir.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("export: sync: %w", err)
	}
	// The name of the directory itself may be new.
	parent, err := os.Open(filepath.Join(x.dir.Name(), ".."))
	if err != nil {
		return err
	}
	defer parent.Close()
	return parent.Sync()
}

// remove settles what was exported. What was attempted meanwhile stays, and its
// files are taken back.
func (x *exporter) remove(ctx context.Context, done []exported) (removed int, err error) {
	var failed failures
	for _, e := range done {
		_, err := x.client.GiveAway(ctx, e.id, e.attempts)
		switch {
		case err == nil:
			removed++
		case errors.Is(err, control.ErrConflict), errors.Is(err, spool.ErrNotFound):
			for _, suffix := range []string{envelopeSuffix, contentSuffix} {
				err = errors.Join(err, x.dir.Remove(e.id.String()+suffix))
			}
			failed.add(err)
		default:
			// It may be removed or not: the files stay.
			failed.add(err)
			return removed, failed.err()
		}
	}
	return removed, failed.err()
}
