package spool_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"postino/spool"
	"postino/spool/spooltest"
)

// A crash between the content and the record leaves a file that nobody names.
func TestOpenSweepsOrphanContent(t *testing.T) {
	dir := t.TempDir()
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	id := spooltest.Put(t, s, strings.Repeat("x", large), "a@x.test")
	spooltest.Close(t, s)
	for _, name := range []string{spool.NewID(time.Now()).String(), "junk"} {
		if err := os.WriteFile(filepath.Join(dir, "content", name), []byte("y"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	spooltest.Open(t, dir, spool.Options{})
	if got := files(t, dir); len(got) != 1 || got[0] != id.String() {
		t.Errorf("content files = %v, want %s alone", got, id)
	}
}

func TestOneRunnerPerSpool(t *testing.T) {
	dir := t.TempDir()
	spooltest.Open(t, dir, spool.Options{})
	_, err := spool.Open(dir, spool.Options{})
	var locked *spool.LockedError
	if !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Errorf("second Open: %v, want a LockedError with pid %d", err, os.Getpid())
	}
}

// What is no spool is damaged beyond salvage for us, and may be dear to somebody.
func TestForeignFileIsSetAsideUnchanged(t *testing.T) {
	foreign := filepath.Join(t.TempDir(), "foreign.db")
	db, err := bolt.Open(foreign, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket([]byte("theirs"))
		return err
	})
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	theirs, err := os.ReadFile(foreign)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"text": []byte("precious"), "empty": {}, "short": make([]byte, 4096), "zeroes": make([]byte, 1<<20), "database": theirs,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "spool.db"), text, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := spool.OpenReadOnly(dir); err == nil {
				t.Error("opened a file that is no spool")
			}
			s := spooltest.Open(t, dir, spool.Options{})
			spooltest.Put(t, s, "x", "a@x.test")
			aside, err := s.SetAside()
			if err != nil || len(aside) != 1 || !errors.Is(aside[0].Err, spool.ErrDamagedFile) {
				t.Fatalf("SetAside = %v, %v", aside, err)
			}
			r, err := s.Salvage(t.Context(), aside[0].Path)
			if err != nil || r.Queued+r.Held+r.Finished+r.Known+len(r.Partial) != 0 || len(r.Faults) == 0 {
				t.Errorf("Salvage = %+v, %v", r, err)
			}
			if b, err := os.ReadFile(aside[0].Path); err != nil || !bytes.Equal(b, text) {
				t.Errorf("the file was changed: %d octets, %v", len(b), err)
			}
		})
	}
}

// Where there is no telling what is in the directory, nothing is made in it.
func TestUnreadableSpoolIsAnErrorAndStaysAsItIs(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "spool.db"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := spool.Open(dir, spool.Options{}); err == nil || errors.Is(err, spool.ErrDamagedFile) {
		t.Errorf("Open = %v, want an error that is no damage", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "spool.db")); err != nil || !info.IsDir() {
		t.Errorf("it was replaced: %v", err)
	}
}

func TestReadOnlySeesWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	if _, err := spool.OpenReadOnly(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenReadOnly of nothing: %v, want not exist", err)
	}
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	id := spooltest.Put(t, s, "x", "a@x.test")
	spooltest.Close(t, s)
	before, err := os.ReadFile(filepath.Join(dir, "spool.db"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := spool.OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Message(id); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	after, err := os.ReadFile(filepath.Join(dir, "spool.db"))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("reading changed the file, %v", err)
	}
}
