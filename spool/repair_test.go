package spool_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"postino/spool"
	"postino/spool/spooltest"
)

func readAll(s *spool.Spool, m *spool.Message) error {
	r, err := s.Content(m)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

// reopen opens a spool, looks at its file and closes it again.
func reopen(t *testing.T, dir string) uint64 {
	t.Helper()
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	spooltest.Close(t, s)
	return inode(t, filepath.Join(dir, "spool.db"))
}

// Each way in which a bad page shows itself while the spool is open: what bbolt
// says to a page that is none, and what the kernel says to one that is not there.
func TestBadPageFencesAndTheNextOpenRepairs(t *testing.T) {
	for name, spoil := range map[string]func(f *os.File) error{
		"zeroed": func(f *os.File) error { _, err := f.WriteAt(make([]byte, 200<<10), 2*4096); return err },
		"gone":   func(f *os.File) error { return f.Truncate(2 * 4096) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "spool.db")
			s, err := spool.Open(dir, spool.Options{})
			if err != nil {
				t.Fatal(err)
			}
			id := spooltest.Put(t, s, "x", "a@x.test")
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := spoil(f); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Message(id); !errors.Is(err, spool.ErrFenced) || !errors.Is(err, spool.ErrDamagedFile) {
				t.Errorf("Message = %v, want ErrFenced and ErrDamagedFile", err)
			}
			select {
			case <-s.Fenced():
			default:
				t.Error("not fenced")
			}
			if _, err := s.Hold(id, "x"); !errors.Is(err, spool.ErrFenced) {
				t.Errorf("Hold = %v, want ErrFenced", err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			// The page was bad in memory alone.
			if err := os.WriteFile(path, whole, 0o600); err != nil {
				t.Fatal(err)
			}
			was := inode(t, path)
			rewritten := reopen(t, dir)
			if rewritten == was {
				t.Error("opened without having been rewritten")
			}
			if again := reopen(t, dir); again != rewritten {
				t.Error("rewritten once more")
			}
			s = spooltest.Open(t, dir, spool.Options{})
			if got := content(t, s, id); got != "x" {
				t.Errorf("content = %q", got)
			}
		})
	}
}

// A rewrite that fails leaves the file, and the need for it.
func TestFailedRewriteIsCleanAndRepeated(t *testing.T) {
	dir := t.TempDir()
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	id := spooltest.Put(t, s, "x", "a@x.test")
	spooltest.Close(t, s)
	path := filepath.Join(dir, "spool.db")
	was := inode(t, path)
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("F"), 21); err != nil {
		t.Fatal(err)
	}
	// Something that cannot be removed is in the way.
	if err := os.MkdirAll(path+".new/x", 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := spool.Open(dir, spool.Options{}); err == nil {
			t.Fatal("opened without having been rewritten")
		}
		if inode(t, path) != was {
			t.Fatal("another file has the name")
		}
	}
	if err := os.RemoveAll(path + ".new"); err != nil {
		t.Fatal(err)
	}
	if reopen(t, dir) == was {
		t.Error("not rewritten")
	}
	s = spooltest.Open(t, dir, spool.Options{})
	if got := content(t, s, id); got != "x" {
		t.Errorf("content = %q", got)
	}
}
