package delivery_test

import (
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"postino/delivery"
	"postino/spool"
	"postino/spool/spooltest"
)

// size is how large a test is: n, or what the environment says.
func size(t *testing.T, variable string, n int) int {
	t.Helper()
	if text := os.Getenv(variable); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatalf("%s: %v", variable, err)
		}
	}
	return n
}

// fill stores n messages as change makes them, many at a time, so that they share
// commits.
func fill(t *testing.T, s *spool.Spool, n int, change func(i int, m *spool.Message)) {
	t.Helper()
	var wg sync.WaitGroup
	work := make(chan int)
	for range 128 {
		wg.Go(func() {
			for i := range work {
				m := spooltest.Message(t, "somebody@x.test")
				change(i, m)
				d, err := s.NewDraft(0)
				if err == nil {
					_, err = d.Write([]byte(content))
				}
				if err == nil {
					_, err = d.Commit(m)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wg.Wait()
}

// A start with a full spool reads no records, and its memory is bounded by a hundred
// octets for a message. Run at full size: POSTINO_TEST_QUEUE=1000000.
func TestScheduleOfAFullSpoolIsSmall(t *testing.T) {
	n := size(t, "POSTINO_TEST_QUEUE", 20_000)
	dir := t.TempDir()
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	fill(t, s, n, func(i int, m *spool.Message) { m.Origin.UID, m.Bulk = i%10, i%3 == 0 })
	t.Logf("%d messages stored in %v", n, time.Since(began).Round(time.Millisecond))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	runner, err := delivery.New(settings(nil, nil), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer runner.Close()
	before := heap()
	began = time.Now()
	if s, err = spool.Open(dir, spool.Options{Queued: runner.Queued}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	opened := time.Since(began)
	began = time.Now()
	runner.Load(s)
	t.Logf("opened in %v, loaded in %v", opened.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	if runner.Pending() != n {
		t.Errorf("%d pending, want %d", runner.Pending(), n)
	}
	grown := heap() - before
	t.Logf("%d octets of memory for a message", grown/n)
	if const100 := 100*n + 4<<20; grown > const100 {
		t.Errorf("%d octets for %d messages", grown, n)
	}
}

// heap is how many octets are in use.
func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
