package spool_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postino/spool"
	"postino/spool/spooltest"
)

func TestDamageNeverReadsAsComplete(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, path string)
	}{
		{"a flipped bit", func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"half of it", func(t *testing.T, path string) {
			if err := os.Truncate(path, large/2); err != nil {
				t.Fatal(err)
			}
		}},
		{"more of it", func(t *testing.T, path string) {
			if err := os.Truncate(path, large*2); err != nil {
				t.Fatal(err)
			}
		}},
		{"nothing of it", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		dir := t.TempDir()
		s, err := spool.Open(dir, spool.Options{})
		if err != nil {
			t.Fatal(err)
		}
		id := spooltest.Put(t, s, strings.Repeat("x", large), "a@x.test")
		tt.damage(t, filepath.Join(dir, "content", id.String()))
		m, err := s.Message(id)
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Content(m)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			r.Close()
		}
		if !errors.Is(err, spool.ErrDamaged) {
			t.Errorf("%s: %v, want ErrDamaged", tt.name, err)
		}
		if err := s.Check(); !errors.Is(err, spool.ErrDamaged) {
			t.Errorf("%s: Check = %v, want ErrDamaged", tt.name, err)
		}
		s.Close()
	}
}

// bbolt has no checksum on its data pages: ours has to find the bit.
func TestFlippedBitInTheDatabaseIsFound(t *testing.T) {
	dir := t.TempDir()
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	id := spooltest.Put(t, s, "Subject: the needle\r\n\r\nhaystack\r\n", "needle@x.test")
	spooltest.Close(t, s)
	path := filepath.Join(dir, "spool.db")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"haystack", `"needle@x.test"`} {
		damaged := bytes.ReplaceAll(b, []byte(what), append([]byte(what[:1]+"#"), what[2:]...))
		if bytes.Equal(damaged, b) {
			t.Fatalf("%q is not in the file", what)
		}
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := spool.OpenReadOnly(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), id.String()) {
			t.Errorf("%s damaged: Check = %v", what, err)
		}
		s.Close()
	}
}
