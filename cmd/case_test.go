package cmd_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postino/delivery/relay/relaytest"
	"postino/spool/standstill"
)

// Each story of delivery comes out as testdata/delivery.cases has it, and in all of
// them what always holds.
func TestDeliveryCases(t *testing.T) {
	t.Parallel()
	for i, s := range readStories(t, filepath.Join("testdata", "delivery.cases")) {
		t.Run(fmt.Sprintf("%d %s", s.line, s.title), func(t *testing.T) {
			t.Parallel()
			// The time-outs of many are fractions of a second.
			standstill.Steady(t, func(t testing.TB) {
				w := newWorld(t, s, i)
				w.play()
				w.always()
			})
		})
	}
}

// play does the actions of a story. The runner and one message come by themselves
// where the story does not say when.
func (w *world) play() {
	does := func(word string) bool {
		return slices.ContainsFunc(w.story.actions, func(a action) bool { return a.words[0] == word })
	}
	if !does("start") {
		w.act([]string{"start"})
	}
	if !does("submit") && !does("smtp") {
		w.act([]string{"submit"})
	}
	for _, a := range w.story.actions {
		if !w.act(a.words) {
			w.expect(a)
		}
		if w.t.Failed() {
			return
		}
	}
}

// act does something, and reports whether it was that.
func (w *world) act(words []string) bool {
	w.t.Helper()
	switch rest := words[1:]; words[0] {
	case "start":
		w.begun = time.Now()
		if len(rest) > 0 {
			w.runner = w.launch(rest...)
			return true
		}
		w.runner = w.start()
		w.grown = w.peak()
	case "submit":
		w.submit(rest)
	case "smtp":
		w.smtp(rest)
	case "stop":
		w.runner.stop()
	case "kill":
		w.runner.kill()
	case "ended":
		if code := w.runner.wait(); code != 0 {
			w.t.Errorf("the runner ended with %d", code)
		}
	case "-q":
		w.succeed(w.command("", program("sendmail"), "-q"))
	case "hold", "release":
		w.postino(words[0], w.messages()[0].ID)
	case "sleep":
		d, err := time.ParseDuration(rest[0])
		if err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(d)
	default:
		s := w.servers[words[0]]
		if s == nil || words[1] != "now" {
			return false
		}
		var rules []relaytest.Rule
		if len(rest) > 1 {
			r, err := readRule(rest[1:])
			if err != nil {
				w.t.Fatal(err)
			}
			rules = append(rules, r)
		}
		s.SetRules(rules...)
	}
	return true
}

// subject is that of the messages of the case, and of no report.
func (w *world) subject() string { return fmt.Sprintf("case %d", w.story.line) }

// message is the text of the message.
func (w *world) message() string {
	head := "From: s@sender.test\nTo: a@x.test\nSubject: " + w.subject() + "\nDate: Mon, 2 Nov 2026 10:00:00 +0000\nMessage-ID: <m@sender.test>\n"
	for _, h := range w.story.given.headers {
		head += h + "\n"
	}
	return head + "\n" + w.story.given.body
}

// submit hands the message in: "submit [how often]", or "submit ends 64 65".
func (w *world) submit(words []string) {
	w.t.Helper()
	g := &w.story.given
	from := g.from
	if from == "" {
		from = "<>"
	}
	args := append([]string{"-i", "-f", from}, g.options...)
	args = append(append(args, "--"), g.to...)
	if len(words) > 1 {
		r := w.run(w.command(w.message(), w.front, args...))
		if !slices.Contains(words[1:], strconv.Itoa(r.code)) {
			w.t.Errorf("sendmail ended with %d, want one of %v: %s", r.code, words[1:], r.err)
		}
		return
	}
	n := 1
	if len(words) == 1 {
		n, _ = strconv.Atoi(words[0])
	}
	for range n {
		w.sendmail(w.message(), args...)
		w.submitted++
	}
}

// smtp hands the message in by sendmail -bs, with these commands before DATA.
func (w *world) smtp(commands []string) {
	w.t.Helper()
	text := "EHLO case\r\n" + strings.Join(commands, "\r\n") + "\r\nDATA\r\n" + strings.ReplaceAll(w.message(), "\n", "\r\n") + ".\r\nQUIT\r\n"
	r := w.run(w.command(text, program("sendmail"), "-bs"))
	if r.code != 0 || !strings.Contains(r.out, "queued as") {
		w.t.Errorf("sendmail -bs: %+v", r)
	}
	w.submitted++
}

// messages are those of the case as trace has them, without reports.
func (w *world) messages() []traced {
	w.t.Helper()
	r := w.run(w.command("", program("postino"), "trace", "--json", w.subject()))
	if strings.Contains(r.out+r.err, secret) {
		w.t.Errorf("the password is in what trace says")
	}
	var list []traced
	for line := range strings.Lines(r.out) {
		var m traced
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			w.t.Fatal(err)
		}
		if m.Via != "dsn" {
			list = append(list, m)
		}
	}
	return list
}

// traced is a message with the times of its attempts.
type traced struct {
	message
	Attempts []struct {
		At  time.Time
		TLS string
	}
}

// reports are the delivery reports at the sender's exchanger.
func (w *world) reports() (list []string) {
	for _, m := range w.servers["sink"].Messages() {
		if m.From == "" {
			list = append(list, string(m.Data))
		}
	}
	return list
}

// peak is the most memory that the runner has had, in KiB.
func (w *world) peak() int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.runner.cmd.Process.Pid))
	if err != nil {
		w.t.Fatal(err)
	}
	found := regexp.MustCompile(`VmHWM:\s*(\d+)`).FindSubmatch(status)
	n, err := strconv.Atoi(string(found[1]))
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// always checks what holds in every case: what arrives is what was submitted, to those
// it was for, in CRLF lines, and once; who got it is settled so, and nobody else is.
func (w *world) always() {
	g := &w.story.given
	copies := map[string]int{}
	want := strings.ReplaceAll(g.body, "\n", "\r\n")
	if want != "" && !strings.HasSuffix(want, "\r\n") {
		want += "\r\n"
	}
	for name, s := range w.servers {
		for _, m := range s.Messages() {
			for _, to := range m.To {
				copies[to]++
				if m.From != "" && !g.otherAddresses && !slices.Contains(g.to, to) && !slices.ContainsFunc(g.to, func(s string) bool { return !ascii(s) }) {
					w.t.Errorf("%s got it at %s, who was not a recipient", to, name)
				}
			}
			if bare := strings.NewReplacer("\r\n", "").Replace(string(m.Data)); strings.ContainsAny(bare, "\r\n") {
				w.t.Errorf("a CR or LF came alone to %s", name)
			}
			_, body := headerAndBody(w.t, m.Data)
			if m.From != "" && !g.bodyMayChange && body != want {
				w.t.Errorf("the body came to %s as %.200q, want %.200q", name, body, want)
			}
		}
	}
	for _, report := range w.reports() {
		wellFormedReport(w.t, report)
	}
	for _, m := range w.messages() {
		for _, r := range m.Recipients {
			taken, n := r.Status == "relayed" || r.Status == "delivered", copies[r.Address]
			switch {
			case !ascii(r.Address), r.Status == "expanded", g.otherAddresses, g.mayComeTwice && n > 0:
			case taken && n != w.submitted, !taken && n > 0 && w.submitted == 1:
				w.t.Errorf("%s is %s, and was taken %d times of %d", r.Address, r.Status, n, w.submitted)
			}
		}
	}
	if strings.Contains(w.log.String(), secret) {
		w.t.Error("the password is in the log")
	}
}

func ascii(s string) bool { return strings.IndexFunc(s, func(r rune) bool { return r > 127 }) < 0 }

// wellFormedReport wants the form of RFC 3464, and RFC 3834's sign against answers.
func wellFormedReport(t testing.TB, text string) {
	head, _, _ := strings.Cut(text, "\r\n\r\n")
	if !strings.Contains(value(t, head, "Content-Type"), "multipart/report") || value(t, head, "Auto-Submitted") != "auto-replied" {
		t.Errorf("a report begins with %q", head)
	}
	for line := range strings.SplitSeq(text, "\r\n") {
		if len(line) > 998 {
			t.Errorf("a line of a report has %d octets", len(line))
		}
	}
}
