package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"postino/delivery/control"
	"postino/spool"
)

const (
	// importWait bounds one message: the runner stores up to 1 GiB and syncs it.
	importWait = 5 * time.Minute
	// importers is how many messages are handed over at a time, so that they share
	// syncs.
	importers = 32
)

// runImport is the import command.
func runImport(ctx context.Context, a *app, _ options, operands []string) error {
	if len(operands) != 1 {
		return usageError("import takes one directory, which postino export wrote")
	}
	dir, err := os.OpenRoot(operands[0])
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	defer dir.Close()
	names, err := exportedNames(dir)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	client := control.DialPatient(a.spool, importWait)
	defer client.Close()
	if _, err := client.Status(ctx); err != nil {
		return err
	}
	in := importer{dir: dir, client: client}
	in.all(ctx, names)
	return a.output(func(w io.Writer) error {
		text := messages(in.done) + " imported"
		if in.known > 0 {
			text += fmt.Sprintf(", %d here already", in.known)
		}
		fmt.Fprintln(w, text)
		return in.failed.err()
	})
}

// exportedNames returns the queue IDs for which there is a file. Others are not ours.
func exportedNames(dir *os.Root) ([]string, error) {
	d, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	var names []string
	seen := make(map[string]bool)
	for _, e := range entries {
		name, isContent := strings.CutSuffix(e.Name(), contentSuffix)
		name, isEnvelope := strings.CutSuffix(name, envelopeSuffix)
		id, err := spool.ParseID(name)
		if err == nil && isContent != isEnvelope && id.String() == name && !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names, nil
}

// importer hands messages over, and counts.
type importer struct {
	dir    *os.Root
	client *control.Client

	mu          sync.Mutex
	done, known int      // guarded by mu
	failed      failures // guarded by mu
	stop        bool     // guarded by mu: no other message would fare better
}

func (in *importer) all(ctx context.Context, names []string) {
	work := make(chan string)
	var wg sync.WaitGroup
	for range importers {
		wg.Go(func() {
			for name := range work {
				in.count(in.one(ctx, name))
			}
		})
	}
	for _, name := range names {
		in.mu.Lock()
		stop := in.stop
		in.mu.Unlock()
		if stop {
			break
		}
		work <- name
	}
	close(work)
	wg.Wait()
}

func (in *importer) count(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case err == nil:
		in.done++
	case errors.Is(err, control.ErrConflict):
		in.known++
	case errors.Is(err, control.ErrNotAllowed), errors.Is(err, control.ErrNoRunner):
		if !in.stop {
			in.failed.add(err)
		}
		in.stop = true
	default:
		in.failed.add(err)
	}
}

// one hands one message over. Its files may be anybody's work.
func (in *importer) one(ctx context.Context, name string) error {
	envelope, err := in.envelope(name)
	if err != nil {
		return err
	}
	content, err := in.open(name + contentSuffix)
	if err != nil {
		return err
	}
	defer content.Close()
	if _, err = in.client.Import(ctx, envelope, content); err != nil && !errors.Is(err, control.ErrConflict) {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return err
}

func (in *importer) envelope(name string) ([]byte, error) {
	f, err := in.open(name + envelopeSuffix)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, control.MaxEnvelope+1))
	if err != nil {
		return nil, err
	}
	text = bytes.TrimSpace(text)
	m, err := control.ParseEnvelope(text, time.Now())
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s%s: %w", name, envelopeSuffix, err)
	case m.ID.String() != name:
		return nil, fmt.Errorf("%s%s: it is the envelope of %s", name, envelopeSuffix, m.ID)
	case bytes.ContainsRune(text, '\n'):
		return nil, fmt.Errorf("%s%s: an envelope has one line", name, envelopeSuffix)
	}
	return text, nil
}

// open opens a regular file in the directory, and waits for nothing that may have
// been put in its place.
func (in *importer) open(name string) (*os.File, error) {
	f, err := in.dir.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	if info, err := f.Stat(); err != nil || info.Mode()&fs.ModeType != 0 {
		f.Close()
		return nil, fmt.Errorf("%s: not a regular file", name)
	}
	return f, nil
}
