package cmd_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"postino/delivery/relay/relaytest"
)

// A case is one story of delivery in testdata/delivery.cases, whose head says how one
// is written: what is given, what is done, and what must come of it.
type story struct {
	title   string
	line    int
	given   given
	actions []action
}

// given is the world of a case before anything is done.
type given struct {
	via      string // "mx", "smarthost", "lmtp"
	dns      [][]string
	resolver string
	config   []string // lines of postino.toml
	aliases  string
	hosts    map[string]*hostGiven

	from           string
	to             []string
	headers        []string
	body           string
	options        []string
	mayComeTwice   bool // what is at least once
	bodyMayChange  bool
	otherAddresses bool // what arrives is not for those it was submitted for
}

// hostGiven is a scripted server, and whether it can be reached.
type hostGiven struct {
	relaytest.Options
	down, silent, socket bool
}

// action is a line of a case that does something, or says what must be.
type action struct {
	line  int
	words []string
}

// readStories reads a file of cases.
func readStories(t testing.TB, file string) []*story {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var list []*story
	var now *story
	for i, line := range strings.Split(string(text), "\n") {
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			now = nil
		case now == nil:
			now = &story{title: line, line: i + 1, given: given{via: "mx", from: "s@sender.test", to: []string{"a@x.test"}, body: "hello\n",
				hosts: map[string]*hostGiven{"mx1": {}, "mx2": {}, "mx3": {}, "sink": {}}}}
			list = append(list, now)
		default:
			if err := now.add(action{i + 1, wordsOf(line)}, strings.TrimSpace(line)); err != nil {
				t.Fatalf("%s:%d: %v", file, i+1, err)
			}
		}
	}
	return list
}

// wordsOf cuts a line at spaces; a word in double quotes is one of Go.
func wordsOf(line string) (list []string) {
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		if quoted, err := strconv.QuotedPrefix(line); err == nil {
			word, _ := strconv.Unquote(quoted)
			list = append(list, word)
			line = line[len(quoted):]
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		list = append(list, word)
		line = rest
	}
	return list
}

// add takes a line: something given, or else an action.
func (s *story) add(a action, line string) error {
	g, w := &s.given, a.words
	rest := w[1:]
	switch w[0] {
	case "via":
		g.via = w[1]
	case "dns":
		g.dns = append(g.dns, rest)
	case "resolver":
		g.resolver = "127.0.0.1:9" // nobody listens on discard
	case "config":
		_, toml, _ := strings.Cut(line, " ")
		g.config = append(g.config, toml)
	case "aliases":
		g.aliases = w[1]
	case "from":
		g.from = w[1]
	case "to":
		g.to = rest
		if n, err := strconv.Atoi(w[1]); err == nil {
			g.to = nil
			for i := range n {
				g.to = append(g.to, fmt.Sprintf("r%d@x.test", i+1))
			}
		}
	case "header":
		g.headers = append(g.headers, rest...)
	case "body":
		g.body = w[1]
		if n, err := strconv.Atoi(w[1]); err == nil {
			g.body = strings.Repeat(strings.Repeat("x", 69)+"\n", n/70)
		}
	case "options":
		g.options = rest
	case "may":
		g.mayComeTwice = g.mayComeTwice || line == "may come twice"
		g.bodyMayChange = g.bodyMayChange || line == "may come changed"
		g.otherAddresses = g.otherAddresses || line == "may go elsewhere"
	default:
		if h := g.hosts[w[0]]; h != nil {
			if is, err := h.add(rest); is || err != nil {
				return err
			}
		}
		s.actions = append(s.actions, a)
	}
	return nil
}

// add takes what is given of a host, and reports whether it is that.
func (h *hostGiven) add(w []string) (is bool, err error) {
	switch w[0] {
	case "down":
		h.down = true
	case "silent":
		h.silent = true
	case "socket":
		h.socket, h.LMTP = true, true
	case "lmtp":
		h.LMTP = true
	case "deaf":
		h.Deaf = true
	case "buffer":
		h.Buffer, err = strconv.Atoi(w[1])
	case "offers":
		h.Extensions = append([]string{}, w[1:]...)
	case "user":
		h.Users = map[string]string{w[1]: w[2]}
	case "starttls", "implicit":
		h.TLS = map[string]relaytest.TLS{"starttls": relaytest.StartTLS, "implicit": relaytest.Implicit}[w[0]]
		if len(w) > 1 {
			h.Cert = map[string]relaytest.Cert{"expired": relaytest.Expired, "selfsigned": relaytest.SelfSigned, "wrongname": relaytest.WrongName}[w[1]]
		}
	case "at":
		var r relaytest.Rule
		if r, err = readRule(w[1:]); err == nil {
			h.Rules = append(h.Rules, r)
		}
	default:
		return false, nil
	}
	return true, err
}

// readRule reads what a server does at a place.
func readRule(w []string) (relaytest.Rule, error) {
	r := relaytest.Rule{At: w[0]}
	var err error
	for w = w[1:]; len(w) > 1 && err == nil; w = w[2:] {
		switch w[0] {
		case "nth":
			r.N, err = strconv.Atoi(w[1])
		case "conn":
			r.Conn, err = strconv.Atoi(w[1])
		case "after":
			r.After, err = strconv.Atoi(w[1])
		case "for":
			r.Arg = w[1]
		case "say":
			r.Reply = w[1]
		case "send":
			r.Raw = w[1]
		case "endless":
			n := 0
			n, err = strconv.Atoi(w[1])
			r.Raw = "250-" + strings.Repeat("x", n)
		case "then":
			r.Do = relaytest.Do(w[1])
		case "pause":
			r.Pause, err = time.ParseDuration(w[1])
		case "delay":
			r.Delay, err = time.ParseDuration(w[1])
		default:
			return r, fmt.Errorf("%q is no word of a rule", w[0])
		}
	}
	if len(w) > 0 {
		return r, fmt.Errorf("%q has no value", w[0])
	}
	return r, err
}
