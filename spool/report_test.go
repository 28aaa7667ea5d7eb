package spool_test

import (
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"postino/spool"
	"postino/spool/spooltest"
)

// newReport is a report about some recipients, not yet queued.
func newReport(t *testing.T, s *spool.Spool, content string, about ...int) *spool.Report {
	t.Helper()
	d, err := s.NewDraft(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(d, content); err != nil {
		t.Fatal(err)
	}
	m := spooltest.Message(t, "sender@example.org")
	m.Origin.Via = spool.ViaDSN
	return &spool.Report{Draft: d, Message: m, About: about}
}

// A report is queued exactly when what it tells is stored, and is found from there.
func TestReportIsQueuedWithWhatItTells(t *testing.T) {
	var queued []spool.ID
	dir := t.TempDir()
	s := spooltest.Open(t, dir, spool.Options{Queued: func(m *spool.Message) { queued = append(queued, m.ID) }})
	id := spooltest.Put(t, s, "hello\r\n", "a@example.org", "b@example.org")
	failed := func(n int) *spool.Attempt {
		return &spool.Attempt{Outcomes: []spool.Outcome{{Recipient: n, Status: spool.Failed, Reply: spool.Reply{Status: "5.1.1"}}}}
	}
	large := strings.Repeat("report\r\n", 20_000) // in a file
	first := newReport(t, s, large, 0)
	m, err := s.Record(id, failed(0), first)
	if err != nil || len(m.Reports) != 1 {
		t.Fatalf("%+v, %v", m, err)
	}
	report, err := s.Message(m.Reports[0])
	if err != nil || report.Recipients[0].Status != spool.Queued || report.Size != int64(len(large)) {
		t.Errorf("the report is %+v, %v", report, err)
	}
	if len(queued) == 0 || queued[len(queued)-1] != m.Reports[0] {
		t.Errorf("%v were scheduled, and the report %s last of all", queued, m.Reports[0])
	}

	// Somebody gave the message up meanwhile: the attempt has nothing more to tell.
	if _, err := s.Fail(id, spool.Reply{Status: "5.7.1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Record(id, failed(1), newReport(t, s, large, 1)); !errors.Is(err, spool.ErrNotFound) {
		t.Errorf("recorded for a message that is finished: %v", err)
	}
	// Or one recipient of it.
	other := spooltest.Put(t, s, "hello\r\n", "a@example.org", "b@example.org")
	if _, err := s.Record(other, failed(0)); err != nil {
		t.Fatal(err)
	}
	m, err = s.Record(other, &spool.Attempt{Outcomes: append(failed(0).Outcomes, failed(1).Outcomes...)},
		newReport(t, s, large, 0, 1), newReport(t, s, "small\r\n", 1))
	if err != nil || len(m.Reports) != 1 || !m.Settled() {
		t.Errorf("%+v, %v, want the report about the second recipient alone", m, err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "content", "*"))
	if err != nil || len(files) != 1 {
		t.Errorf("%d files of content, %v, want that of the first report", len(files), err)
	}
}
