package spool_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postino/spool"
	"postino/spool/spooltest"
	"postino/spool/standstill"
)

func size(t *testing.T, dir string) int64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, "spool.db"))
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// grown stores mail that makes the file grow and delivers most of it. It returns
// what is left in the queue.
func grown(t *testing.T, s *spool.Spool) map[spool.ID]string {
	t.Helper()
	left := make(map[spool.ID]string)
	var done []spool.ID
	var mu sync.Mutex
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			for i := range 80 {
				text := fmt.Sprintf("Subject: %d %d\r\n\r\n%s", n, i, strings.Repeat("0123456789abcdef", 3500))
				id := spooltest.Put(t, s, text, "a@x.test")
				mu.Lock()
				if i%20 == 0 {
					left[id] = text
				} else {
					done = append(done, id)
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	for _, id := range done {
		all.Go(func() { finishAll(t, s, id, spool.Delivered, false) })
	}
	all.Wait()
	return left
}

func TestCompactionKeepsWhatIsWrittenAndReadMeanwhile(t *testing.T) {
	dir := t.TempDir()
	s := spooltest.Open(t, dir, spool.Options{})
	left := grown(t, s)
	before := size(t, dir)

	stop := make(chan struct{})
	var busy sync.WaitGroup
	var mu sync.Mutex
	for n := range 4 {
		busy.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				text := fmt.Sprintf("Subject: meanwhile %d %d\r\n\r\n", n, i)
				id := spooltest.Put(t, s, text, "a@x.test")
				mu.Lock()
				left[id] = text
				mu.Unlock()
			}
		})
		busy.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for m, err := range s.Queue() {
					if err != nil {
						t.Error(err)
						return
					}
					if err := readAll(s, m); err != nil {
						t.Errorf("%s: %v", m.ID, err)
						return
					}
				}
			}
		})
	}
	for range 5 {
		if _, _, err := s.Compact(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	busy.Wait()
	if now := size(t, dir); now >= before {
		t.Errorf("%d octets before, %d now", before, now)
	}
	for id, want := range left {
		if got := content(t, s, id); got != want {
			t.Errorf("%s: %d octets of content, want %d", id, len(got), len(want))
		}
	}
}

func TestIdleSpoolShrinks(t *testing.T) {
	dir := t.TempDir()
	type result struct {
		before, after int64
		err           error
	}
	results := make(chan result, 100)
	s := spooltest.Open(t, dir, spool.Options{
		CompactFree: 1 << 20, CompactIdle: 300 * time.Millisecond,
		Compacted: func(before, after int64, err error) { results <- result{before, after, err} },
	})
	left := grown(t, s)
	// What is left needs 2 MiB, and bbolt makes a file grow by 16 MiB.
	for size(t, dir) > 24<<20 {
		select {
		case r := <-results:
			if r.err != nil || r.after > r.before {
				t.Fatalf("compacted from %d to %d octets, %v", r.before, r.after, r.err)
			}
		case <-time.After(patience):
			t.Fatalf("not compacted within %v:\n%s", patience, standstill.Here())
		}
	}
	for id, want := range left {
		if got := content(t, s, id); got != want {
			t.Errorf("%s: %d octets of content, want %d", id, len(got), len(want))
		}
	}
}
