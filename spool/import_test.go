package spool_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"postino/spool"
	"postino/spool/spooltest"
)

// carry imports m, as read from another spool, with that content.
func carry(t *testing.T, to *spool.Spool, m spool.Message, content string) (*spool.Message, error) {
	t.Helper()
	m.Recipients = append([]spool.Recipient(nil), m.Recipients...)
	d, err := to.NewImport(m.ID)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(d, content); err != nil {
		t.Fatal(err)
	}
	return &m, d.Import(&m)
}

// origin is a spool with a message, one of its two recipients relayed, the other
// deferred, and the message as it is.
func origin(t *testing.T, content string) (*spool.Spool, spool.Message) {
	t.Helper()
	s := spooltest.New(t, spool.Options{})
	id := spooltest.Put(t, s, content, "done@x.test", "waits@x.test")
	m, err := s.Record(id, &spool.Attempt{At: time.Now(), Hop: "relay", Outcomes: []spool.Outcome{
		{Recipient: 0, Status: spool.Relayed, Reply: spool.Reply{Code: 250, Status: "2.0.0", Text: "ok"}},
		{Recipient: 1, Status: spool.Deferred, Next: time.Now().Add(time.Hour), Reply: spool.Reply{Code: 451, Status: "4.2.1", Text: "busy"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return s, *m
}

func TestImportedMessageIsTheOneThatWasThere(t *testing.T) {
	for name, content := range map[string]string{"small": "Subject: x\r\n\r\nhello\r\n", "large": strings.Repeat("0123456789abc\r\n", 10_000)} {
		t.Run(name, func(t *testing.T) {
			_, m := origin(t, content)
			queued := 0
			to := spooltest.New(t, spool.Options{Queued: func(*spool.Message) { queued++ }})
			if _, err := carry(t, to, m, content); err != nil {
				t.Fatal(err)
			}
			got, err := to.Message(m.ID)
			if err != nil {
				t.Fatal(err)
			}
			if !got.Arrived.Equal(m.Arrived) || got.Attempts != 1 || got.Recipients[0].Status != spool.Relayed ||
				got.Recipients[1].Attempts != 1 || got.Recipients[1].Reply.Text != "busy" || !got.Recipients[1].Next.Equal(m.Recipients[1].Next) {
				t.Errorf("got %+v", got)
			}
			if queued != 1 {
				t.Errorf("scheduled %d times", queued)
			}
			for range 2 {
				if _, err := carry(t, to, m, content); !errors.Is(err, spool.ErrExists) {
					t.Errorf("a second time: %v", err)
				}
			}
			finishAll(t, to, m.ID, spool.Relayed, false)
			if _, err := carry(t, to, m, content); !errors.Is(err, spool.ErrExists) {
				t.Errorf("after it was relayed: %v", err)
			}
		})
	}
}

func TestImportRefusesOtherContentAndLeavesNothing(t *testing.T) {
	const content = "Subject: x\r\n\r\nhello\r\n"
	_, m := origin(t, content)
	to := spooltest.New(t, spool.Options{})
	for _, other := range []string{"", content[1:], content + "\r\n", strings.Replace(content, "h", "j", 1), strings.Repeat("x", 1<<17)} {
		if _, err := carry(t, to, m, other); !errors.Is(err, spool.ErrDamaged) {
			t.Errorf("%.20q: %v", other, err)
		}
	}
	if _, err := to.Message(m.ID); !errors.Is(err, spool.ErrNotFound) {
		t.Errorf("something is there: %v", err)
	}
	m.Recipients[1].Status = spool.Failed
	if _, err := carry(t, to, m, content); !errors.Is(err, spool.ErrExists) {
		t.Errorf("a finished message: %v", err)
	}
}

// A message that a person gave up can come back; nobody who has it gets it again.
func TestWhatWasGivenUpCanBeImportedAgain(t *testing.T) {
	const content = "Subject: x\r\n\r\nhello\r\n"
	s, m := origin(t, content)
	export := spool.Reply{Status: "2.0.0", Text: "exported", Command: spool.CommandExport}
	if _, err := s.GiveAway(m.ID, m.Attempts, export); !errors.Is(err, spool.ErrChanged) {
		t.Errorf("given away although it is not held: %v", err)
	}
	if _, err := s.Hold(m.ID, "being exported"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GiveAway(m.ID, m.Attempts-1, export); !errors.Is(err, spool.ErrChanged) {
		t.Errorf("given away although it was attempted: %v", err)
	}
	gone, err := s.GiveAway(m.ID, m.Attempts, export)
	if err != nil || gone.Recipients[1].Status != spool.Relayed || gone.Finished.IsZero() {
		t.Fatalf("given away: %+v, %v", gone, err)
	}
	// As exported before the first recipient had it.
	early := m
	early.Recipients = append([]spool.Recipient(nil), m.Recipients...)
	early.Attempts, early.Recipients[0].Status, early.Recipients[0].Reply = 0, spool.Queued, spool.Reply{}
	back, err := carry(t, s, early, content)
	if err != nil || back.Recipients[0].Status != spool.Relayed || back.Recipients[1].Status != spool.Deferred || back.Attempts != 1 {
		t.Fatalf("back: %+v, %v", back, err)
	}
	if _, err := s.Fail(m.ID, spool.Reply{Status: "5.7.1", Text: "deleted", Command: spool.CommandDelete}); err != nil {
		t.Fatal(err)
	}
	other := m
	other.Size, other.Content.Sum = 0, 0
	if _, err := carry(t, s, other, ""); !errors.Is(err, spool.ErrExists) {
		t.Errorf("another message of that ID: %v", err)
	}
	if _, err := carry(t, s, m, content); err != nil {
		t.Errorf("after it was deleted: %v", err)
	}
	finishAll(t, s, m.ID, spool.Relayed, false)
	if _, err := carry(t, s, m, content); !errors.Is(err, spool.ErrExists) {
		t.Errorf("after it was relayed: %v", err)
	}
}

func TestImportOfASubmissionThatIsHereIsRefused(t *testing.T) {
	const content = "Subject: x\r\n\r\nhello\r\n"
	_, m := origin(t, content)
	m.Submission[3] = 9
	to := spooltest.New(t, spool.Options{})
	d, err := to.NewDraft(0)
	if err != nil {
		t.Fatal(err)
	}
	here := spooltest.Message(t, "a@x.test")
	here.Submission = m.Submission
	if _, err := d.Commit(here); err != nil {
		t.Fatal(err)
	}
	if _, err := carry(t, to, m, content); !errors.Is(err, spool.ErrExists) {
		t.Errorf("got %v", err)
	}
}
