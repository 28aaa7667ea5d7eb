package submit_test

import (
	"strings"
	"testing"

	"postino/spool/submit"
)

// What relays refuse becomes what they take, and nothing else of it changes.
func TestAddressesMailIsFromAreTreatedAsThePolicySays(t *testing.T) {
	force := submit.From{Envelope: submit.Force, Header: submit.Force, Address: "{user}@example.com"}
	named := submit.From{Envelope: submit.Force, Header: submit.Force, Address: "{hostname}@{hostname}.example", KeepAs: "X-Original-From"}
	replyTo := submit.From{Header: submit.Force, Address: "noreply@example.com", KeepAs: "Reply-To"}
	for _, tt := range []struct {
		from           submit.From
		sender, header string
		envelope, want string
	}{
		{submit.From{}, "root@localhost", "From: root (Cron Daemon)\r\nTo: root\r\n", "root@dom.test", "From: root@dom.test (Cron Daemon)\r\nTo: root@dom.test\r\n"},
		{submit.From{Envelope: submit.Keep, Header: submit.Keep}, "root@localhost", "From: root (Cron Daemon)\r\nTo: root\r\n", "root@dom.test", "From: root (Cron Daemon)\r\nTo: root\r\n"},
		{force, "root@localhost", "From:  mdadm  monitoring <root>\r\nTo: root\r\n", "root@example.com", "From:  mdadm  monitoring <root@example.com>\r\nTo: root@dom.test\r\n"},
		{force, "www@web.test", "FROM: WordPress\r\n <wordpress@web.test> (x)\r\nSender: w@web.test\r\nReply-To: me@y.test\r\n", "www@example.com",
			"FROM: WordPress\r\n <wordpress@example.com> (x)\r\nSender: w@example.com\r\nReply-To: me@y.test\r\n"},
		{force, "", "From: root\r\n", "", "From: root@example.com\r\n"},
		{force, "a@web.test", "From: a@@b\r\n", "a@example.com", "From: a@@b\r\n"},
		{force, "a@web.test", "From: a@web.test (x) , \"b c\"@web.test\r\n", "a@example.com", "From: a@example.com (x) , \"b c\"@example.com\r\n"},
		{named, "a@web.test", "From: A <a>\r\nTo: b@y.test\r\n", "host.test@host.test.example", "From: A <host.test@host.test.example>\r\nTo: b@y.test\r\nX-Original-From: A <a@dom.test>\r\n"},
		{replyTo, "a@web.test", "From: A <a>\r\n", "a@web.test", "From: A <noreply@example.com>\r\nReply-To: A <a@dom.test>\r\n"},
		{replyTo, "a@web.test", "From: A <a>\r\nReply-to: c\r\n", "a@web.test", "From: A <noreply@example.com>\r\nReply-to: c@dom.test\r\n"},
		{replyTo, "a@web.test", "From: noreply@example.com\r\n", "a@web.test", "From: noreply@example.com\r\n"},
	} {
		r := newRig(t)
		p := testPolicy
		p.From = tt.from
		r.srv.SetPolicy(p)
		fixed := "Date: Fri, 2 Jan 2026 03:04:05 +0000\r\nMessage-ID: <x@y>\r\n"
		r.talk("EHLO x\r\nMAIL FROM:<" + tt.sender + ">\r\nRCPT TO:<b@y.test>\r\nDATA\r\n" + fixed + tt.header + "\r\nroot\r\n.\r\nQUIT\r\n")
		list := r.messages()
		if len(list) != 1 {
			t.Fatalf("%q: %d messages", tt.header, len(list))
		}
		if got := list[0].Sender.String(); got != tt.envelope && !(tt.envelope == "" && list[0].Sender.IsNull()) {
			t.Errorf("sender %q becomes %q, want %q", tt.sender, got, tt.envelope)
		}
		_, got, _ := strings.Cut(r.content(list[0]), fixed)
		if want := tt.want + "\r\nroot\r\n"; got != want {
			t.Errorf("%q becomes\n%q, want\n%q", tt.header, got, want)
		}
	}
}
