package spool_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postino/spool"
	"postino/spool/spooltest"
)

const large = 200 << 10 // octets; rests in a file

func content(t *testing.T, s *spool.Spool, id spool.ID) string {
	t.Helper()
	m, err := s.Message(id)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Content(m)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "content"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestCommittedMessageIsThereAfterReopen(t *testing.T) {
	dir := t.TempDir()
	small, big := "Subject: x\r\n\r\nhello\r\n", strings.Repeat("0123456789abcde\n", large/16)
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a := spooltest.Put(t, s, small, "a@x.test", "b@x.test")
	b := spooltest.Put(t, s, big, "c@x.test")
	spooltest.Close(t, s)

	s = spooltest.Open(t, dir, spool.Options{})
	if got := content(t, s, a); got != small {
		t.Errorf("small content = %q, want %q", got, small)
	}
	if got := content(t, s, b); got != big {
		t.Errorf("large content differs: %d octets, want %d", len(got), len(big))
	}
	m, err := s.Message(a)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Recipients) != 2 || m.Recipients[1].Address.String() != "b@x.test" || m.Sender.String() != "sender@example.org" {
		t.Errorf("message = %+v", m)
	}
	if got := files(t, dir); len(got) != 1 || got[0] != b.String() {
		t.Errorf("content files = %v, want %s alone", got, b)
	}
}

func TestDraftLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := spooltest.Open(t, dir, spool.Options{})
	d, err := s.NewDraft(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Write(make([]byte, large)); err != nil {
		t.Fatal(err)
	}
	if len(files(t, dir)) != 1 {
		t.Fatal("no content file while the draft is open: this test tests nothing")
	}
	d.Discard()
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("content files after Discard = %v", got)
	}
}

func TestSecondArrivalIsTheFirstMessage(t *testing.T) {
	dir := t.TempDir()
	s := spooltest.Open(t, dir, spool.Options{})
	submit := func(uid int, name byte) spool.ID {
		t.Helper()
		m := spooltest.Message(t, "a@x.test")
		m.Origin.UID = uid
		m.Submission[15] = name
		d, err := s.NewDraft(0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Write(make([]byte, large)); err != nil {
			t.Fatal(err)
		}
		id, err := d.Commit(m)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := submit(33, 1)
	if again := submit(33, 1); again != first {
		t.Errorf("second arrival = %s, want the first's %s", again, first)
	}
	if other := submit(34, 1); other == first {
		t.Error("another uid with the same name got the first one's message")
	}
	if other := submit(33, 2); other == first {
		t.Error("another name got the first one's message")
	}
	if got := files(t, dir); len(got) != 3 {
		t.Errorf("%d content files, want 3", len(got))
	}
	// Also when the first one is finished.
	finishAll(t, s, first, spool.Relayed, false)
	if again := submit(33, 1); again != first {
		t.Errorf("arrival after the end = %s, want %s", again, first)
	}
}

func finishAll(t *testing.T, s *spool.Spool, id spool.ID, status spool.Status, keep bool) *spool.Message {
	t.Helper()
	m, err := s.Message(id)
	if err != nil {
		t.Fatal(err)
	}
	a := &spool.Attempt{At: time.Now(), Hop: "test", Keep: keep}
	for i := range m.Recipients {
		a.Outcomes = append(a.Outcomes, spool.Outcome{Recipient: i, Status: status, Reply: spool.Reply{Code: 250, Status: "2.0.0"}})
	}
	if m, err = s.Record(id, a); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestProposedIDIsKeptUnlessTakenOrOutOfTime(t *testing.T) {
	s := spooltest.New(t, spool.Options{})
	want := spool.NewID(time.Now().Add(-time.Hour))
	d, err := s.NewDraft(want)
	if err != nil {
		t.Fatal(err)
	}
	if d.ID() != want {
		t.Errorf("ID = %s, want the proposed %s", d.ID(), want)
	}
	second, err := s.NewDraft(want)
	if err != nil {
		t.Fatal(err)
	}
	if second.ID() == want {
		t.Error("two open drafts have the same ID")
	}
	second.Discard()
	if _, err := d.Commit(spooltest.Message(t, "a@x.test")); err != nil {
		t.Fatal(err)
	}
	finishAll(t, s, want, spool.Relayed, false)
	for _, proposed := range []spool.ID{want, 0, 1, spool.NewID(time.Now().Add(time.Hour)), spool.NewID(time.Now().Add(-9 * 24 * time.Hour))} {
		d, err := s.NewDraft(proposed)
		if err != nil {
			t.Fatal(err)
		}
		if d.ID() == proposed || time.Since(d.ID().Time()).Abs() > time.Hour/2 {
			t.Errorf("proposed %s gave %s", proposed, d.ID())
		}
		d.Discard()
	}
}

func TestRecordSettlesEachRecipientOnce(t *testing.T) {
	dir := t.TempDir()
	var queued []spool.ID
	s := spooltest.Open(t, dir, spool.Options{Queued: func(m *spool.Message) { queued = append(queued, m.ID) }})
	id := spooltest.Put(t, s, strings.Repeat("x", large), "a@x.test", "b@x.test", "c@x.test")
	next := time.Now().Add(time.Hour).Truncate(time.Second)
	m, err := s.Record(id, &spool.Attempt{Outcomes: []spool.Outcome{
		{Recipient: 0, Status: spool.Relayed, Reply: spool.Reply{Code: 250, Status: "2.1.5"}},
		{Recipient: 1, Status: spool.Deferred, Next: next, Reply: spool.Reply{Code: 451, Status: "4.3.0", Maybe: true, TLS: "TLS1.3"}},
		{Recipient: 2, Status: spool.Failed, Reply: spool.Reply{Code: 550, Status: "5.1.1"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if due, ok := m.Next(); !ok || !due.Equal(next) {
		t.Errorf("Next = %v, %v; want %v", due, ok, next)
	}
	// A late, wrong record must not undo what is settled.
	m, err = s.Record(id, &spool.Attempt{Outcomes: []spool.Outcome{
		{Recipient: 0, Status: spool.Failed}, {Recipient: 1, Status: spool.Relayed, Reply: spool.Reply{Code: 250, Status: "2.0.0"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if m.Recipients[0].Status != spool.Relayed || m.Recipients[0].Attempts != 1 || m.Recipients[1].Attempts != 2 {
		t.Errorf("recipients = %+v", m.Recipients)
	}
	if !m.Settled() || m.Finished.IsZero() {
		t.Errorf("message not finished: %+v", m)
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("content left behind: %v", got)
	}
	if _, err := s.Record(id, &spool.Attempt{}); !errors.Is(err, spool.ErrNotFound) {
		t.Errorf("Record of a finished message: %v, want ErrNotFound", err)
	}
	attempts, err := s.Attempts(id)
	if err != nil || len(attempts) != 2 || !attempts[0].Outcomes[1].Reply.Maybe || attempts[0].Outcomes[1].Reply.TLS != "TLS1.3" {
		t.Errorf("attempts = %+v, %v", attempts, err)
	}
	if len(queued) != 2 { // when it came, and when one was left
		t.Errorf("Queued was called %d times, want 2", len(queued))
	}
}

func TestHeldMessageIsNotDue(t *testing.T) {
	var queued int
	s := spooltest.New(t, spool.Options{Queued: func(*spool.Message) { queued++ }})
	id := spooltest.Put(t, s, "x", "a@x.test")
	m, err := s.Hold(id, "why not")
	if err != nil {
		t.Fatal(err)
	}
	if _, due := m.Next(); due || queued != 1 {
		t.Errorf("held and due, or announced: %v, %d", due, queued)
	}
	if m, err = s.Retry(id, false); err != nil || m.Held == "" {
		t.Errorf("Retry released it: %+v, %v", m, err)
	}
	if m, err = s.Retry(id, true); err != nil || m.Held != "" || queued != 2 {
		t.Errorf("release: %+v, %v, announced %d times", m, err, queued)
	}
	if m, err = s.Fail(id, spool.Reply{Status: "5.7.0", Text: "deleted"}); err != nil || m.Recipients[0].Status != spool.Failed {
		t.Errorf("Fail: %+v, %v", m, err)
	}
}

func TestManyWritersLoseNothing(t *testing.T) {
	const writers, each = 32, 20
	dir := t.TempDir()
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				id := spooltest.Put(t, s, fmt.Sprintf("%d %d", w, i), "a@x.test")
				if i%2 == 0 {
					if _, err := s.Record(id, &spool.Attempt{Outcomes: []spool.Outcome{{Status: spool.Relayed}}}); err != nil {
						t.Error(err)
					}
				}
				// One that cannot be done must not take the others of its group along.
				if _, err := s.Hold(1, "x"); !errors.Is(err, spool.ErrNotFound) {
					t.Errorf("Hold of nothing: %v", err)
				}
			}
		})
	}
	wg.Wait()
	spooltest.Close(t, s)
	s = spooltest.Open(t, dir, spool.Options{})
	queued, finished := 0, 0
	var last spool.ID
	for m, err := range s.Queue() {
		if err != nil || m.ID <= last {
			t.Fatalf("%+v, %v after %s", m, err, last)
		}
		last = m.ID
		queued++
	}
	for range s.History() {
		finished++
	}
	if queued != writers*each/2 || finished != writers*each/2 {
		t.Errorf("%d queued, %d finished; want %d each", queued, finished, writers*each/2)
	}
}

func TestSubmissionIDsAreForgottenInTime(t *testing.T) {
	s := spooltest.New(t, spool.Options{})
	m := spooltest.Message(t, "a@x.test")
	m.Submission[0] = 7
	d, err := s.NewDraft(0)
	if err != nil {
		t.Fatal(err)
	}
	first, err := d.Commit(m)
	if err != nil {
		t.Fatal(err)
	}
	again := func() spool.ID {
		m := spooltest.Message(t, "a@x.test")
		m.Submission[0] = 7
		d, err := s.NewDraft(0)
		if err != nil {
			t.Fatal(err)
		}
		id, err := d.Commit(m)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	now := time.Now()
	if _, err := s.SweepSubmissions(now.Add(spool.SubmissionAge - time.Hour)); err != nil {
		t.Fatal(err)
	}
	if id := again(); id != first {
		t.Errorf("forgotten too early: %s, want %s", id, first)
	}
	if more, err := s.SweepSubmissions(now.Add(spool.SubmissionAge + time.Hour)); more || err != nil {
		t.Fatalf("SweepSubmissions = %v, %v", more, err)
	}
	if id := again(); id == first {
		t.Error("remembered for ever")
	}
}
