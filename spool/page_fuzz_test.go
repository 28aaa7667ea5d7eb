package spool

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// Whatever is in a file, it is read without harm; and what is accepted, bbolt can
// open and read from one end to the other.
func FuzzPageFile(f *testing.F) {
	dir := f.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		f.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 30 {
		d, err := s.NewDraft(0)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := d.Write(randomText(random, 20*i)); err != nil {
			f.Fatal(err)
		}
		if _, err := d.Commit(&Message{Recipients: []Recipient{{Status: Queued}}}); err != nil {
			f.Fatal(err)
		}
		if i == 2 || i == 29 { // one with small buckets in one page, and one with pages of all kinds
			b, err := os.ReadFile(filepath.Join(dir, dbFile))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(bytes.TrimRight(b, "\x00"))
		}
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), dbFile)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		d, err := readDB(file)
		if err != nil {
			t.Fatal(err)
		}
		x := index{f: d}
		if err := x.build(t.Context()); err != nil {
			t.Fatal(err)
		}
		switch err := verify(file); {
		case errors.Is(err, ErrDamagedFile):
			return
		case err != nil:
			t.Fatal(err)
		}
		db, err := openDB(path, false)
		if err != nil {
			t.Fatalf("accepted, and bbolt says: %v", err)
		}
		defer db.Close()
		err = guarded(func() error {
			return db.View(func(tx *bolt.Tx) error {
				return tx.ForEach(func(_ []byte, b *bolt.Bucket) error {
					return b.ForEach(func(_, _ []byte) error { return nil })
				})
			})
		})
		if err != nil {
			t.Errorf("accepted, and bbolt says: %v", err)
		}
	})
}
