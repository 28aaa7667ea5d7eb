package spool_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"postino/spool"
	"postino/spool/spooltest"
)

// resident is how many octets of the mapped file at path this process has in memory.
func resident(t *testing.T, path string) (size int64) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	found, within := false, false
	for line := range strings.Lines(string(maps)) {
		var kib int64
		switch first, _, _ := strings.Cut(line, " "); {
		case !strings.HasSuffix(first, ":"):
			within = strings.HasSuffix(strings.TrimSpace(line), path)
			found = found || within
		case within && first == "Rss:":
			if _, err := fmt.Sscanf(line, "Rss: %d kB", &kib); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			size += kib << 10
		}
	}
	if !found {
		t.Fatalf("%s is not mapped: this test tests nothing", path)
	}
	return size
}

// What was read of a spool does not stay in the process's memory, however large the
// spool is: not by reading contents, not by reading records, not from opening it.
func TestMemoryDoesNotGrowWithTheSpool(t *testing.T) {
	const (
		messages = 1200
		size     = 60 << 10
		most     = 32 << 20
	)
	dir := t.TempDir()
	path := filepath.Join(dir, "spool.db")
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]spool.ID, messages)
	text := strings.Repeat("0123456789abcde\n", size/16)
	var puts sync.WaitGroup
	for w := range 16 {
		puts.Go(func() {
			for i := w; i < messages; i += 16 {
				ids[i] = spooltest.Put(t, s, text, "a@x.test")
			}
		})
	}
	puts.Wait()
	for _, open := range []string{"first", "again", "read-only"} {
		for i, id := range ids {
			if got := content(t, s, id); len(got) != len(text) {
				t.Fatalf("%d octets of content", len(got))
			}
			if i%100 == 0 || i == len(ids)-1 {
				if got := resident(t, path); got > most {
					t.Fatalf("%s: after %d messages %d MiB of the file are in memory, want at most %d", open, i+1, got>>20, most>>20)
				}
			}
		}
		for m, err := range s.Queue() {
			if err != nil || m.Size < size {
				t.Fatalf("%+v, %v", m, err)
			}
		}
		if got := resident(t, path); got > most {
			t.Fatalf("%s: after the records %d MiB of the file are in memory, want at most %d", open, got>>20, most>>20)
		}
		spooltest.Close(t, s)
		switch open {
		case "first":
			s, err = spool.Open(dir, spool.Options{})
		case "again":
			s, err = spool.OpenReadOnly(dir)
		default:
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
