package spool_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postino/spool"
	"postino/spool/spooltest"
)

// failing is an attempt that some recipients fail, after which the message is kept.
func failing(about ...int) *spool.Attempt {
	a := &spool.Attempt{KeepFailed: true}
	for _, n := range about {
		a.Outcomes = append(a.Outcomes, spool.Outcome{Recipient: n, Status: spool.Failed, Reply: spool.Reply{Status: "5.1.1"}})
	}
	return a
}

func failedList(t *testing.T, s *spool.Spool) (ids []spool.ID) {
	t.Helper()
	for m, err := range s.Failed() {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, m.ID)
	}
	return ids
}

func contentOf(t *testing.T, s *spool.Spool, id spool.ID) string {
	t.Helper()
	m, err := s.Message(id)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Content(m)
	if err != nil {
		return ""
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What failed keeps its content, be it small or in a file and over a restart, until it
// is queued again, and then only for those who failed.
func TestFailedMailCanBeSentAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	large := strings.Repeat("large\r\n", 20_000)
	var ids []spool.ID
	for _, content := range []string{"small\r\n", large} {
		id := spooltest.Put(t, s, content, "a@example.org", "b@example.org")
		if _, err := s.Record(id, failing(0)); err != nil {
			t.Fatal(err)
		}
		if len(failedList(t, s)) != len(ids) {
			t.Error("in the failed list while a recipient is unsettled")
		}
		ok := &spool.Attempt{Outcomes: []spool.Outcome{{Recipient: 1, Status: spool.Relayed, Reply: spool.Reply{Status: "2.0.0"}}}}
		if _, err := s.Record(id, ok); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var queued []spool.ID
	s = spooltest.Open(t, dir, spool.Options{Queued: func(m *spool.Message) { queued = append(queued, m.ID) }})
	if got := failedList(t, s); len(got) != 2 || got[0] != ids[0] || got[1] != ids[1] {
		t.Fatalf("the failed list is %v, want %v", got, ids)
	}
	before := time.Now()
	for i, id := range ids {
		m, err := s.Revive(id)
		if err != nil {
			t.Fatal(err)
		}
		if m.Recipients[0].Status != spool.Queued || m.Recipients[1].Status != spool.Relayed || m.Since().Before(before) || m.Kept {
			t.Errorf("queued again as %+v", m)
		}
		if got := contentOf(t, s, id); got != []string{"small\r\n", large}[i] {
			t.Errorf("%d octets of content", len(got))
		}
		if _, err := s.Revive(id); !errors.Is(err, spool.ErrNotFound) {
			t.Errorf("a second time: %v", err)
		}
		if m, err = s.Record(id, failing(0)); err != nil || !m.Kept || m.Attempts != 3 {
			t.Errorf("failed again: %+v, %v", m, err)
		}
		if attempts, err := s.Attempts(id); err != nil || len(attempts) != 3 {
			t.Errorf("%d attempts, %v", len(attempts), err)
		}
	}
	if len(queued) != 2 {
		t.Errorf("%v were scheduled", queued)
	}
}

// The list is bounded in time and octets, the oldest go first, and what goes leaves no
// content behind, but its history.
func TestFailedListIsBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := spooltest.Open(t, dir, spool.Options{})
	content := strings.Repeat("0123456\r\n", 10_000)
	var ids []spool.ID
	for range 5 {
		id := spooltest.Put(t, s, content, "a@example.org")
		if _, err := s.Record(id, failing(0)); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	left, n, err := s.TrimFailed(time.Now().Add(-time.Hour), 3*int64(len(content))+1)
	if err != nil || n != 2 || left != 3*int64(len(content)) {
		t.Errorf("%d removed, %d octets left, %v", n, left, err)
	}
	if got := failedList(t, s); len(got) != 3 || got[0] != ids[2] {
		t.Errorf("left are %v of %v", got, ids)
	}
	if m, err := s.Drop(ids[4]); err != nil || m.Kept {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := s.Drop(ids[4]); !errors.Is(err, spool.ErrNotFound) {
		t.Errorf("dropped twice: %v", err)
	}
	if left, n, err = s.TrimFailed(time.Now().Add(time.Hour), 1<<40); err != nil || n != 2 || left != 0 {
		t.Errorf("%d removed, %d octets left, %v", n, left, err)
	}
	files, err := os.ReadDir(filepath.Join(dir, "content"))
	if err != nil || len(files) != 0 {
		t.Errorf("%d files left, %v", len(files), err)
	}
	if m, err := s.Message(ids[0]); err != nil || m.Recipients[0].Status != spool.Failed {
		t.Errorf("history has %+v, %v", m, err)
	}
}

// What a person gives up is not kept.
func TestDeletedMailIsNotKept(t *testing.T) {
	t.Parallel()
	s := spooltest.New(t, spool.Options{})
	id := spooltest.Put(t, s, "hello\r\n", "a@example.org", "b@example.org")
	if _, err := s.Record(id, failing(0)); err != nil {
		t.Fatal(err)
	}
	if m, err := s.Fail(id, spool.Reply{Status: "5.7.1", Command: spool.CommandDelete}); err != nil || m.Kept {
		t.Errorf("%+v, %v", m, err)
	}
	if got := failedList(t, s); len(got) != 0 {
		t.Error(got)
	}
}
