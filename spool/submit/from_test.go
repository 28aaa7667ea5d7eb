package submit_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"postino/spool/submit"
)

// What relays refuse becomes what they take, and nothing else of it changes.
func TestAddressesMailIsFromAreTreatedAsThePolicySays(t *testing.T) {
	force := submit.From{Envelope: submit.Force, Header: submit.Force, Address: "{user}@example.com"}
	named := submit.From{Envelope: submit.Force, Header: submit.Force, Address: "{hostname}@{hostname}.example", KeepAs: "X-Original-From"}
	replyTo := submit.From{Header: submit.Force, Address: "noreply@example.com", KeepAs: "Reply-To"}
	generic := submit.From{Generic: map[string]string{"root": "ops@example.com", "www-data": "shop@example.com", "backup@web.test": "b@example.net", "@web.test": "@example.com"}, KeepAs: "X-Original-From"}
	both := generic
	both.Envelope, both.Header, both.Address, both.KeepAs = submit.Force, submit.Force, "rest@example.com", ""
	renamed := submit.From{Header: submit.Force, Address: "{user}@example.com", Name: "{name} on {hostname}", KeepAs: "X-Original-From"}
	kept := generic
	kept.Envelope, kept.Header = submit.Keep, submit.Keep
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
		{submit.From{}, "a@x.test", "From: WordPress <wordpress@>\r\nTo: x@\r\n", "a@x.test", "From: WordPress <wordpress@dom.test>\r\nTo: x@\r\n"},
		{force, "a@x.test", "From: wordpress@ \r\nReply-To: \"a@ x\" <b@>, c@y.test\r\n", "a@example.com", "From: wordpress@example.com \r\nReply-To: \"a@ x\" <b@dom.test>, c@y.test\r\n"},
		{submit.From{}, "a@x.test", "From: \"a@ b\" <b@y.test>\r\nSender: a@@b@\r\n", "a@x.test", "From: \"a@ b\" <b@y.test>\r\nSender: a@@b@\r\n"},
		{generic, "root@localhost", "From: root (Cron Daemon)\r\nTo: root\r\n", "ops@example.com", "From: ops@example.com (Cron Daemon)\r\nTo: ops@example.com\r\nX-Original-From: root@dom.test (Cron Daemon)\r\n"},
		{generic, "", "From: Root <ROOT@own.test>\r\nCc: x@web.test, backup@WEB.test\r\n", "", "From: Root <ops@example.com>\r\nCc: x@example.com, b@example.net\r\nX-Original-From: Root <ROOT@own.test>\r\n"},
		{generic, "www-data@host.test", "From: a@y.test\r\n", "shop@example.com", "From: a@y.test\r\n"},
		{generic, "www-data@web.test", "From: www-data@y.test\r\n", "www-data@example.com", "From: www-data@y.test\r\n"},
		{both, "root@localhost", "From: bob@web.test\r\nSender: root\r\nReply-To: eve\r\n", "ops@example.com", "From: bob@example.com\r\nSender: ops@example.com\r\nReply-To: eve@dom.test\r\n"},
		{both, "eve@y.test", "From: eve@y.test\r\nTo: eve@y.test\r\n", "rest@example.com", "From: rest@example.com\r\nTo: eve@y.test\r\n"},
		{renamed, "a@y.test", "From: root (Cron Daemon)\r\nTo: root\r\n", "a@y.test", "To: root@dom.test\r\nFrom: \"Cron Daemon on host.test\" <root@example.com>\r\nX-Original-From: root@dom.test (Cron Daemon)\r\n"},
		{renamed, "a@y.test", "From: =?utf-8?q?J=C3=BCrg?= <j@y.test>\r\n", "a@y.test", "From: =?UTF-8?B?SsO8cmcgb24gaG9zdC50ZXN0?= <j@example.com>\r\nX-Original-From: =?utf-8?q?J=C3=BCrg?= <j@y.test>\r\n"},
		{renamed, "a@y.test", "From: a@y.test, b@y.test\r\n", "a@y.test", "From: a@example.com, b@example.com\r\nX-Original-From: a@y.test, b@y.test\r\n"},
		{kept, "root@localhost", "From: root@web.test\r\n", "root@dom.test", "From: root@web.test\r\n"},
	} {
		r := newRig(t)
		p := testPolicy
		p.From, p.LocalDomains = tt.from, []string{"own.test"}
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

// A user may be who the policy says, in the envelope and as an author, and nobody else.
func TestWhoMaySendAsWhom(t *testing.T) {
	me := strconv.Itoa(os.Getuid())
	shop := []string{"@shop.example", "bob@y.test", "www"}
	r := newRig(t)
	for _, tt := range []struct {
		allow          map[string][]string
		sender, header string
		want           string
	}{
		{nil, "x@x.test", "From: y@y.test\r\n", "250"},
		{map[string][]string{"54321": shop}, "x@x.test", "From: y@y.test\r\n", "250"},
		{map[string][]string{me: shop}, "a@shop.example", "From: A <b@SHOP.example>\r\n", "250"},
		{map[string][]string{me: shop}, "a@shop.example", "", "250"},
		{map[string][]string{me: shop}, "bob@y.test", "From: www\r\n", "250"},
		{map[string][]string{me: shop}, "bob@Y.test", "From: www@own.test\r\nReply-To: x@x.test\r\n", "250"},
		{map[string][]string{me: shop}, "", "From: a@shop.example\r\n", "250"},
		{map[string][]string{me: shop}, "x@x.test", "From: a@shop.example\r\n", "550 5.7.1 uid " + me + " may not send as x@x.test"},
		{map[string][]string{me: shop}, "a@shop.example", "From: ann@y.test\r\n", "550 5.7.1"},
		{map[string][]string{me: shop}, "a@shop.example", "From: a@sub.shop.example\r\n", "550 5.7.1"},
		{map[string][]string{me: shop}, "a@shop.example", "From: a@shop.example, x@x.test\r\n", "550 5.7.1"},
		{map[string][]string{me: shop}, "a@shop.example", "From: a@shop.example\r\nFrom: x@x.test\r\n", "550 5.7.1"},
		{map[string][]string{me: shop}, "a@shop.example", "From: a@shop.example\r\nSender: x@x.test\r\n", "550 5.7.1"},
		{map[string][]string{me: shop}, "a@shop.example", "From: a@shop.example\r\nResent-From: x@x.test\r\n", "550 5.7.1"},
		{map[string][]string{me: shop}, "a@shop.example", "From: x@x.test <a@shop.example\r\n", "550 5.7.1"},
		{map[string][]string{me: shop}, "", "From: x@x.test\r\n", "550 5.7.1"},
		{map[string][]string{"*": {"*"}}, "x@x.test", "From: y@y.test\r\n", "250"},
		{map[string][]string{"*": shop, me: {"*"}}, "x@x.test", "From: y@y.test\r\n", "250"},
		{map[string][]string{"*": {"postmaster"}}, "x@x.test", "From: y@y.test\r\n", "550 5.7.1"},
		{map[string][]string{"root": shop, "54321": {"*"}}, "x@x.test", "From: y@y.test\r\n", map[bool]string{true: "550 5.7.1", false: "250"}[me == "0"]},
	} {
		before := len(r.messages())
		p := testPolicy
		p.AllowFrom, p.LocalDomains = tt.allow, []string{"own.test"}
		r.srv.SetPolicy(p)
		got := r.talk("EHLO x\r\nMAIL FROM:<" + tt.sender + ">\r\nRCPT TO:<b@y.test>\r\nDATA\r\nSubject: x\r\n" + tt.header + "\r\nx\r\n.\r\nQUIT\r\n")
		if len(got) < 2 || !strings.HasPrefix(got[len(got)-2], tt.want) || (len(r.messages()) > before) != (tt.want == "250") {
			t.Errorf("%v: %q, %q: %q, %d stored, want %s", tt.allow, tt.sender, tt.header, got, len(r.messages())-before, tt.want)
		}
		if strings.Contains(r.log.String(), "ERROR") {
			t.Errorf("%s", r.log.String())
		}
	}
}

// Who was told by a drop file that it is here gets a report instead.
func TestDropFileOfWrongSenderIsStoredWithTheRefusal(t *testing.T) {
	r := newRig(t)
	p := testPolicy
	p.AllowFrom = map[string][]string{"*": {"@shop.example"}}
	r.srv.SetPolicy(p)
	name := strings.Repeat("a", 32)
	r.drop(name, recorded(name, "victim@y.test", []string{"1@y.test"}, hello))
	name = strings.Repeat("b", 32)
	r.drop(name, recorded(name, "web@shop.example", []string{"1@y.test"}, "From: victim@y.test\r\n"+hello))
	r.scan()
	list := r.messages()
	if len(list) != 2 {
		t.Fatalf("%+v", list)
	}
	for _, m := range list {
		if m.Refused == nil || m.Refused.Status != "5.7.1" {
			t.Errorf("%+v", m)
		}
		// The report, which has the mail in it, must not go to whomever it names.
		if m.Sender.Domain == "y.test" || m.Sender.Domain != "shop.example" && (m.Sender.IsNull() || !m.BareSender) {
			t.Errorf("from %s, bare: %v", m.Sender, m.BareSender)
		}
	}
}
