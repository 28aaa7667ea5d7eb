package delivery

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"postino/config"
	"postino/spool"
	"postino/spool/address"
)

// Who is told what follows from what was asked for (RFC 3461 §4.1), and never is
// there a report about a report.
func TestReportsFollowWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	failed := spool.Outcome{Status: spool.Failed, Reply: spool.Reply{Status: "5.1.1"}}
	late := spool.Outcome{Status: spool.Deferred, Warned: true, Reply: spool.Reply{Status: "4.2.1"}}
	deferred := spool.Outcome{Status: spool.Deferred, Reply: spool.Reply{Status: "4.2.1"}}
	relayed := spool.Outcome{Status: spool.Relayed, Reply: spool.Reply{Status: "2.0.0"}}
	told := spool.Outcome{Status: spool.Relayed, Reply: spool.Reply{Status: "2.0.0", Notifies: true}}
	delivered := spool.Outcome{Status: spool.Delivered, Reply: spool.Reply{Status: "2.0.0"}}
	expanded := spool.Outcome{Status: spool.Expanded, Several: true, Reply: spool.Reply{Status: "2.0.0"}}
	forwarded := spool.Outcome{Status: spool.Expanded, Reply: spool.Reply{Status: "2.0.0"}}
	for _, tt := range []struct {
		notify, sender, bounceTo string
		outcome                  spool.Outcome
		want                     string
	}{
		{"", "s@x.test", "", failed, "failed s@x.test"},
		{"NEVER", "s@x.test", "", failed, ""},
		{"SUCCESS", "s@x.test", "", failed, ""},
		{"delay,failure", "s@x.test", "", failed, "failed s@x.test"},
		{"DELAY", "s@x.test", "", failed, ""},
		{"", "s@x.test", "", late, "delayed s@x.test"},
		{"FAILURE", "s@x.test", "", late, ""},
		{"DELAY", "s@x.test", "", late, "delayed s@x.test"},
		{"", "s@x.test", "", deferred, ""},
		{"", "s@x.test", "", relayed, ""},
		{"SUCCESS", "s@x.test", "", relayed, "relayed s@x.test"},
		{"SUCCESS", "s@x.test", "", told, ""},
		{"SUCCESS,FAILURE", "s@x.test", "", delivered, "delivered s@x.test"},
		{"NEVER", "s@x.test", "", delivered, ""},
		{"SUCCESS", "s@x.test", "", expanded, "expanded s@x.test"},
		{"SUCCESS", "s@x.test", "", forwarded, ""},
		{"FAILURE", "s@x.test", "", expanded, ""},
		{"", "", "", failed, ""},
		{"", "", "ops@x.test", failed, "failed ops@x.test"},
		{"NEVER", "s@x.test", "ops@x.test", failed, "failed ops@x.test"},
		{"", "s@x.test", "ops@x.test", failed, "failed s@x.test, failed ops@x.test"},
		{"", "ops@x.test", "ops@X.test", failed, "failed ops@x.test"},
		{"", "s@x.test", "r@y.test", failed, "failed s@x.test"}, // what goes to the operator himself
		{"", "s@x.test", "ops@x.test", late, "delayed s@x.test"},
	} {
		m := &spool.Message{Recipients: []spool.Recipient{{Address: address.Address{Local: "r", Domain: "y.test"}, Status: spool.Queued}}}
		if tt.sender != "" {
			m.Sender, _ = address.Parse(tt.sender)
		}
		if tt.notify != "" {
			m.Recipients[0].Notify = strings.Split(tt.notify, ",")
		}
		outcomes := []spool.Outcome{tt.outcome}
		var got []string
		for _, o := range reportsOwed(&config.Config{BounceTo: tt.bounceTo}, m, m.After(outcomes), outcomes) {
			got = append(got, fmt.Sprintf("%s %s", o.action, o.to))
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%+v: %q, want %q", tt, got, tt.want)
		}
		m.Recipients[0].Status = spool.Failed
		if owed := reportsOwed(&config.Config{BounceTo: tt.bounceTo}, m, m.After(outcomes), outcomes); len(owed) != 0 {
			t.Errorf("%+v: reported although it was settled before: %v", tt, owed)
		}
	}
	m := &spool.Message{Origin: spool.Origin{Via: spool.ViaDSN}, Sender: address.Address{Local: "s", Domain: "x.test"}, Recipients: []spool.Recipient{{Status: spool.Queued}}}
	if owed := reportsOwed(&config.Config{}, m, m.After([]spool.Outcome{failed}), []spool.Outcome{failed}); len(owed) != 0 {
		t.Errorf("a report about a report: %v", owed)
	}
}

// An operator's address that is an alias for one that fails starts no loop.
func TestNoReportToTheOperatorAboutHisOwnReports(t *testing.T) {
	t.Parallel()
	m := &spool.Message{Origin: spool.Origin{Via: spool.ViaDSN}, Recipients: []spool.Recipient{
		{Address: address.Address{Local: "root", Domain: "x.test"}, Status: spool.Expanded},
		{Address: address.Address{Local: "ops", Domain: "y.test"}, Status: spool.Queued},
	}}
	failed := []spool.Outcome{{Recipient: 1, Status: spool.Failed, Reply: spool.Reply{Status: "5.1.1"}}}
	if owed := reportsOwed(&config.Config{BounceTo: "root@x.test"}, m, m.After(failed), failed); len(owed) != 0 {
		t.Errorf("%+v", owed)
	}
	m.Recipients[0].Address.Local = "somebody"
	if owed := reportsOwed(&config.Config{BounceTo: "root@x.test"}, m, m.After(failed), failed); len(owed) != 1 {
		t.Errorf("of a report to somebody else: %+v", owed)
	}
}

// One report tells of all recipients with the same lot, and no other.
func TestOneReportForOneLot(t *testing.T) {
	t.Parallel()
	m := &spool.Message{Sender: address.Address{Local: "s", Domain: "x.test"}}
	for range 4 {
		m.Recipients = append(m.Recipients, spool.Recipient{Status: spool.Queued})
	}
	outcomes := []spool.Outcome{
		{Recipient: 0, Status: spool.Failed, Reply: spool.Reply{Status: "5.1.1"}},
		{Recipient: 1, Status: spool.Deferred, Warned: true, Reply: spool.Reply{Status: "4.2.1"}},
		{Recipient: 3, Status: spool.Failed, Reply: spool.Reply{Status: "5.1.1"}},
	}
	owed := reportsOwed(&config.Config{}, m, m.After(outcomes), outcomes)
	if len(owed) != 2 || !slices.Equal(owed[0].about, []int{0, 3}) || !slices.Equal(owed[1].about, []int{1}) {
		t.Errorf("%+v", owed)
	}
}

// Mail with the null reverse-path is given up after a day.
func TestReportsAreNotTriedForLong(t *testing.T) {
	t.Parallel()
	retry := config.Default().Retry
	now := time.Now()
	m := &spool.Message{Arrived: now, Sender: address.Address{Local: "s", Domain: "x.test"}}
	if got := expiry(m, retry).Sub(now); got != 5*24*time.Hour {
		t.Errorf("mail: %v", got)
	}
	m.Sender = address.Address{}
	if got := expiry(m, retry).Sub(now); got != 24*time.Hour {
		t.Errorf("reports: %v", got)
	}
	retry.Lifetime = config.Duration(time.Hour)
	if got := expiry(m, retry).Sub(now); got != time.Hour {
		t.Errorf("reports, with a short lifetime: %v", got)
	}
}
