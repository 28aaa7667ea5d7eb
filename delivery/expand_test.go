package delivery

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postino/config"
	"postino/spool"
	"postino/spool/address"
)

// recipient is one such as "root", bare, or "root@host.test".
func recipient(t *testing.T, text string) spool.Recipient {
	t.Helper()
	a, err := address.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	r := spool.Recipient{Status: spool.Queued, Bare: a.Domain == ""}
	if r.Bare {
		a.Domain = "dom.test"
	}
	r.Address = a
	return r
}

// sendmail -n: who is an alias gets the mail himself, be the file of aliases readable or
// not.
func TestNoAliasesNeedsNoFileOfAliases(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "aliases")
	if err := os.WriteFile(file, []byte("root: admin@example.com\n*: all@example.com\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := config.Default()
	c.Hostname, c.Domain = "host.test", "dom.test"
	for _, path := range []string{file, filepath.Dir(file)} { // a directory cannot be read
		p := &plan{config: c, aliases: &aliasFile{path: path}}
		for _, name := range []string{"root", "root@host.test", "other"} {
			m := &spool.Message{Arrived: time.Now(), NoAliases: true, Recipients: []spool.Recipient{recipient(t, name)}}
			if a, rest := p.expand(m, []int{0}, time.Now()); describe(a, rest) != "goes on" {
				t.Errorf("%s: %s", name, describe(a, rest))
			}
			m.NoAliases = false
			if a, rest := p.expand(m, []int{0}, time.Now()); describe(a, rest) == "goes on" {
				t.Errorf("%s with aliases: %s", name, describe(a, rest))
			}
		}
	}
}

func TestRecipientsOfThisMachineMeetTheirAliases(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "aliases")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	listed := filepath.Join(t.TempDir(), "listed")
	if err := os.WriteFile(listed, []byte("ann@example.com\n/var/mail/x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	write(`root: admin@example.com
self: \self, ann@example.com
two: ann@example.com, bob@example.com
null: /dev/null
mixed: "|/bin/x", ann@example.com
loop1: loop2
loop2: loop1
gone: :include:/nonexistent
name: \mailbox
list: list, ann@example.com, |/bin/x
owner-list: bob@example.com
listed: :include:` + listed + `
`)
	c := config.Default()
	c.Hostname, c.Domain = "host.test", "dom.test"
	p := &plan{config: c, aliases: &aliasFile{path: file}}
	for _, tt := range []struct{ rcpt, notify, want string }{
		{"root", "", "expanded 2.0.0 [admin@example.com]"},
		{"root@host.test", "", "expanded 2.0.0 [admin@example.com]"},
		{"ROOT@HOST.test", "", "expanded 2.0.0 [admin@example.com]"},
		{"root@dom.test", "", "goes on"},
		{"root@example.com", "", "goes on"},
		{"other", "", "goes on"},
		{"self", "", "queued  final [ann@example.com]; goes on"},
		{"two", "SUCCESS", "expanded 2.0.0 [ann@example.com NEVER, bob@example.com NEVER]"},
		{"two", "SUCCESS,FAILURE", "expanded 2.0.0 [ann@example.com FAILURE, bob@example.com FAILURE]"},
		{"root", "SUCCESS", "expanded 2.0.0 [admin@example.com SUCCESS]"},
		{"null", "", "delivered 2.0.0 []"},
		{"mixed", "", "failed 5.7.1 [ann@example.com]"},
		{"loop1", "", "failed 5.4.6 []"},
		{"gone", "", "deferred 4.3.5 []"},
		{"name", "", `expanded 2.0.0 [mailbox@dom.test final]`},
	} {
		rcpt := recipient(t, tt.rcpt)
		if tt.notify != "" {
			rcpt.Notify = strings.Split(tt.notify, ",")
		}
		m := &spool.Message{Arrived: time.Now(), Recipients: []spool.Recipient{rcpt}}
		a, rest := p.expand(m, []int{0}, time.Now())
		if got := describe(a, rest); got != tt.want {
			t.Errorf("%s %s: %s, want %s", tt.rcpt, tt.notify, got, tt.want)
		}
		if a == nil {
			continue
		}
		for _, child := range a.Children {
			if child.Original != "rfc822;"+rcpt.Address.String() {
				t.Errorf("%s: ORCPT is %s", tt.rcpt, child.Original)
			}
		}
	}

	// Where they are allowed, programs and files take the place of the alias.
	c.Aliases.Programs = true
	for rcpt, want := range map[string]string{
		"mixed":  "expanded 2.0.0 [mixed@dom.test |/bin/x final, ann@example.com]",
		"list":   "queued  final owner-list@dom.test [ann@example.com owner-list@dom.test, list@dom.test |/bin/x final owner-list@dom.test]; goes on",
		"listed": "failed 5.7.1 [ann@example.com]",
		"null":   "delivered 2.0.0 []",
	} {
		m := &spool.Message{Arrived: time.Now(), Sender: address.Address{Local: "s", Domain: "x.test"}, Recipients: []spool.Recipient{recipient(t, rcpt)}}
		if got := describe(p.expand(m, []int{0}, time.Now())); got != want {
			t.Errorf("%s with programs: %s, want %s", rcpt, got, want)
		}
	}

	// Not of a file that others may write.
	if err := os.Chmod(file, 0o620); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, time.Time{}, time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	for rcpt, want := range map[string]string{"mixed": "deferred 4.3.5 []", "root": "expanded 2.0.0 [admin@example.com]", "null": "delivered 2.0.0 []"} {
		m := &spool.Message{Arrived: time.Now(), Recipients: []spool.Recipient{recipient(t, rcpt)}}
		if got := describe(p.expand(m, []int{0}, time.Now())); got != want {
			t.Errorf("%s of a file that others may write: %s, want %s", rcpt, got, want)
		}
	}

	// An edited file is seen, and one that was broken since does no harm to those who
	// do not need the line.
	write("root: new@example.com\nbroken\n")
	for rcpt, want := range map[string]string{"root": "expanded 2.0.0 [new@example.com]", "two": "deferred 4.3.5 []"} {
		m := &spool.Message{Arrived: time.Now(), Recipients: []spool.Recipient{recipient(t, rcpt)}}
		if got := describe(p.expand(m, []int{0}, time.Now())); got != want {
			t.Errorf("%s after the edit: %s, want %s", rcpt, got, want)
		}
	}
	c.LocalDomains = []string{"example.com"}
	write("root: new@example.org\n")
	for rcpt, want := range map[string]string{"root@host.test": "goes on", "root@EXAMPLE.com": "expanded 2.0.0 [new@example.org]"} {
		m := &spool.Message{Recipients: []spool.Recipient{recipient(t, rcpt)}}
		if got := describe(p.expand(m, []int{0}, time.Now())); got != want {
			t.Errorf("%s with local_domains: %s, want %s", rcpt, got, want)
		}
	}
}

func describe(a *spool.Attempt, rest []int) string {
	text := ""
	if a != nil {
		o := a.Outcomes[0]
		var children []string
		for _, c := range a.Children {
			s := strings.TrimSpace(c.Address.String() + " " + c.Target)
			if c.Final {
				s += " final"
			}
			if !c.Owner.IsNull() {
				s += " " + c.Owner.String()
			}
			if len(c.Notify) > 0 {
				s += " " + strings.Join(c.Notify, ",")
			}
			children = append(children, s)
		}
		text = fmt.Sprintf("%s %s", o.Status, o.Reply.Status)
		if o.Final {
			text += strings.TrimRight(" final "+o.Owner.String(), " ")
		}
		text += " [" + strings.Join(children, ", ") + "]"
		if len(rest) > 0 {
			text += "; "
		}
	}
	if len(rest) > 0 {
		text += "goes on"
	}
	return text
}
