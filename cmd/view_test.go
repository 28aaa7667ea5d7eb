package cmd_test

import (
	"encoding/json"
	"io"
	"strings"
	"testing"
)

// message is what queue --json and trace --json say, as somebody else's program
// reads it: by the names in the manual.
type message struct {
	ID         string
	Sender     string
	UID        int
	Size       int
	Status     string
	Held       string
	Recipients []struct {
		Address  string
		Status   string
		Attempts int
		Next     string
		Reply    *reply
		Maybe    bool `json:"maybe_delivered"`
	}
	MessageID string `json:"message_id"`
	Subject   string
	Via       string
	PID       int
	Program   string
	Reports   []string `json:"reports"`
	Attempts  []struct {
		Hop        string
		TLS        string
		Recipients []string
		Replies    []reply
	}
}

type reply struct {
	Code                        int
	Status, Text, Host, Command string
}

// status is how it stands with one recipient.
func (m *message) status(address string) string {
	for _, r := range m.Recipients {
		if r.Address == address {
			return r.Status
		}
	}
	return "not a recipient"
}

// parseMessages reads one JSON object a line.
func parseMessages(t testing.TB, text string) []message {
	t.Helper()
	var list []message
	for d := json.NewDecoder(strings.NewReader(text)); ; {
		var m message
		err := d.Decode(&m)
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		list = append(list, m)
	}
}

func (b *box) queue() []message {
	b.t.Helper()
	return parseMessages(b.t, b.postino("queue", "--json"))
}

// trace is the life of the one message that what names.
func (b *box) trace(what string) *message {
	b.t.Helper()
	list := parseMessages(b.t, b.postino("trace", "--json", what))
	if len(list) != 1 {
		b.t.Fatalf("trace %q: %d messages, want 1", what, len(list))
	}
	return &list[0]
}

// one is the only message in the queue.
func (b *box) one() *message {
	b.t.Helper()
	list := b.queue()
	if len(list) != 1 {
		b.t.Fatalf("%d messages in the queue, want 1: %+v", len(list), list)
	}
	return &list[0]
}

// empty wants nothing in the queue, as people see it.
func (b *box) empty() {
	b.t.Helper()
	r := b.run(b.command("", program("mailq")))
	if want := (result{0, "Mail queue is empty\n", ""}); r != want {
		b.t.Errorf("mailq: %+v, want %+v", r, want)
	}
}

// headerAndBody cuts a message in CRLF lines at its empty line.
func headerAndBody(t testing.TB, content []byte) (head, body string) {
	t.Helper()
	head, body, ok := strings.Cut(string(content), "\r\n\r\n")
	if !ok {
		t.Fatalf("no empty line in %q", content)
	}
	return head + "\r\n", body
}

// value is the value of a header field, unfolded; "" when there is none, and
// a failure when there are several.
func value(t testing.TB, head, name string) string {
	t.Helper()
	found := ""
	for line := range strings.SplitSeq(strings.NewReplacer("\r\n ", " ", "\r\n\t", " ").Replace(head), "\r\n") {
		if n, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(n, name) {
			if found != "" {
				t.Errorf("%s stands there more than once: %q", name, head)
			}
			found = strings.TrimSpace(v)
		}
	}
	return found
}
