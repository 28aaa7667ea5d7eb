package submit_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"postino/spool/address"
	"postino/spool/handoff"
)

// The law: what a front end left in drop/ and called stored, the runner takes, with
// the recipients, sender and parameters that were meant, and sets none of it aside.
func FuzzWhatIsLeftIsTaken(f *testing.F) {
	f.Add("root", "root", "", "")
	f.Add("a@b.test", `"odd\" > one"@c.test, x@[192.0.2.1], "a@b"@d.test, ü@e.test`, "+00=\x7f x", "Subject: x\r\n\r\nhi\r\n")
	f.Add("<>", `"quoted local", "@"@x.test, "<"@x.test, "a b"@x.test, [x]@y`, "QQ314159", "")
	f.Add(`"a\\b"@c.test`, strings.Repeat("x", 64)+"@"+strings.Repeat("label.", 30)+"test", strings.Repeat("=", 100), "X:y\r\n\r\n")
	shared := newSharedRig(f)
	f.Fuzz(func(t *testing.T, from, to, envid, head string) {
		sender, err := address.ParsePath(from)
		if err != nil {
			return
		}
		list, err := address.ParseList(to)
		if err != nil || len(list) == 0 || len(envid) > 100 {
			return
		}
		r := shared.in(t)
		s := &handoff.Submission{ID: handoff.NewID(time.Now()), Sender: sender, EnvelopeID: printableASCII(envid), UTF8: sender.UTF8(), Head: []byte("\r\n")}
		if strings.HasSuffix(head, "\r\n\r\n") && strings.Count(head, "\n") == strings.Count(head, "\r\n") {
			s.Head = []byte(head)
		}
		want := make(map[string]bool)
		for _, a := range list {
			s.UTF8 = s.UTF8 || a.UTF8()
			s.Recipients = append(s.Recipients, handoff.Recipient{Address: a, Notify: []string{"FAILURE", "DELAY"}})
			if a.Domain == "" || strings.EqualFold(a.Domain, "localhost") {
				a.Domain = "dom.test"
			}
			want[a.Key()] = true
		}
		_, dropped, err := handoff.Submit(r.dir, s)
		if err != nil || !dropped {
			t.Fatalf("%q to %q: %v, %v", from, to, dropped, err)
		}
		r.scan()
		if left := r.dropped(); len(left) != 0 {
			t.Fatalf("%q to %q: %q is left:\n%s", from, to, left, r.log)
		}
		found := 0
		for _, m := range r.messages() {
			if r.known[m.ID.String()] {
				continue
			}
			r.known[m.ID.String()] = true
			found++
			if sender.Domain == "" && !sender.IsNull() || strings.EqualFold(sender.Domain, "localhost") {
				sender.Domain = "dom.test"
			}
			if m.Sender != sender || m.EnvelopeID != s.EnvelopeID || len(m.Recipients) != len(want) {
				t.Fatalf("%q to %q, %q became %+v", from, to, s.EnvelopeID, m)
			}
			for _, rcpt := range m.Recipients {
				if !want[rcpt.Address.Key()] || !slices.Equal(rcpt.Notify, []string{"FAILURE", "DELAY"}) {
					t.Fatalf("%q to %q: %+v", from, to, rcpt)
				}
			}
		}
		if found != 1 {
			t.Fatalf("%q to %q: %d messages", from, to, found)
		}
	})
}

// printableASCII is what the front end lets through as an ENVID.
func printableASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
}

// What a front end takes for one message the runner keeps, above its policy's limits
// too: taken with the refusal, not set aside. What is more, the front end refuses itself.
func TestMostRecipientsAreTakenFromDrop(t *testing.T) {
	r := newRig(t)
	s := &handoff.Submission{ID: handoff.NewID(time.Now()), Sender: address.Address{Local: "a", Domain: "b.test"}, Head: []byte("\r\n")}
	for i := range handoff.MaxRecipients {
		name := strings.Repeat("x", 40) + dropName(i)[20:]
		s.Recipients = append(s.Recipients, handoff.Recipient{Address: address.Address{Local: name, Domain: strings.Repeat("label.", 30) + "test"}})
	}
	if _, dropped, err := handoff.Submit(r.dir, s); err != nil || !dropped {
		t.Fatal(dropped, err)
	}
	r.scan()
	list := r.messages()
	if len(list) != 1 || len(list[0].Recipients) != handoff.MaxRecipients || list[0].Refused == nil {
		t.Fatalf("%d messages; in drop/: %q\n%.3000s", len(list), r.dropped(), r.log)
	}
	s.ID = handoff.NewID(time.Now())
	s.Recipients = append(s.Recipients, handoff.Recipient{Address: address.Address{Local: "one", Domain: "more.test"}})
	if _, _, err := handoff.Submit(r.dir, s); !errors.Is(err, handoff.ErrTooManyRecipients) || len(r.dropped()) != 0 {
		t.Errorf("one more: %v; in drop/: %q", err, r.dropped())
	}
}
