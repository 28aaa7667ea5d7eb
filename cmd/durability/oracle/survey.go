package oracle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"postino/spool"
)

// Survey is what a spool directory holds.
type Survey struct {
	// Queue are the unsettled messages, Drops the drop files. Finished are settled;
	// of their content nothing is left.
	Queue, Drops, Finished []Copy
}

// Copy is a message in one place.
type Copy struct {
	Subject string
	// Message is the spool's record of it; nil in drop/.
	Message *spool.Message
	// Sum is of the body. Whole: it ends where it should.
	Sum   [sha256.Size]byte
	Whole bool
}

// Look opens the spool in dir as the next runner would, which sweeps what a crash
// left, checks all of it and says what is there. The error is what is wrong; the
// Survey then has what can be read. A spool that was never created is none.
func Look(dir string) (*Survey, error) {
	v := new(Survey)
	dropErr := v.lookAtDrops(filepath.Join(dir, spool.DropDir))
	// Not to be created for the sake of looking: that costs a dozen syncs.
	if _, err := os.Lstat(filepath.Join(dir, "spool.db")); errors.Is(err, fs.ErrNotExist) {
		return v, dropErr
	}
	s, err := open(dir)
	if err != nil {
		return v, errors.Join(dropErr, err)
	}
	err = s.Check()
	// Salvaged or not: no fault that we make excuses a damaged file.
	aside, globErr := filepath.Glob(filepath.Join(dir, "spool.db.damaged.*"))
	if err = errors.Join(err, globErr); len(aside) > 0 {
		err = errors.Join(err, fmt.Errorf("%q: set aside as damaged", aside))
	}
	for m, readErr := range s.Queue() {
		if readErr == nil { // else Check has it
			v.Queue = append(v.Queue, stored(s, m))
		}
	}
	for m, readErr := range s.History() {
		if readErr == nil {
			v.Finished = append(v.Finished, Copy{Subject: m.Subject, Message: m})
		}
	}
	return v, errors.Join(dropErr, err, s.Close())
}

// lockWait bounds the wait for the lock of a spool. A test forks all the time, and
// until it executes something the child has what its parent had open.
const lockWait = 2 * time.Minute

func open(dir string) (*spool.Spool, error) {
	const interval = 5 * time.Millisecond
	for deadline := time.Now().Add(lockWait); ; time.Sleep(interval) {
		s, err := spool.Open(dir, spool.Options{})
		var locked *spool.LockedError
		if !errors.As(err, &locked) || time.Now().After(deadline) {
			return s, err
		}
	}
}

// stored reads a message of the queue.
func stored(s *spool.Spool, m *spool.Message) Copy {
	c := Copy{Subject: m.Subject, Message: m}
	r, err := s.Content(m)
	if err != nil {
		return c
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return c
	}
	c = read(data)
	c.Message = m
	return c
}

func (v *Survey) lookAtDrops(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if id, err := hex.DecodeString(e.Name()); err != nil || len(id) != len(spool.SubmissionID{}) {
			continue // unfinished or rejected: nobody was promised anything
		}
		session, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		c := recorded(session)
		if c.Subject == "" {
			c.Subject = e.Name()
		}
		v.Drops = append(v.Drops, c)
	}
	return nil
}

// recorded reads the session in a drop file. It is the test's own idea of one, so
// that a mistake of the runner's does not hide itself.
func recorded(session []byte) Copy {
	for rest := session; ; {
		line, after, found := bytes.Cut(rest, []byte("\r\n"))
		if !found {
			return Copy{}
		}
		digits, isContent := bytes.CutPrefix(line, []byte("BDAT "))
		if rest = after; !isContent {
			continue
		}
		n, err := strconv.Atoi(string(bytes.TrimSuffix(digits, []byte(" LAST"))))
		c := read(after)
		c.Whole = c.Whole && err == nil && n == len(after)
		return c
	}
}

// read takes a message apart, whose lines end in CRLF.
func read(data []byte) Copy {
	head, body, found := bytes.Cut(data, []byte("\r\n\r\n"))
	var c Copy
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		if subject, ok := bytes.CutPrefix(line, []byte("Subject: ")); ok {
			c.Subject = string(subject)
		}
	}
	c.Sum, c.Whole = sha256.Sum256(body), found && c.Subject != ""
	if !c.Whole && c.Subject == "" {
		c.Subject = fmt.Sprintf("without a subject: %.80q", data)
	}
	return c
}

// doubled are the subjects that two messages of the spool share. A drop file beside
// one is none: the runner knows it by its name.
func (v *Survey) doubled() []string {
	seen := make(map[string]bool)
	var twice []string
	for _, list := range [][]Copy{v.Queue, v.Finished} {
		for _, c := range list {
			if seen[c.Subject] {
				twice = append(twice, c.Subject)
			}
			seen[c.Subject] = true
		}
	}
	return twice
}
