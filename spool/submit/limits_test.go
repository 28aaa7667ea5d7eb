package submit_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"postino/spool"
	"postino/spool/submit"
)

func TestMailThatSaysSoIsBulk(t *testing.T) {
	r := newRig(t)
	for field, want := range map[string]bool{
		"Precedence: bulk":                    true,
		"precedence:  List ":                  true,
		"Precedence: JUNK":                    true,
		"Precedence: first-class":             false,
		"List-Id: News <news.example.org>":    true,
		"List-Unsubscribe: <https://x.test/>": true,
		"X-Precedence: bulk":                  false,
		"Subject: Precedence: bulk":           false,
	} {
		got := r.talk("EHLO x\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n" + field + "\r\n\r\nx\r\n.\r\nQUIT\r\n")
		if len(got) < 5 {
			t.Fatalf("%s: %q", field, got)
		}
		for m := range r.spool.Queue() {
			if m.Bulk != want {
				t.Errorf("%s: bulk = %v", field, m.Bulk)
			}
			if _, err := r.spool.Fail(m.ID, spool.Reply{Status: "5.0.0"}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// server makes another server of the rig's spool, as after a restart.
func (r *rig) server(p submit.Policy) {
	r.t.Helper()
	r.srv.Shutdown(r.t.Context())
	r.srv = submit.New(r.spool, p, slog.New(slog.NewTextHandler(r.log, nil)))
	r.t.Cleanup(func() { r.srv.Shutdown(context.Background()) })
}

// leave leaves n drop files with so many recipients each, and has them taken.
func (r *rig) leave(first, n, recipients int) {
	r.t.Helper()
	var to []string
	for i := range recipients {
		to = append(to, fmt.Sprintf("%d@y.test", i))
	}
	for i := range n {
		name := fmt.Sprintf("%032x", first+i)
		r.drop(name, recorded(name, "a@b.test", to, hello))
		r.scan() // one after the other, so that their order is known
	}
}

func (r *rig) held() (n int) {
	for _, m := range r.messages() {
		if m.Held != "" {
			n++
		}
	}
	return n
}

func TestMailAboveTheLimitIsHeldNotLost(t *testing.T) {
	r := newRig(t)
	p := testPolicy
	p.PerUID = submit.Rate{N: 3, Per: time.Hour}
	r.srv.SetPolicy(p)
	for range 2 {
		if got := r.talk(recorded("x", "a@b.test", []string{"b@y.test"}, hello)); !strings.HasPrefix(got[len(got)-1], "250 Ok: queued as") {
			t.Errorf("replies = %q", got)
		}
	}
	r.leave(1, 3, 1)
	if got := r.talk(recorded("x", "a@b.test", []string{"b@y.test"}, hello)); !strings.HasPrefix(got[len(got)-1], "250 Ok: queued as") {
		t.Errorf("above the limit: %q", got)
	}
	list := r.messages()
	if len(list) != 6 || r.held() != 3 {
		t.Fatalf("%d messages, %d held; want 6 and 3", len(list), r.held())
	}
	for _, m := range list {
		if m.Held != "" && (m.HeldBy != spool.ByLimit || !strings.Contains(m.Held, "more than 3 messages in an hour: limits.per_uid sets the limit")) {
			t.Errorf("held by %q: %q", m.HeldBy, m.Held)
		}
	}
	if n := strings.Count(r.log.String(), "limit reached"); n != 1 {
		t.Errorf("%d alerts, want one:\n%s", n, r.log)
	}
	// A restart does not give the uid another hour, and what was delivered counts.
	for _, m := range list {
		if m.Held == "" {
			a := &spool.Attempt{Outcomes: []spool.Outcome{{Status: spool.Relayed, Reply: spool.Reply{Status: "2.0.0"}}}}
			if _, err := r.spool.Record(m.ID, a); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	r.server(p)
	r.leave(100, 1, 1)
	if r.held() != 4 {
		t.Errorf("%d held after a restart, want 4", r.held())
	}
	// What was held and is gone does not count, nor does what suspension holds.
	p.PerUID.N = 5
	for _, m := range r.messages() {
		if m.HeldBy == spool.ByLimit {
			if _, err := r.spool.Fail(m.ID, spool.Reply{Status: "5.7.1"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.server(p)
	if err := r.spool.Suspend(spool.Suspension{UID: os.Getuid()}); err != nil {
		t.Fatal(err)
	}
	r.leave(200, 4, 1)
	if _, err := r.spool.Resume(os.Getuid()); err != nil {
		t.Fatal(err)
	}
	r.leave(300, 3, 1)
	if r.held() != 1 {
		t.Errorf("%d held, want 1: three of five were used, and three came", r.held())
	}
}

func TestRecipientsOfAUIDAreCounted(t *testing.T) {
	r := newRig(t)
	p := testPolicy
	p.RecipientsPerUID = submit.Rate{N: 10, Per: time.Hour}
	r.srv.SetPolicy(p)
	r.leave(1, 2, 4)
	r.leave(3, 1, 3) // held as a whole, and does not count
	r.leave(4, 1, 2)
	r.leave(5, 1, 1)
	list := r.messages()
	for i, want := range []bool{false, false, true, false, true} {
		if got := list[i].Held != ""; got != want {
			t.Errorf("message %d: held = %v, want %v (%s)", i, got, want, list[i].Held)
		}
	}
	// A second arrival is the first message, and counts once.
	p.RecipientsPerUID.N = 20
	r.srv.SetPolicy(p)
	for range 5 {
		r.leave(50, 1, 5)
	}
	r.leave(51, 1, 5)
	if r.held() != 2 {
		t.Errorf("%d held, want 2 as before", r.held())
	}
}
