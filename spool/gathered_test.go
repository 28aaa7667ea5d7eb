package spool_test

import (
	"testing"
	"time"

	"postino/spool"
	"postino/spool/spooltest"
)

// Gathered reports are replaced by one mail, all of them and it or nothing, and those
// that somebody settled meanwhile are passed over.
func TestGatheredReportsAreReplacedByOneMail(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	to := spooltest.Message(t, "ops@example.org").Recipients[0].Address
	gather := func(recipient string) spool.ID {
		m := spooltest.Message(t, recipient)
		m.Origin.Via = spool.ViaDSN
		m.Gathered = &spool.Gathered{About: 1, Action: "failed", Gist: []string{"a line"}}
		m.Recipients[0].Next = time.Now().Add(time.Hour)
		d, err := s.NewDraft(0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Write([]byte("report\r\n")); err != nil {
			t.Fatal(err)
		}
		id, err := d.Commit(m)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	waiting := func() (ids []spool.ID) {
		for m, err := range s.Gathered(to) {
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, m.ID)
		}
		return ids
	}
	ids := []spool.ID{gather("ops@example.org"), gather("ops@EXAMPLE.org"), gather("ops@example.org")}
	other, held := gather("oops@example.org"), gather("ops@example.org")
	spooltest.Put(t, s, "\"gathered\":{\r\n", "ops@example.org")
	if _, err := s.Hold(held, "wait"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = spooltest.Open(t, dir, spool.Options{})
	if got := waiting(); len(got) != 3 || got[0] != ids[0] || got[2] != ids[2] {
		t.Fatalf("%v wait, want %v", got, ids)
	}
	if _, err := s.Fail(ids[1], spool.Reply{Status: "5.7.1", Command: spool.CommandDelete}); err != nil {
		t.Fatal(err)
	}
	by := newReport(t, s, "digest\r\n")
	if err := s.Replace(ids, by, spool.Reply{Status: "2.0.0", Text: "together"}); err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		want := spool.Expanded
		if i == 1 {
			want = spool.Failed
		}
		if m, err := s.Message(id); err != nil || m.Recipients[0].Status != want || m.Finished.IsZero() {
			t.Errorf("%+v, %v", m, err)
		}
	}
	if m, err := s.Message(by.Draft.ID()); err != nil || m.Settled() {
		t.Errorf("the mail in their place is %+v, %v", m, err)
	}
	if got := waiting(); len(got) != 0 {
		t.Errorf("%v wait still", got)
	}
	if m, err := s.Message(other); err != nil || m.Settled() {
		t.Errorf("that to somebody else is %+v, %v", m, err)
	}
}
