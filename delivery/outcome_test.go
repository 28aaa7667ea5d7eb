package delivery

import (
	"slices"
	"strings"
	"testing"
	"time"

	"postino/config"
	"postino/spool"
	"postino/spool/address"
)

// The delays double from first to most, each within 10 % of its step.
func TestRetryAfterDoublesUpToMost(t *testing.T) {
	first, most := 5*time.Minute, 4*time.Hour
	want := []time.Duration{5, 10, 20, 40, 80, 160, 240, 240, 240}
	for n, minutes := range want {
		step := minutes * time.Minute
		spread := make(map[time.Duration]bool)
		for range 50 {
			got := RetryAfter(n+1, first, most)
			if got < step*9/10 || got > step*11/10 {
				t.Fatalf("RetryAfter(%d) = %v, want %v ± 10 %%", n+1, got, step)
			}
			spread[got] = true
		}
		if len(spread) < 10 {
			t.Errorf("RetryAfter(%d) hardly spreads: %d values in 50", n+1, len(spread))
		}
	}
	if got := RetryAfter(1<<30, first, most); got > most*11/10 {
		t.Errorf("RetryAfter of many = %v", got)
	}
}

func TestOutcomeOfReplies(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	retry := config.Retry{First: config.Duration(5 * time.Minute), Max: config.Duration(4 * time.Hour), Lifetime: config.Duration(5 * 24 * time.Hour)}
	lifetime := time.Duration(retry.Lifetime)
	later := spool.Reply{Code: 451, Status: "4.3.0", Text: "later"}
	for _, tt := range []struct {
		name   string
		age    time.Duration
		before int // attempts that count
		reply  spool.Reply
		status spool.Status
		code   string
		next   time.Time // zero: none; else at the latest
	}{
		{"taken", 0, 0, spool.Reply{Code: 250, Status: "2.0.0"}, spool.Relayed, "2.0.0", time.Time{}},
		{"refused", 0, 0, spool.Reply{Code: 550, Status: "5.1.1"}, spool.Failed, "5.1.1", time.Time{}},
		{"our password", 0, 0, spool.Reply{Code: 535, Status: "4.7.8"}, spool.Deferred, "4.7.8", now.Add(6 * time.Minute)},
		{"later", 0, 0, later, spool.Deferred, "4.3.0", now.Add(6 * time.Minute)},
		{"near the end", lifetime - time.Minute, 0, later, spool.Deferred, "4.3.0", now.Add(time.Minute)},
		{"at the end", lifetime, 40, later, spool.Failed, "4.4.7", time.Time{}},
		{"not tried before", 10 * lifetime, 0, later, spool.Deferred, "4.3.0", now.Add(6 * time.Minute)},
		{"tried for a quarter of an hour", lifetime, 2, later, spool.Deferred, "4.3.0", now.Add(22 * time.Minute)},
		{"tried for half an hour", lifetime, 3, later, spool.Failed, "4.4.7", time.Time{}},
		{"a fault of ours", 10 * lifetime, 40, spool.Reply{Code: 535, Status: "4.7.8", Fault: spool.FaultRelay}, spool.Deferred, "4.7.8", now.Add(5 * time.Hour)},
		{"from the future", -lifetime, 10, later, spool.Deferred, "4.3.0", now.Add(5 * time.Hour)},
		{"from the future, and tried for as long as may be", -lifetime, 40, later, spool.Failed, "4.4.7", time.Time{}},
		{"long past it, taken all the same", 10 * lifetime, 0, spool.Reply{Code: 250, Status: "2.0.0"}, spool.Relayed, "2.0.0", time.Time{}},
	} {
		m := &spool.Message{Arrived: now.Add(-tt.age), Sender: address.Address{Local: "s", Domain: "x.test"}, Recipients: []spool.Recipient{{Attempts: tt.before + 7, Waited: 7}}}
		o := outcome(m, 0, tt.reply, spool.Relayed, retry, now)
		if o.Status != tt.status || o.Reply.Status != tt.code {
			t.Errorf("%s: %+v, want %s %s", tt.name, o, tt.status, tt.code)
		}
		if o.Next.After(tt.next) || o.Next.IsZero() != tt.next.IsZero() {
			t.Errorf("%s: next %v, want by %v", tt.name, o.Next, tt.next)
		}
		if tt.code == "4.4.7" && !strings.Contains(o.Reply.Text, "451 4.3.0 later") {
			t.Errorf("%s: the last reply is lost: %q", tt.name, o.Reply.Text)
		}
	}
}

func TestDueRecipientsAlone(t *testing.T) {
	now := time.Now()
	m := &spool.Message{Recipients: []spool.Recipient{
		{Status: spool.Queued},
		{Status: spool.Deferred, Next: now.Add(time.Hour)},
		{Status: spool.Relayed},
		{Status: spool.Deferred, Next: now},
	}}
	for _, tt := range []struct {
		force bool
		held  string
		want  []int
	}{{false, "", []int{0, 3}}, {true, "", []int{0, 1, 3}}, {true, "held", nil}} {
		m.Held = tt.held
		if got := due(m, now, tt.force); !slices.Equal(got, tt.want) {
			t.Errorf("force %v, held %q: %v, want %v", tt.force, tt.held, got, tt.want)
		}
	}
}
