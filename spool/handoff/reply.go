package handoff

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"unicode"
)

const (
	// maxReplyLine octets is the longest line of a reply, CRLF included; four times
	// what RFC 5321 §4.5.3.1.5 allows.
	maxReplyLine = 2 << 10
	// maxReplyLines is the most lines of one reply; EHLO has the longest, a line
	// for each extension.
	maxReplyLines = 64
	// maxReplyText octets of a reply's text are kept, enough for one line on a
	// terminal or in a caller's log.
	maxReplyText = 500
)

// reply is one SMTP reply (RFC 5321 §4.2).
type reply struct {
	code   int    // 200 to 599
	status string // enhanced status code (RFC 2034); empty when there is none
	text   string // one printable line
}

var errGarbage = errors.New("the runner's reply is not SMTP")

// readReply reads one reply. It never reads more than maxReplyLines lines of
// maxReplyLine octets.
func readReply(r *bufio.Reader) (reply, error) {
	var first reply
	var texts []string
	for range maxReplyLines {
		line, err := r.ReadSlice('\n')
		switch {
		case err == io.EOF:
			return reply{}, io.ErrUnexpectedEOF
		case err == bufio.ErrBufferFull:
			return reply{}, errGarbage
		case err != nil:
			return reply{}, err
		}
		one, more, ok := parseReplyLine(string(line))
		if len(texts) == 0 {
			first = one
		}
		if !ok || one.code != first.code {
			return reply{}, errGarbage
		}
		texts = append(texts, one.text)
		if !more {
			first.text = printable(strings.Join(texts, " "))
			return first, nil
		}
	}
	return reply{}, errGarbage
}

// parseReplyLine takes one line apart; more says that another follows.
func parseReplyLine(line string) (r reply, more, ok bool) {
	line, ok = strings.CutSuffix(line, "\r\n")
	if !ok || len(line) < 3 || line[0] < '2' || line[0] > '5' || !digits(line[:3]) {
		return reply{}, false, false
	}
	r.code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	line = line[3:]
	if line == "" {
		return r, false, true
	}
	if line[0] != ' ' && line[0] != '-' {
		return reply{}, false, false
	}
	more, r.text = line[0] == '-', line[1:]
	status, rest, _ := strings.Cut(r.text, " ")
	if isStatus(status) && int(status[0]-'0') == r.code/100 {
		r.status, r.text = status, rest
	}
	return r, more, true
}

// isStatus reports whether s is an enhanced status code: class, subject and
// detail, the last two of up to three digits (RFC 3463 §2).
func isStatus(s string) bool {
	parts := strings.Split(s, ".")
	return len(parts) == 3 && len(parts[0]) == 1 &&
		digits(parts[0]) && digits(parts[1]) && digits(parts[2])
}

// digits reports whether s is one to three digits.
func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 3
}

// printable makes s one line that a terminal can be trusted with.
func printable(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > maxReplyText {
		s = strings.ToValidUTF8(s[:maxReplyText], "")
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s))
}
