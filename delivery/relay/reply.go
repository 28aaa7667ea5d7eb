package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"postino/spool"
)

// remote is who is at the other end, as each Reply repeats it.
type remote struct {
	host string // "name[address]:port", empty while nobody was reached
	tls  string // as Reply.TLS
}

// judge makes a Reply of what the remote answered to command, of the class of its
// code.
func (r remote) judge(command string, a answer) spool.Reply {
	if a.code/100 == 3 {
		return r.misplaced(command, a)
	}
	status, text := enhanced(a)
	if status == "" {
		status = plainStatus(a.code)
	}
	return spool.Reply{Code: a.code, Status: status, Text: spool.CleanText(text), Host: r.host, Command: command, TLS: r.tls}
}

// misplaced makes a temporary Reply of an answer that command cannot have.
func (r remote) misplaced(command string, a answer) spool.Reply {
	_, text := enhanced(a)
	reply := r.local(command, "4.5.0", "reply out of place: "+text)
	reply.Code = a.code
	return reply
}

// local makes a temporary Reply of something that no reply of the remote says.
func (r remote) local(command, status, text string) spool.Reply {
	return spool.Reply{Status: status, Text: spool.CleanText(text), Host: r.host, Command: command, TLS: r.tls}
}

// broken makes a temporary Reply of an error of the connection while command was
// sent or its answer awaited.
func (r remote) broken(command string, err error) spool.Reply {
	if slices.ContainsFunc(errProtocol, func(e error) bool { return errors.Is(err, e) }) {
		return r.local(command, "4.5.0", "protocol error at "+command+": "+err.Error())
	}
	text := err.Error()
	switch {
	case errors.Is(err, net.ErrClosed):
		text = "the attempt was interrupted"
	case timedOut(err):
		text = "timeout"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		text = "reset by the remote"
	case lost(err):
		text = "closed by the remote"
	}
	return r.local(command, "4.4.2", "connection lost at "+command+": "+text)
}

// lost reports whether err says that the connection is gone, rather than what was
// wrong with what came over it.
func lost(err error) bool {
	for _, gone := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed, context.Canceled} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return timedOut(err)
}

func timedOut(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout()
}

// enhanced takes the enhanced status code (RFC 2034) off the lines of a and joins
// them. The code is empty unless it is well-formed and of the class of a.code.
func enhanced(a answer) (status, text string) {
	lines := make([]string, 0, len(a.lines))
	for i, line := range a.lines {
		word, rest, _ := strings.Cut(line, " ")
		if wellFormed(word) && word[0] == strconv.Itoa(a.code)[0] {
			if i == 0 {
				status = word
			}
			line = rest
		}
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return status, strings.Join(lines, " ")
}

// wellFormed reports whether s has the form of an enhanced status code
// (RFC 3463 §2): class "." subject "." detail, no leading zeros.
func wellFormed(s string) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || len(parts[0]) != 1 || !strings.Contains("245", parts[0]) {
		return false
	}
	for _, p := range parts[1:] {
		if len(p) < 1 || len(p) > 3 || len(p) > 1 && p[0] == '0' {
			return false
		}
		if strings.Trim(p, "0123456789") != "" {
			return false
		}
	}
	return true
}

// plainStatus is the enhanced status of a code that came without one. Only codes
// with a single meaning get a detail.
func plainStatus(code int) string {
	switch code {
	case 421:
		return "4.3.2"
	case 530:
		return "5.7.0"
	case 534:
		return "5.7.9"
	case 535:
		return "5.7.8"
	case 538:
		return "5.7.11"
	case 556:
		return "5.1.10"
	}
	return fmt.Sprintf("%d.0.0", code/100)
}

// aboutUs reports whether a refusal says that the remote does not want us, by
// our credentials or our connection, rather than this mail. Then the operator
// has something to mend and no mail may fail for it.
func aboutUs(r spool.Reply) bool {
	switch r.Code {
	case 530, 534, 535, 538:
		return true
	}
	switch r.Status {
	case "5.7.8", "5.7.9", "5.7.11", "5.7.30", "5.7.57", "5.7.60":
		return true
	}
	return false
}

// tooMany reports whether a refusal at RCPT says no more than that this
// transaction has recipients enough (RFC 5321 §4.5.3.1.10), or that this
// recipient must go in a transaction of its own.
func tooMany(r spool.Reply) bool {
	switch {
	case r.Status == "4.5.3", r.Status == "5.5.3":
		return true
	case r.Code == 452, r.Code == 552:
		return strings.HasSuffix(r.Status, ".0.0")
	case r.Code == 451 && r.Status == "4.3.0":
		return strings.Contains(strings.ToLower(r.Text), "multiple destination domains")
	}
	return false
}

// temporary gives r class 4, whatever the remote's code.
func temporary(r spool.Reply) spool.Reply {
	if r.Class() == spool.Permanent {
		r.Status = "4" + r.Status[1:]
	}
	return r
}
