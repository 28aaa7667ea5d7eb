package cmd_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"postino/delivery/control"
)

// Whatever the runner answers on control.sock, it tells an ordinary user no word of the
// mail of others and lets him steer none. The questions are all that the server knows,
// so that a new one is asked here too.
func TestControlTellsStrangersNothing(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	b := newBox(t, "mode = \"hold\"\n")
	b.giveTo(spoolUID)
	b.start()
	const secret = "canary"
	b.sendmail("Subject: canary-subject\nMessage-ID: <canary-id@x.test>\n\ncanary-body\n", "-f", "canary-from@x.test", "canary-to@y.test")
	m := b.one()
	source, err := os.ReadFile(filepath.Join("..", "delivery", "control", "server.go"))
	if err != nil {
		t.Fatal(err)
	}
	var questions []string
	for _, q := range regexp.MustCompile(`"((?:GET|POST|PUT|DELETE) /[^"]+)"`).FindAllStringSubmatch(string(source), -1) {
		questions = append(questions, strings.ReplaceAll(q[1], "{id}", m.ID))
	}
	if len(questions) < 10 {
		t.Fatalf("found the questions %q alone: are they somewhere else?", questions)
	}
	for _, verb := range control.Verbs() {
		questions = append(questions, "GET /"+string(verb), "POST /"+string(verb))
	}
	var queries []string
	for _, what := range []string{m.ID, "canary-id@x.test", "<canary-id@x.test>", "canary-from@x.test", "canary-to@y.test", "subject", "x.test", ""} {
		queries = append(queries, "q="+url.QueryEscape(what)+"&address="+url.QueryEscape(what))
		for _, filter := range []string{"id", "from", "to", "uid", "hop", "status", "reason", "since", "limit"} {
			queries = append(queries, filter+"="+url.QueryEscape(what))
		}
	}
	for _, question := range questions {
		method, path, _ := strings.Cut(question, " ")
		for _, query := range queries {
			conn, err := b.dialAs(nobodyUID, "control.sock")
			if err != nil {
				t.Fatal(err)
			}
			got := converse(t, conn, fmt.Sprintf("%s %s?%s HTTP/1.0\r\nHost: x\r\n\r\n", method, path, query))
			head, body, _ := strings.Cut(got, "\r\n\r\n")
			if strings.Contains(body, m.ID) && strings.Contains(query, secret) && !strings.Contains(path, m.ID) {
				t.Errorf("%s %s?%s finds the message: %q", method, path, query, body)
			}
			// What was asked may come back in an error.
			asked, err := url.ParseQuery(query)
			if err != nil {
				t.Fatal(err)
			}
			for key := range asked {
				if word := strings.Trim(asked.Get(key), "<>"); word != "" {
					body = strings.ReplaceAll(body, word, "")
				}
			}
			if strings.Contains(body, secret) {
				t.Errorf("%s %s?%s tells %q", method, path, query, body)
			}
			if method != "GET" && !strings.Contains(head, " 403 ") && !strings.Contains(head, " 400 ") {
				t.Errorf("%s %s is answered with %q", method, path, head)
			}
			if strings.Contains(head, " 500 ") || head == "" {
				t.Errorf("%s %s?%s is answered with %q", method, path, query, got)
			}
		}
	}
	if now := b.one(); now.ID != m.ID || now.Status != m.Status || now.Held != m.Held {
		t.Errorf("the message is %+v now", now)
	}
	if !b.accepts("submit.sock") {
		t.Error("the runner is gone")
	}
}
