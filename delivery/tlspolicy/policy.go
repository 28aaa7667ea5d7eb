// Package tlspolicy knows what the owner of a domain demands of connections to its
// mail exchangers: by MTA-STS (RFC 8461), a policy that is fetched by HTTPS and kept,
// and by DANE (RFC 7672), TLSA records in a validated DNS.
package tlspolicy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Mode is what becomes of mail when an exchanger does not comply (RFC 8461 §5).
type Mode string

// The modes. None is that of a domain that had a policy and wants none any more.
const (
	Enforce Mode = "enforce" // it is not sent there
	Testing Mode = "testing" // it is sent, and somebody is told
	None    Mode = "none"
)

const (
	// maxPolicy is how much of a policy is read, in octets (RFC 8461 §3.3).
	maxPolicy = 64 << 10
	// maxAge is how long a policy may hold at most, whatever it says (RFC 8461 §3.2).
	maxAge = 31557600 * time.Second
)

// Policy is an MTA-STS policy. The zero value is that of a domain without one, and
// demands nothing.
type Policy struct {
	Mode Mode
	// MaxAge is how long it holds after it was fetched, in whole seconds.
	MaxAge time.Duration
	// MX are the names of exchangers, in lower case; "*." stands for one label.
	MX []string
}

// ParsePolicy reads what a policy host serves (RFC 8461 §3.2). Fields that are not
// known are passed over, and of those that come twice, mx apart, the first one counts.
// All else that is not as it should be makes it no policy.
func ParsePolicy(text []byte) (Policy, error) {
	p, err := parsePolicy(text)
	if err != nil {
		return Policy{}, err
	}
	return p, nil
}

func parsePolicy(text []byte) (p Policy, err error) {
	if len(text) > maxPolicy {
		return p, fmt.Errorf("a policy of more than %d octets", maxPolicy)
	}
	seen := make(map[string]bool)
	for n, line := range strings.Split(strings.TrimRight(string(text), "\r\n \t"), "\n") {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\r"), ":")
		value = strings.Trim(value, " \t")
		if !ok || !fieldName(name) || !fieldValue(value) {
			return p, fmt.Errorf("line %d is no field of a policy", n+1)
		}
		if seen[name] && name != "mx" {
			continue
		}
		seen[name] = true
		switch name {
		case "version":
			if value != "STSv1" {
				err = fmt.Errorf("version %q is not STSv1", value)
			}
		case "mode":
			p.Mode = Mode(value)
			if p.Mode != Enforce && p.Mode != Testing && p.Mode != None {
				err = fmt.Errorf("%q is no mode", value)
			}
		case "max_age":
			p.MaxAge, err = parseAge(value)
		case "mx":
			name, patternErr := parsePattern(value)
			p.MX, err = append(p.MX, name), patternErr
		}
		if err != nil {
			return p, err
		}
	}
	for _, name := range []string{"version", "mode", "max_age", "mx"} {
		if !seen[name] && (name != "mx" || p.Mode != None) {
			return p, fmt.Errorf("a policy without %s", name)
		}
	}
	return p, nil
}

// fieldName is sts-policy-ext-name of RFC 8461 §3.2, which the known names are too.
func fieldName(s string) bool {
	if s == "" || len(s) > 32 || !alphanumeric(s[0]) {
		return false
	}
	for i := range len(s) {
		if !alphanumeric(s[i]) && !strings.ContainsRune("_-.", rune(s[i])) {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// fieldValue is sts-policy-ext-value, likewise.
func fieldValue(s string) bool {
	return s != "" && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func parseAge(s string) (time.Duration, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || len(s) > 10 {
		return 0, fmt.Errorf("max_age: %q is no number of seconds", s)
	}
	return time.Duration(min(n, uint64(maxAge/time.Second))) * time.Second, nil
}

// parsePattern reads a domain name, or one whose first label is "*".
func parsePattern(s string) (string, error) {
	s = strings.ToLower(s)
	if name := strings.TrimPrefix(s, "*."); !domainName(name) {
		return "", fmt.Errorf("mx: %q is no domain name", s)
	}
	return s, nil
}

// domainName reports whether s is a host name in ASCII (RFC 5321 §4.1.2), at most
// 253 octets.
func domainName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if !alphanumeric(label[i]) && label[i] != '-' {
				return false
			}
		}
	}
	return true
}

// Allows reports whether the policy names an exchanger (RFC 8461 §4.1).
func (p Policy) Allows(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	_, parent, _ := strings.Cut(host, ".")
	for _, pattern := range p.MX {
		if suffix, wild := strings.CutPrefix(pattern, "*."); wild && parent == suffix || pattern == host {
			return true
		}
	}
	return false
}

// String is the policy as its host would serve it.
func (p Policy) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: STSv1\nmode: %s\n", p.Mode)
	for _, mx := range p.MX {
		fmt.Fprintf(&b, "mx: %s\n", mx)
	}
	fmt.Fprintf(&b, "max_age: %d\n", p.MaxAge/time.Second)
	return b.String()
}

// errNoRecord says that a domain announces no policy.
var errNoRecord = errors.New("no MTA-STS record")

// parseRecord finds the ID of a policy in the TXT records at _mta-sts (RFC 8461 §3.1).
// Several records, like one that is not well-formed, are none.
func parseRecord(records []string) (id string, err error) {
	const version = "v=STSv1"
	found := ""
	for _, r := range records {
		if rest, ok := strings.CutPrefix(r, version); !ok || !strings.HasPrefix(strings.TrimLeft(rest, " \t"), ";") {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("%w: there are several", errNoRecord)
		}
		found = r
	}
	if found == "" {
		return "", errNoRecord
	}
	for field := range strings.SplitSeq(strings.TrimPrefix(found, version), ";") {
		value, ok := strings.CutPrefix(strings.Trim(field, " \t"), "id=")
		if !ok || id != "" {
			continue
		}
		if value == "" || len(value) > 32 || strings.ContainsFunc(value, func(r rune) bool { return r > 127 || !alphanumeric(byte(r)) }) {
			return "", fmt.Errorf("%w: %q is no id", errNoRecord, value)
		}
		id = value
	}
	if id == "" {
		return "", fmt.Errorf("%w: it has no id", errNoRecord)
	}
	return id, nil
}
