package spool_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

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

func TestCleanText(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"550 no\r\nsuch\tuser", "550 no  such user"},
		{"\x1b[31mred\x00\x7f", "?[31mred??"},
		{"caf\xe9", "caf?"},
		{"\u202egnp.exe", "?gnp.exe"},
		{strings.Repeat("é", 600), strings.Repeat("é", spool.MaxReplyText/2)},
	} {
		if got := spool.CleanText(tt.in); got != tt.want {
			t.Errorf("CleanText(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestReplyClass(t *testing.T) {
	for _, tt := range []struct {
		reply spool.Reply
		want  spool.Class
	}{
		{spool.Reply{Code: 250, Status: "2.0.0"}, spool.Success},
		{spool.Reply{Code: 550, Status: "5.1.1"}, spool.Permanent},
		{spool.Reply{Code: 535, Status: "4.7.8"}, spool.Temporary}, // a wrong password never fails mail
		{spool.Reply{}, spool.Temporary},
		{spool.Reply{Code: 550, Status: "junk"}, spool.Temporary},
	} {
		if got := tt.reply.Class(); got != tt.want {
			t.Errorf("%v: class %d, want %d", tt.reply, got, tt.want)
		}
	}
}

func FuzzID(f *testing.F) {
	f.Add("000649B2A1C3D4E5")
	f.Add("0000000000000000")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := spool.ParseID(s)
		if err != nil {
			if id != 0 {
				t.Fatalf("ParseID(%q) = %s with %v", s, id, err)
			}
			return
		}
		if id.String() != strings.ToUpper(s) {
			t.Fatalf("ParseID(%q) = %s", s, id)
		}
	})
}
