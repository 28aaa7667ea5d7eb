package relay

import (
	"strconv"
	"strings"
)

// words are those by which a remote says yes to RCPT and to the end of content: its
// enhanced status, such as 2.1.5 and 2.0.0, else the first word. Its first transaction
// teaches them. One answer too many shifts all that follow, and then the yes to the
// last RCPT comes where one to the content is due, as if the message had been taken.
type words struct{ rcpt, end string }

// wording is that of an answer.
func wording(a answer) string {
	status, text := enhanced(a)
	if status == "" {
		status, _, _ = strings.Cut(strings.ToLower(text), " ")
	}
	return strconv.Itoa(a.code) + " " + status
}

// learn takes note of how step is answered when the answer is yes.
func (w *words) learn(step string, a answer) {
	switch {
	case a.code/100 != 2:
	case step == stepRcpt && w.rcpt == "":
		w.rcpt = wording(a)
	case step == stepDot && w.end == "":
		w.end = wording(a)
	}
}

// differ reports whether both are known and can be told apart.
func (w *words) differ() bool { return w.rcpt != "" && w.end != "" && w.rcpt != w.end }

// mistaken reports whether an answer to step is in the words of the other one.
func (w *words) mistaken(step string, a answer) bool {
	if !w.differ() || a.code/100 != 2 {
		return false
	}
	return step == stepDot && wording(a) == w.rcpt || step == stepRcpt && wording(a) == w.end
}
