package spool

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"postino/spool/crashpoint"
)

func (s *Spool) contentPath(id ID) string { return s.path(contentDir, id.String()) }

// Content opens the content of m. Size and checksum are verified while it is
// read: where they do not match, the read that would have returned io.EOF
// returns ErrDamaged, so that a damaged message never looks complete.
func (s *Spool) Content(m *Message) (io.ReadCloser, error) {
	r := &contentReader{want: m.Content.Sum, left: m.Size}
	if m.Content.File {
		f, err := os.OpenFile(s.contentPath(m.ID), os.O_RDONLY|unix.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: %s is missing", ErrDamaged, s.contentPath(m.ID))
		}
		if err != nil {
			return nil, err
		}
		r.r, r.c = f, f
		return r, nil
	}
	// Copied out: a read transaction held open over the network would pin pages.
	err := s.view(func(tx *bolt.Tx) error {
		v := tx.Bucket(bucketContent).Get(m.ID.key())
		if v == nil {
			return fmt.Errorf("%w: it is missing", ErrDamaged)
		}
		r.r = bytes.NewReader(bytes.Clone(v))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

type contentReader struct {
	r    io.Reader
	c    io.Closer
	sum  uint32
	want uint32
	left int64
}

func (r *contentReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.sum = crc32.Update(r.sum, castagnoli, p[:n])
	r.left -= int64(n)
	if r.left < 0 || err == io.EOF && (r.left != 0 || r.sum != r.want) {
		return n, ErrDamaged
	}
	return n, err
}

func (r *contentReader) Close() error {
	if r.c == nil {
		return nil
	}
	return r.c.Close()
}

// tidyContent looks after content without a record at Open.
func (s *Spool) tidyContent() error {
	aside, err := s.SetAside()
	if err != nil {
		return err
	}
	switch {
	case len(aside) > 0:
		s.salvaging = true // whose it is will be known when that is over
		return nil
	case s.fresh:
		// Somebody took spool.db away: what is left of the mail is not for us to remove.
		_, err := s.moveOrphans()
		return err
	}
	return s.sweepContent()
}

// sweepContent removes the content files that no record names: drafts that a
// crash left, and those of messages that were finished just before one. It runs
// before anything else may write.
func (s *Spool) sweepContent() error {
	entries, err := os.ReadDir(s.path(contentDir))
	if err != nil {
		return err
	}
	return s.view(func(tx *bolt.Tx) error {
		for _, e := range entries {
			id, err := ParseID(e.Name())
			if err == nil && named(tx, id) {
				continue
			}
			crashpoint.Here("sweep.unlink.before")
			if err := os.Remove(s.path(contentDir, e.Name())); err != nil {
				return err
			}
			crashpoint.Here("sweep.unlink.after")
		}
		return nil
	})
}

// named reports whether a record needs the content of id. A record that cannot
// be read counts: what it needs is not known.
func named(tx *bolt.Tx, id ID) bool {
	if tx.Bucket(bucketMessage).Get(id.key()) != nil {
		return true
	}
	v := tx.Bucket(bucketHistory).Get(id.key())
	if v == nil {
		return false
	}
	m, err := decodeMessage(v)
	return err != nil || m.keeps()
}
