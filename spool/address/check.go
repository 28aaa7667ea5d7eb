package address

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Lengths in octets. RFC 5321 §4.5.3.1 asks every server to take 64 for a local
// part and 256 for a path; longer ones are in use (VERP, list managers), and
// the next hop is the one to judge them. These bounds only keep a command line
// below what any SMTP server reads.
const (
	maxLocal = 255
	maxPath  = 512
)

// maxQuoted is how many octets of the caller's text an error shows.
const maxQuoted = 60

// check returns the reason why a may not be used, or "". It holds for every
// address this package returns, quoted or not.
func check(a Address) string {
	switch {
	case a.Local == "":
		return "no local part: want user@domain"
	case a.Local[0] == '-':
		// A delivery agent or a filter may take it for an option.
		return `a local part may not begin with "-"`
	case len(a.Local) > maxLocal:
		return "a local part of more than " + strconv.Itoa(maxLocal) + " octets"
	case len(a.Local)+len("@")+len(a.Domain) > maxPath:
		return "an address of more than " + strconv.Itoa(maxPath) + " octets"
	case !visible(a.Local) || !visible(a.Domain):
		return "invalid UTF-8, control or invisible characters"
	case a.Domain == "" || isLiteral(a.Domain):
		return ""
	}
	return checkDomain(a.Domain)
}

func checkDomain(domain string) string {
	if domain[0] == '.' || strings.HasSuffix(domain, ".") || strings.Contains(domain, "..") {
		return "a domain may not have empty labels"
	}
	for i := range len(domain) {
		c := domain[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '-', c == '.', c == '_', c >= utf8.RuneSelf:
		default:
			return "a domain may not have " + strconv.QuoteRune(rune(c))
		}
	}
	return ""
}

// isLiteral reports whether domain is an address literal: what IPv4 and tagged
// addresses are written with, in brackets (RFC 5321 §4.1.3). That allows any
// printable character for tags nobody has defined, among them "<", ">" and ",",
// which end a path or an address for a careless reader. What the literal means is
// for the router.
func isLiteral(domain string) bool {
	n := len(domain)
	if n < 3 || domain[0] != '[' || domain[n-1] != ']' {
		return false
	}
	for i := 1; i < n-1; i++ {
		switch c := domain[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == ':', c == '-':
		default:
			return false
		}
	}
	return true
}

// visible reports whether s is UTF-8 without controls, and without the blanks
// and direction marks beyond ASCII that would make two addresses look the same.
func visible(s string) bool {
	for i, r := range s {
		switch {
		case r < ' ', 0x7F <= r && r <= 0xA0:
			return false
		case r == 0x1680, 0x2000 <= r && r <= 0x200F, 0x2028 <= r && r <= 0x202F:
			return false
		case 0x205F <= r && r <= 0x206F, r == 0x3000, r == 0xFEFF:
			return false
		case r == utf8.RuneError:
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return false
			}
		}
	}
	return true
}

// isAtext is atext of RFC 5322 §3.2.3 and every octet of UTF-8 beyond ASCII
// (RFC 6532 §3.2).
func isAtext(c byte) bool {
	switch c {
	case '(', ')', '<', '>', '[', ']', ':', ';', '@', '\\', ',', '.', '"', 0x7F:
		return false
	}
	return c > ' '
}

// isDtext is dtext of RFC 5322 §3.4.1.
func isDtext(c byte) bool {
	return '!' <= c && c <= '~' && c != '[' && c != ']' && c != '\\'
}

// checkText refuses control characters outside of folding, wherever they stand:
// even in a comment they would be a second header field to somebody else.
func checkText(s string, folding bool) error {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= ' ' && c != 0x7F || c == '\t':
		case c == '\r' && folding && i+2 < len(s) && s[i+1] == '\n' && isBlank(s[i+2]):
			i++
		default:
			return refuse(s[max(0, i-maxQuoted/2):], "control characters may not be in an address")
		}
	}
	return nil
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

func refuse(text, why string) error {
	if len(text) > maxQuoted {
		text = text[:maxQuoted]
	}
	return errors.New(strconv.Quote(text) + ": " + why)
}
