package cmd_test

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
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
	const tree = "ops  (line 2)\n    root  (line 1)\n        admin@example.com\n    carol@example.net\n"
	if got := b.postino("aliases", "expand", "OPS"); !strings.EqualFold(got, tree) {
		t.Errorf("aliases expand says\n%s", got)
	}
	if got := b.postino("aliases", "expand", "--json", "root@localhost"); got != `{"name":"root@localhost","kind":"alias","line":1,"below":[{"name":"admin@example.com","kind":"address"}]}`+"\n" {
		t.Errorf("aliases expand --json says\n%s", got)
	}
	if r := b.run(b.command("", program("postino"), "aliases", "expand", "loop")); r.code != 78 || !strings.Contains(r.err, "leads back to itself") {
		t.Errorf("aliases expand loop: %+v", r)
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

// Programs and files get mail as the user they are run as, by a service that is that
// user and nobody else, once an administrator allows it; what a list's owner wants to
// know goes to the owner.
func TestAliasesForProgramsAndOwners(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	s, b := plainRelay(t, relaytest.Rule{At: "RCPT", Arg: "<gone@example.net>", Reply: "550 5.1.1 no such user"})
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(nobody.Uid)
	if err != nil {
		t.Fatal(err)
	}
	b.giveTo(spoolUID)
	shared := filepath.Join(b.dir, "shared")
	for _, err := range []error{os.Mkdir(shared, 0o777), os.Chmod(shared, 0o777)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(b.dir, "aliases")
	text := "prog: \"|cat >" + shared + "/$LOCAL.out; id -u >>" + shared + "/$LOCAL.out\"\nfile: " + shared + "/file\nrefuse: |echo closed; exit 69\n" +
		"list: gone@example.net, carol@example.net\nowner-list: boss@example.com\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	base := relayTo(s.Port()) + "[aliases]\nfile = \"" + file + "\"\n"
	socket := b.service("program.sock", uid, "program", "serve")
	send := func(subject, to string) {
		before := b.log.count("msg=finished")
		b.sendmail("Subject: "+subject+"\n\nhi\n", "-f", "me@example.org", to)
		b.log.awaitN(t, before+1, "msg=finished")
	}
	report := func(subject string) string {
		var report *relaytest.Message
		poll(t, "a report: "+subject, func() bool {
			report = messageWith(t, s, subject)
			return report != nil
		})
		return strings.Join(report.To, " ") + "\n" + string(report.Data)
	}

	b.configure(base)
	r := b.start()
	send("off", "prog")
	if text := report(`Not delivered: "off" to prog@web.test`); !strings.Contains(text, "Status: 5.7.1") || !strings.Contains(text, "aliases.programs") {
		t.Errorf("not allowed: %s", text)
	}
	r.stop()

	b.configure(base + "programs = true\nhelper = \"" + socket + "\"\n")
	b.start()
	send("on", "prog")
	send("to a file", "file")
	for _, name := range []string{"prog.out", "file"} {
		text, err := os.ReadFile(filepath.Join(shared, name))
		info, statErr := os.Stat(filepath.Join(shared, name))
		if err != nil || statErr != nil || !strings.HasPrefix(string(text), "From me@example.org ") || !strings.Contains(string(text), "\nhi\n") ||
			int(info.Sys().(*syscall.Stat_t).Uid) != uid {
			t.Errorf("%s: %q, %v, %v", name, text, err, statErr)
		}
	}
	send("shut", "refuse")
	if text := report(`Not delivered: "shut" to refuse@web.test`); !strings.Contains(text, "Status: 5.3.0") || !strings.Contains(text, "closed") {
		t.Errorf("a program that refuses: %s", text)
	}
	send("to all", "list")
	if text := report(`Not delivered: "to all" to gone@example.net`); !strings.HasPrefix(text, "boss@example.com\n") || !strings.Contains(text, "5.1.1") {
		t.Errorf("the owner's report: %s", text)
	}
	if m := messageWith(t, s, "to all"); m == nil || m.From != "owner-list@web.test" {
		t.Errorf("the list's mail: %+v", m)
	}
}
