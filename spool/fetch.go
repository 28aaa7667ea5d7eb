package spool

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// beside returns the directory with the large content that belongs to a spool file, or
// nothing if that is our own.
func (s *Spool) beside(path string) string {
	dir := filepath.Dir(path)
	there, thereErr := os.Stat(dir)
	here, hereErr := os.Stat(s.dir)
	if thereErr == nil && hereErr == nil && os.SameFile(there, here) {
		return ""
	}
	return filepath.Join(dir, contentDir)
}

// stored reports whether the file of m is there in its full length, and where: here, or
// beside the file that is salvaged. Its checksum is verified when it is read.
func (v *salvage) stored(m *Message) (path string, whole bool) {
	places := []string{v.s.contentPath(m.ID)}
	if v.beside != "" {
		places = append(places, filepath.Join(v.beside, m.ID.String()))
	}
	for _, path := range places {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return path, err == nil && info.Size() == m.Size
	}
	return "", false
}

// fetch copies the file of a message, where that is beside the salvaged one, before a
// record can name it. Of what cannot be read whole the message gets what there is.
func (v *salvage) fetch(r *restored) error {
	m := r.m
	if !m.Content.File || m.Settled() && !m.keeps() {
		return nil
	}
	path, _ := v.stored(m)
	if path == "" || path == v.s.contentPath(m.ID) || !v.wants(m) {
		return nil
	}
	in, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err // such as a right that is missing: then nothing of it is lost
	}
	defer in.Close()
	out, err := os.OpenFile(v.s.contentPath(m.ID), os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	source := &untilFault{r: io.LimitReader(in, m.Size)}
	_, err = io.Copy(out, source)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return errors.Join(err, os.Remove(v.s.contentPath(m.ID)))
	}
	v.fetched = true
	if source.err != nil && m.Finished.IsZero() {
		m.Held, m.HeldBy = heldDamaged, ""
		v.partial("%s from %s: %v", m.ID, m.Sender, source.err)
	}
	return nil
}

// untilFault ends where reading fails, and remembers why.
type untilFault struct {
	r   io.Reader
	err error
}

func (u *untilFault) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if err != nil && err != io.EOF {
		u.err, err = err, io.EOF
	}
	return n, err
}

// wants reports whether the spool has a use for the file of a message: it is not known
// yet, or was brought back without it.
func (v *salvage) wants(m *Message) (wanted bool) {
	err := v.s.view(func(tx *bolt.Tx) error {
		wanted = named(tx, m.ID) || !knows(tx, m)
		return nil
	})
	return err != nil || wanted
}

// knows reports whether m is in the spool: the same may have been handed in again.
func knows(tx *bolt.Tx, m *Message) bool {
	key := m.ID.key()
	return tx.Bucket(bucketMessage).Get(key) != nil || tx.Bucket(bucketHistory).Get(key) != nil || priorSubmission(tx, m) != 0
}

// nameOrphans reports the content files beside the salvaged one that no record names.
// They stay where they are. Without that directory it says so: nobody knows then which
// large messages were finished.
func (v *salvage) nameOrphans(messagesMissing bool) error {
	entries, err := os.ReadDir(v.beside)
	if errors.Is(err, fs.ErrNotExist) {
		if v.absent > 0 {
			v.partial("%s is not there: up to %d messages of more than %d octets were in it, and come back with it alone", v.beside, v.absent, smallContent)
		}
		return nil
	}
	if err != nil || !messagesMissing {
		return err
	}
	for _, e := range entries {
		id, _ := ParseID(e.Name())
		known := false
		err := v.s.view(func(tx *bolt.Tx) error {
			known = named(tx, id)
			return nil
		})
		if err != nil {
			return err
		}
		if !known {
			v.partial("the envelope is lost; the content is in %s", filepath.Join(v.beside, e.Name()))
		}
	}
	return nil
}
