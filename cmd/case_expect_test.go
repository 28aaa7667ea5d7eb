package cmd_test

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"postino/spool/standstill"
)

// expect waits until what a line says holds.
func (w *world) expect(a action) {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		w.log.mu.Lock()
		changed := w.log.changed
		w.log.mu.Unlock()
		wrong := w.wrong(a.words)
		switch {
		case wrong == "":
			return
		case time.Now().After(deadline), w.t.Failed():
			w.t.Fatalf("line %d, %q: %s\n%s", a.line, a.words, wrong, standstill.Of(w.runner.cmd.Process.Pid))
		}
		select {
		case <-changed:
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// wrong is what does not hold of a line; empty is nothing.
func (w *world) wrong(words []string) string {
	switch rest := words[1:]; {
	case words[0] == "report":
		return w.wrongReport(rest)
	case w.servers[words[0]] != nil || w.story.given.hosts[words[0]] != nil:
		return w.wrongAtHost(words[0], rest)
	case words[0] == "log":
		if w.log.count(rest...) == 0 {
			return "the log does not say so"
		}
	case words[0] == "unlogged":
		if w.log.count(rest...) > 0 {
			return "the log says so"
		}
	case words[0] == "took":
		least, _ := time.ParseDuration(rest[0])
		if took := time.Since(w.begun); took < least {
			return fmt.Sprintf("it took %v", took)
		}
	case words[0] == "grew":
		most, _ := strconv.Atoi(rest[0])
		if grew := (w.peak() - w.grown) >> 10; grew > most {
			return fmt.Sprintf("the runner grew by %d MiB", grew)
		}
	default:
		list := w.messages()
		if len(list) < max(1, w.submitted) {
			return fmt.Sprintf("%d messages of %d are known", len(list), w.submitted)
		}
		for _, m := range list {
			if wrong := w.wrongMessage(&m, words[0], rest); wrong != "" {
				return wrong
			}
		}
	}
	return ""
}

// wrongMessage is about a message: "a@x.test is …", "everybody is …", "says", "held"…
func (w *world) wrongMessage(m *traced, word string, rest []string) string {
	switch word {
	case "says", "conceals":
		for _, r := range m.Recipients {
			if r.Reply == nil {
				return "no reply yet"
			}
			all := r.Reply.Host + " " + r.Reply.Command + " " + r.Reply.Text
			if found := regexp.MustCompile(rest[0]).MatchString(all); found != (word == "says") {
				return fmt.Sprintf("it is %q", all)
			}
		}
	case "held":
		if held := m.Status == "held"; held != (rest[0] == "yes") {
			return "it is " + m.Status
		}
	case "attempts":
		if n, _ := strconv.Atoi(rest[0]); len(m.Attempts) < n {
			return fmt.Sprintf("%d attempts so far", len(m.Attempts))
		}
	case "apart": // by how much attempts are apart at least: the schedule less its 10 %
		for i, text := range rest {
			least, _ := time.ParseDuration(text)
			if len(m.Attempts) < i+2 {
				return fmt.Sprintf("%d attempts so far", len(m.Attempts))
			}
			if d := m.Attempts[i+1].At.Sub(m.Attempts[i].At); d < least*9/10 {
				return fmt.Sprintf("the attempts %d and %d are %v apart", i+1, i+2, d)
			}
		}
	case "next":
		want, _ := time.ParseDuration(rest[0])
		next, err := time.Parse(time.RFC3339, m.Recipients[0].Next)
		if err != nil {
			return "there is no next attempt"
		}
		if in := next.Sub(m.Attempts[len(m.Attempts)-1].At); in < want*8/10 || in > want*12/10 {
			return fmt.Sprintf("the next attempt is %v after the last", in)
		}
	default:
		return w.wrongRecipient(m, word, rest)
	}
	return ""
}

// wrongRecipient is about "a@x.test is deferred|queued 4.3.x 451"; "everybody" is each.
func (w *world) wrongRecipient(m *traced, address string, rest []string) string {
	if rest[0] != "is" {
		return "no such line is known"
	}
	found := false
	for _, r := range m.Recipients {
		if address != "everybody" && r.Address != address {
			continue
		}
		found = true
		if !slices.Contains(strings.Split(rest[1], "|"), r.Status) {
			return fmt.Sprintf("%s is %s by %+v", r.Address, r.Status, r.Reply)
		}
		if len(rest) > 2 && (r.Reply == nil || !likeStatus(rest[2], r.Reply.Status)) || len(rest) > 3 && rest[3] != strconv.Itoa(r.Reply.Code) {
			return fmt.Sprintf("%s has %+v", r.Address, r.Reply)
		}
	}
	if !found {
		return fmt.Sprintf("it is not among %+v", m.Recipients)
	}
	return ""
}

// likeStatus matches an enhanced status with alternatives, where x is any number.
func likeStatus(pattern, status string) bool {
	return slices.ContainsFunc(strings.Split(pattern, "|"), func(p string) bool {
		re := strings.ReplaceAll(regexp.QuoteMeta(p), "x", `\d+`)
		return regexp.MustCompile("^" + re + "$").MatchString(status)
	})
}

// wrongAtHost is about what a server saw: "mx1 connections 2", "mx1 hears REGEXP"…
func (w *world) wrongAtHost(host string, words []string) string {
	s := w.servers[host]
	if s == nil {
		return "" // nobody can have been there
	}
	lines := s.Commands()
	count := func(n int) string {
		want, _ := strconv.Atoi(words[1])
		if n != want {
			return fmt.Sprintf("%d: %q", n, lines)
		}
		return ""
	}
	switch words[0] {
	case "connections":
		return count(s.Connections())
	case "takes":
		return count(len(s.Messages()))
	case "transactions":
		n := 0
		for _, l := range lines {
			if strings.HasPrefix(l, "MAIL ") {
				n++
			}
		}
		return count(n)
	case "early":
		return count(s.Early())
	case "hears": // behind what it heard before in this case
		for i := w.heard[host]; i < len(lines); i++ {
			if regexp.MustCompile(words[1]).MatchString(lines[i]) {
				w.heard[host] = i + 1
				return ""
			}
		}
		return fmt.Sprintf("it heard %q", lines)
	case "never":
		for _, l := range lines {
			if regexp.MustCompile(words[2]).MatchString(l) {
				return fmt.Sprintf("it heard %q", l)
			}
		}
	case "gets": // content for nobody: none
		for _, m := range s.Unaddressed() {
			if len(m.Data) > 0 {
				return fmt.Sprintf("%d octets for nobody", len(m.Data))
			}
		}
		return count(len(s.Unaddressed()))
	case "size": // MAIL says how long the content is that came
		want := fmt.Sprintf(" SIZE=%d", len(s.Messages()[0].Data))
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasSuffix(l, want) || strings.Contains(l, want+" ") }) {
			return fmt.Sprintf("no%s in %q", want, lines)
		}
	case "reads", "misses": // somewhere in each message
		for _, m := range s.Messages() {
			if regexp.MustCompile(words[1]).Match(m.Data) != (words[0] == "reads") {
				return fmt.Sprintf("it got %.500q", m.Data)
			}
		}
	case "verifies":
		return w.wrongSignature(s.Messages()[0].Data, words[1:])
	default:
		return "no such line is known"
	}
	return ""
}

// wrongSignature is about "verifies 1" or "verifies 1 not From: …", the field being put
// on top.
func (w *world) wrongSignature(data []byte, words []string) string {
	want := true
	if len(words) > 1 {
		data = append([]byte(strings.Join(words[2:], " ")+"\r\n"), data...)
		want = false
	}
	results, err := dkim.VerifyWithOptions(bytes.NewReader(data), &dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		record, err := os.ReadFile(w.dir + "/record")
		return []string{string(record)}, err
	}})
	n, good := len(results), 0
	for _, r := range results {
		if r.Err == nil {
			good++
		}
	}
	if err != nil || strconv.Itoa(n) != words[0] || (good == 1) != want {
		return fmt.Sprintf("%d signatures, %d good, %v", n, good, err)
	}
	return ""
}

// wrongReport is about the reports so far: "report none", or "report failed" and what is
// in it by words: "status", "about", "field" and a regexp for its value.
func (w *world) wrongReport(words []string) string {
	list := w.reports()
	if words[0] == "none" {
		if len(list) > 0 {
			return list[0]
		}
		return ""
	}
	if len(list) != 1 {
		return fmt.Sprintf("%d reports", len(list))
	}
	text := strings.NewReplacer("\r\n ", " ", "\r\n\t", " ").Replace("\r\n" + list[0])
	if !strings.Contains(text, "\r\nAction: "+words[0]+"\r\n") {
		return text
	}
	for rest := words[1:]; len(rest) > 1; rest = rest[2:] {
		switch rest[0] {
		case "about":
			if n := strings.Count(text, "\r\nFinal-Recipient:"); n != 1 || !regexp.MustCompile(`\r\nFinal-Recipient: rfc822; ?`+regexp.QuoteMeta(rest[1])+`\r\n`).MatchString(text) {
				return fmt.Sprintf("it is about %d: %s", n, text)
			}
		case "says":
			if !regexp.MustCompile(rest[1]).MatchString(text) {
				return text
			}
		default:
			if !regexp.MustCompile(`(?i)\r\n` + regexp.QuoteMeta(rest[0]) + `: *(?-i:` + rest[1] + `)`).MatchString(text) {
				return rest[0] + ": " + text
			}
		}
	}
	return ""
}
