package delivery_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postino/config"
	"postino/delivery/relay/relaytest"
	"postino/spool"
	"postino/spool/spooltest"
)

// What was in a mailbox before does not get there again, whoever sends it round; the
// other recipients have theirs, and the sender hears of it.
func TestMailThatComesRoundIsStopped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := start(t, t.TempDir(), settings(relaytest.New(t, relaytest.Options{}), func(c *config.Config) {
		c.Routes = []config.Route{{Recipients: []string{"@y.test"}, Transport: config.Transport{Kind: config.ViaMaildir, Path: filepath.Join(dir, "box")}}}
	}))
	head := "Subject: x\r\nDelivered-To: nobody@y.test\r\nX: " + strings.Repeat("long ", 2000) + "\r\ndelivered-to:  Ann@Y.test\r\n"
	for content, want := range map[string]spool.Status{
		head + "\r\nhello\r\n":                                      spool.Failed,
		"Subject: x\r\n\r\nDelivered-To: Ann@y.test\r\n":            spool.Delivered,
		"Subject: x\r\nX-Delivered-To: Ann@y.test\r\n\r\nhello\r\n": spool.Delivered,
		"Subject: x\r\nDelivered-To: Anna@y.test\r\n\r\nhello\r\n":  spool.Delivered,
		"Subject: x\r\nDelivered-To: <ann\r\n\r\nhello\r\n":         spool.Delivered,
		"Subject: x\r\nDelivered-To: Ann@y.test" /* no line end */ : spool.Failed,
	} {
		m := r.wait(spooltest.Put(t, r.spool, content, "Ann@y.test", "bob@y.test"), settled)
		if got := m.Recipients[0]; got.Status != want || want == spool.Failed && (got.Reply.Status != "5.4.6" || len(m.Reports) != 1) {
			t.Errorf("%.60q: %+v, reports %v, want %s", content, got, m.Reports, want)
		}
		if m.Recipients[1].Status != spool.Delivered {
			t.Errorf("%.60q: %+v", content, m.Recipients[1])
		}
	}
	if files, err := os.ReadDir(filepath.Join(dir, "box", "new")); err != nil || len(files) != 10 {
		t.Errorf("%d mails in the box, %v, want 10", len(files), err)
	}
}
