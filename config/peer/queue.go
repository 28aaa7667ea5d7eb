package peer

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// maxEnvelope bounds the envelope of a message, in octets: ten thousand recipients.
const maxEnvelope = 1 << 20

// Waiting is a message in the queue of another mail program.
type Waiting struct {
	// ID is what that program calls it.
	ID         string
	Sender     string // empty is the null one
	Recipients []string
	Arrived    time.Time
	take       func(store func(content io.Reader) error) error
}

// Take gives the content to store and, when that returns nil, removes the message from
// the queue. Lines end as the other program wrote them. What fails leaves it there.
func (w *Waiting) Take(store func(content io.Reader) error) error { return w.take(store) }

// Queue lists the mail that waits in a peer whose program is stopped: only then is it
// nobody else's to send. dir is its spool directory, of Postfix its configuration's,
// empty for the usual one. The second result is what cannot be taken, and why.
func (in *Import) Queue(name, dir string) ([]Waiting, []error, error) {
	var list []Waiting
	var bad []error
	var err error
	switch name {
	case "nullmailer":
		list, bad, err = nullmailerQueue(first(dir, filepath.Join(in.Root, "/var/spool/nullmailer")))
	case "dma":
		list, bad, err = dmaQueue(first(dir, in.dmaSpool()))
	case "postfix":
		list, bad, err = postfixQueue(dir)
	default:
		return nil, nil, fmt.Errorf("%s: there is no queue to take over: nullmailer, dma and postfix have one", name)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	slices.SortFunc(list, func(a, b Waiting) int { return a.Arrived.Compare(b.Arrived) })
	return list, bad, nil
}

// nullmailerQueue reads files of sender, recipients, an empty line and the message.
func nullmailerQueue(dir string) (list []Waiting, bad []error, err error) {
	entries, err := os.ReadDir(filepath.Join(dir, "queue"))
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		path := filepath.Join(dir, "queue", e.Name())
		w, err := nullmailerMessage(dir, path)
		if err != nil {
			bad = append(bad, fmt.Errorf("%s: %w", path, err))
			continue
		}
		list = append(list, w)
	}
	if failed, err := os.ReadDir(filepath.Join(dir, "failed")); err == nil && len(failed) > 0 {
		bad = append(bad, fmt.Errorf("%s: %d messages that nullmailer gave up are left there", filepath.Join(dir, "failed"), len(failed)))
	}
	return list, bad, stopped(dir)
}

// stopped is an error while nullmailer-send runs, which then reads its trigger.
func stopped(dir string) error {
	fd, err := syscall.Open(filepath.Join(dir, "trigger"), syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil // nobody reads it, or it is not there
	}
	syscall.Close(fd)
	return errors.New("nullmailer-send is running, and would send the mail as well: stop it first")
}

func nullmailerMessage(dir, path string) (Waiting, error) {
	w := Waiting{ID: filepath.Base(path)}
	f, err := openRegular(path)
	if err != nil {
		return w, err
	}
	defer f.Close()
	envelope, offset, err := envelopeLines(f)
	if err != nil {
		return w, err
	}
	if len(envelope) < 2 {
		return w, errors.New("no envelope")
	}
	w.Sender, w.Recipients, w.Arrived = envelope[0], envelope[1:], modified(f)
	w.take = func(store func(io.Reader) error) error {
		if err := stopped(dir); err != nil {
			return err
		}
		f, err := openRegular(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			return err
		}
		if err := store(f); err != nil {
			return err
		}
		return removeDurably(path)
	}
	return w, nil
}

// envelopeLines are the lines up to an empty one behind the first, and how many octets
// they take with it.
func envelopeLines(r io.Reader) (lines []string, n int64, err error) {
	in := bufio.NewReader(io.LimitReader(r, maxEnvelope))
	for {
		line, err := in.ReadString('\n')
		n += int64(len(line))
		if err != nil {
			return nil, 0, errors.New("no end of the envelope")
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "" && len(lines) > 0 {
			return lines, n, nil
		}
		lines = append(lines, line)
	}
}

// openRegular opens a regular file, and waits for nothing that may be in its place.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, errors.New("not a regular file")
	}
	return f, nil
}

func modified(f *os.File) time.Time {
	info, err := f.Stat()
	if err != nil {
		return time.Now()
	}
	return info.ModTime()
}

// removeDurably removes a file, so that it does not come back with a power cut.
func removeDurably(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// dmaSpool is SPOOLDIR of dma.conf.
func (in *Import) dmaSpool() string {
	text, _ := in.read("/etc/dma/dma.conf") // there need not be one
	for line := range strings.SplitSeq(text, "\n") {
		if name, value := cutSpace(strings.TrimSpace(line)); name == "SPOOLDIR" && value != "" {
			return filepath.Join(in.Root, value)
		}
	}
	return filepath.Join(in.Root, "/var/spool/dma")
}

// dmaQueue reads pairs of files: Q with the envelope of one recipient, M with the
// message. Recipients of one message share M by links, and are taken together.
func dmaQueue(dir string) (list []Waiting, bad []error, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	type key struct {
		inode  uint64
		sender string
	}
	byContent := map[key]*dmaMessage{}
	var order []*dmaMessage
	for _, e := range entries {
		id, isEnvelope := strings.CutPrefix(e.Name(), "Q")
		if !isEnvelope {
			continue
		}
		one, inode, err := readDmaMessage(dir, id)
		if err != nil {
			bad = append(bad, fmt.Errorf("%s: %w", filepath.Join(dir, e.Name()), err))
			continue
		}
		k := key{inode, one.Sender}
		if known := byContent[k]; known != nil {
			known.Recipients = append(known.Recipients, one.Recipients...)
			known.ids = append(known.ids, id)
			continue
		}
		byContent[k] = one
		order = append(order, one)
	}
	for _, m := range order {
		m.take = m.lockAndTake
		list = append(list, m.Waiting)
	}
	return list, bad, nil
}

type dmaMessage struct {
	Waiting
	dir string
	ids []string
}

func readDmaMessage(dir, id string) (*dmaMessage, uint64, error) {
	m := &dmaMessage{dir: dir, ids: []string{id}, Waiting: Waiting{ID: id}}
	q, err := openRegular(filepath.Join(dir, "Q"+id))
	if err != nil {
		return nil, 0, err
	}
	defer q.Close()
	text, err := io.ReadAll(io.LimitReader(q, maxEnvelope))
	if err != nil {
		return nil, 0, err
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		name, value, _ := strings.Cut(line, ":")
		switch value = strings.TrimSpace(value); name {
		case "Sender":
			m.Sender = value
		case "Recipient":
			m.Recipients = []string{value}
		}
	}
	if len(m.Recipients) == 0 {
		return nil, 0, errors.New("no recipient")
	}
	content, err := os.Lstat(filepath.Join(dir, "M"+id))
	if err != nil {
		return nil, 0, err
	}
	m.Arrived = content.ModTime()
	st, ok := content.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, 0, errors.New("no inode")
	}
	return m, st.Ino, nil
}

// lockAndTake locks the envelopes as dma does while it sends, so that it sends none of
// them meanwhile.
func (m *dmaMessage) lockAndTake(store func(io.Reader) error) error {
	for _, id := range m.ids {
		path := filepath.Join(m.dir, "Q"+id)
		q, err := openRegular(path)
		if err != nil {
			return err
		}
		defer q.Close() // and unlock
		if err := syscall.Flock(int(q.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			return fmt.Errorf("%s: dma is sending it just now", path)
		}
		if now, err := os.Lstat(path); err != nil || !same(now, q) {
			return fmt.Errorf("%s: dma has sent it meanwhile", path)
		}
	}
	content, err := openRegular(filepath.Join(m.dir, "M"+m.ids[0]))
	if err != nil {
		return err
	}
	defer content.Close()
	if err := store(content); err != nil {
		return err
	}
	var errs []error
	for _, id := range m.ids {
		// In dma's order: what has no envelope is not sent.
		errs = append(errs, os.Remove(filepath.Join(m.dir, "Q"+id)), removeDurably(filepath.Join(m.dir, "M"+id)))
	}
	return errors.Join(errs...)
}

func same(info fs.FileInfo, f *os.File) bool {
	now, err := f.Stat()
	return err == nil && os.SameFile(info, now)
}
