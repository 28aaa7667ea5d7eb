package cmd_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postino/delivery/relay/relaytest"
)

// Mail for names of this machine goes to whom they stand for, an edit counts at once,
// and what stands for nothing that can be sent to is told to its sender.
func TestNamesGoToTheirAliases(t *testing.T) {
	t.Parallel()
	s, b := plainRelay(t)
	file := filepath.Join(b.dir, "aliases")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b.configure("local_domains = [\"host.test\"]\n" + relayTo(s.Port()) + "[aliases]\nfile = \"" + file + "\"\n")
	write("root: admin@example.com\nops: root, carol@example.net\nloop: pool\npool: loop\nnull: /dev/null\npipe: \"|/bin/cat\"\n")
	b.start()
	for _, tt := range []struct{ to, sent string }{
		{"root", "admin@example.com"},
		{"ROOT@Host.test", "admin@example.com"},
		{"root@localhost", "admin@example.com"},
		{"root@web.test", "root@web.test"}, // a domain that is not this machine's
		{"ops", "admin@example.com carol@example.net"},
		{"null", ""},
		{"bob", "bob@web.test"},
	} {
		before, finished := len(s.Messages()), b.log.count("msg=finished")
		b.sendmail("Subject: x\n\nhi\n", "-N", "never", tt.to)
		b.log.awaitN(t, finished+1, "msg=finished")
		var to []string
		for _, m := range s.Messages()[before:] {
			to = append(to, m.To...)
		}
		if got := strings.Join(to, " "); got != tt.sent {
			t.Errorf("%s: sent to %q, want %q", tt.to, got, tt.sent)
		}
		routed := b.run(b.command("", program("postino"), "route", tt.to)).out
		for _, a := range strings.Fields(tt.sent) {
			if !strings.Contains(routed, a+": relay 127.0.0.1") {
				t.Errorf("route %s says\n%s", tt.to, routed)
			}
		}
	}
	for to, why := range map[string]string{"loop": "5.4.6", "pipe": "5.7.1"} {
		subject := "Not delivered: \"about " + to + "\" to " + to + "@web.test"
		b.sendmail("Subject: about "+to+"\n\nhi\n", "-f", "me@example.org", to)
		var report *relaytest.Message
		poll(t, "a report about "+to, func() bool {
			report = messageWith(t, s, subject)
			return report != nil
		})
		if text := string(report.Data); !strings.Contains(text, "Status: "+why) || !strings.Contains(text, "Diagnostic-Code: X-Postino;") {
			t.Errorf("the report about %s:\n%s", to, text)
		}
	}
	write("root: new@example.com\n")
	b.sendmail("Subject: edited\n\nhi\n", "root")
	poll(t, "mail by the new alias", func() bool {
		m := messageWith(t, s, "edited")
		return m != nil && strings.Join(m.To, "") == "new@example.com"
	})
}
