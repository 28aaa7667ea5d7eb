package spool_test

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postino/spool"
	"postino/spool/spooltest"
)

// past stores n finished messages, a second apart, the newest a second ago.
func past(t testing.TB, s *spool.Spool, n int) []spool.ID {
	t.Helper()
	ids := make([]spool.ID, n)
	now := time.Now()
	work := make(chan int)
	done := make(chan bool)
	for range 256 { // so that they share their syncs
		go func() {
			defer func() { done <- true }()
			for i := range work {
				d, err := s.NewDraft(spool.NewID(now.Add(time.Duration(i-n) * time.Second)))
				if err == nil {
					m := spooltest.Message(t, "user"+strconv.Itoa(i)+"@x.test")
					m.Subject, m.MessageID = "Report number "+strconv.Itoa(i), "<"+strconv.Itoa(i)+"@id.test>"
					ids[i], err = d.Commit(m)
				}
				if err == nil {
					_, err = s.Record(ids[i], &spool.Attempt{At: now, Hop: "relay r.test:25",
						Outcomes: []spool.Outcome{{Status: spool.Relayed, Reply: spool.Reply{Code: 250, Status: "2.0.0", Text: "ok", Host: "r.test", Command: "dot"}}}})
				}
				if err != nil {
					t.Error(err)
				}
			}
		}()
	}
	for i := range n {
		work <- i
	}
	close(work)
	for range 256 {
		<-done
	}
	return ids
}

// What is left after each trim is within the size, whatever was added and removed
// since history was counted.
func TestHistoryStaysWithinItsSize(t *testing.T) {
	s := spooltest.New(t, spool.Options{})
	const limit = 100 << 10
	n := 0
	for round := range 4 {
		past(t, s, 300)
		if _, err := s.TrimHistory(time.Time{}, limit); err != nil {
			t.Fatal(err)
		}
		n = 0
		for _, err := range s.History() {
			if err != nil {
				t.Error(err)
			}
			n++
		}
		// A record and its attempt have some 800 octets.
		if n < limit/1600 || n > limit/400 {
			t.Errorf("round %d: %d messages are left", round, n)
		}
	}
	if trimmed, err := s.TrimHistory(time.Now().Add(time.Hour), limit); trimmed != n || err != nil {
		t.Errorf("by age: trimmed %d of %d, %v", trimmed, n, err)
	}
}

// A message that was on its way for long is kept by when it ended.
func TestHistoryIsKeptByItsEnd(t *testing.T) {
	s := spooltest.New(t, spool.Options{})
	ids := past(t, s, 5000) // arrived up to 83 minutes ago, finished now
	if n, err := s.TrimHistory(time.Now().Add(-time.Hour), 1<<40); n != 0 || err != nil {
		t.Errorf("trimmed %d, %v; want none", n, err)
	}
	if n, err := s.TrimHistory(time.Now().Add(time.Minute), 1<<40); n != len(ids) || err != nil {
		t.Errorf("trimmed %d, %v; want all", n, err)
	}
}

func TestFindYieldsWhatIsWantedNewestFirst(t *testing.T) {
	s := spooltest.New(t, spool.Options{})
	ids := past(t, s, 5000)
	find := func(want func([]byte) bool) (got []spool.ID) {
		for m, err := range s.FindFinished(want) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, m.ID)
		}
		return got
	}
	slices.Reverse(ids)
	if got := find(nil); !slices.Equal(got, ids) {
		t.Errorf("everything: got %d, want %d", len(got), len(ids))
	}
	seven := func(record []byte) bool { return bytes.Contains(record, []byte(`"subject":"Report number 7`)) }
	got := find(seven)
	want := slices.DeleteFunc(slices.Clone(ids), func(id spool.ID) bool {
		m, err := s.Message(id)
		return err != nil || m.Subject[len("Report number ")] != '7'
	})
	if len(got) != 111 || !slices.Equal(got, want) {
		t.Errorf("with a 7: got %d, want %d", len(got), len(want))
	}
	for m, err := range s.FindFinished(nil) { // while they go
		if err != nil {
			t.Fatal(err)
		}
		if m.ID == ids[10] {
			if _, err := s.TrimHistory(time.Now().Add(time.Minute), 1<<40); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := s.Message(ids[0]); !errors.Is(err, spool.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func FuzzRecordFinished(f *testing.F) {
	f.Add([]byte(`{"subject":"\"finished\":\"2026-01-01T00:00:00Z\""}`))
	f.Add([]byte(`{"finished":"2026-01-01T00:00:00.5+01:00","captured":true}`))
	f.Add([]byte(`{"finished":"`))
	f.Fuzz(func(t *testing.T, record []byte) {
		at := spool.RecordFinished(record)
		if !at.IsZero() && !bytes.Contains(record, []byte(`"finished":"`)) {
			t.Fatalf("%q finished at %v", record, at)
		}
	})
}

// BenchmarkHistory is what a long history costs: POSTINO_HISTORY is how many
// messages it has.
func BenchmarkHistory(b *testing.B) {
	n, err := strconv.Atoi(os.Getenv("POSTINO_HISTORY"))
	if err != nil {
		n = 10_000
	}
	s := spooltest.New(b, spool.Options{})
	past(b, s, n)
	b.Run("trim nothing", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.TrimHistory(time.Now().Add(-10*365*24*time.Hour), 1<<50); err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, want := range map[string]func([]byte) bool{
		"decode all":  nil,
		"decode none": func(r []byte) bool { return bytes.Contains(bytes.ToLower(r), []byte("no such thing")) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				for range s.FindFinished(want) {
				}
			}
		})
	}
	b.Run("trim all", func(b *testing.B) {
		start := time.Now()
		removed, err := s.TrimHistory(time.Now().Add(time.Hour), 1<<50)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(removed)/time.Since(start).Seconds(), "messages/s")
	})
}

func TestCapturedContentLivesAsLongAsItsHistory(t *testing.T) {
	dir := t.TempDir()
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("x", large)
	small, file := spooltest.Put(t, s, "tiny", "a@x.test"), spooltest.Put(t, s, big, "a@x.test")
	gone := spooltest.Put(t, s, big, "a@x.test")
	finishAll(t, s, small, spool.Delivered, true)
	finishAll(t, s, file, spool.Delivered, true)
	finishAll(t, s, gone, spool.Relayed, false)
	spooltest.Close(t, s)
	s = spooltest.Open(t, dir, spool.Options{})
	if content(t, s, small) != "tiny" || content(t, s, file) != big {
		t.Error("captured content is not what was captured")
	}
	if n, err := s.TrimHistory(time.Now().Add(-time.Hour), 1<<20); n != 0 || err != nil {
		t.Errorf("trimmed %d of what is young, %v", n, err)
	}
	if n, err := s.TrimHistory(time.Now().Add(time.Hour), 1<<20); n != 3 || err != nil {
		t.Errorf("trimmed %d, %v; want 3", n, err)
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("content left: %v", got)
	}
	if _, err := s.Message(small); !errors.Is(err, spool.ErrNotFound) {
		t.Errorf("trimmed message: %v", err)
	}
}

func TestHistoryKeepsTheNewestWithinItsSize(t *testing.T) {
	s := spooltest.New(t, spool.Options{})
	var ids []spool.ID
	for i := range 20 {
		d, err := s.NewDraft(spool.NewID(time.Now().Add(time.Duration(i-60) * time.Second)))
		if err != nil {
			t.Fatal(err)
		}
		id, err := d.Commit(spooltest.Message(t, "a@x.test"))
		if err != nil {
			t.Fatal(err)
		}
		finishAll(t, s, id, spool.Relayed, false)
		ids = append(ids, id)
	}
	const size = 4096
	n, err := s.TrimHistory(time.Time{}, size)
	if err != nil || n == 0 || n == len(ids) {
		t.Fatalf("trimmed %d, %v: want some", n, err)
	}
	for i, id := range ids {
		_, err := s.Message(id)
		if gone := errors.Is(err, spool.ErrNotFound); gone != (i < n) {
			t.Errorf("message %d of %d, %d trimmed: gone = %v", i, len(ids), n, gone)
		}
	}
}
