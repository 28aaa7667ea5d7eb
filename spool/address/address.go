// Package address holds mail addresses as RFC 5321 and RFC 5322 define them.
//
// It reads what callers really write, says which mailboxes that names, and
// refuses whatever could be read in two ways further on. It is imported by the
// front end, so it uses only the light part of the standard library.
package address

import "strings"

// Address is a mailbox. The zero value is the null reverse-path. Local is the
// local part with its quotes removed; Domain is empty for a bare name such as
// root, which the runner completes.
type Address struct {
	Local, Domain string
}

// IsNull reports whether a is the null reverse-path (RFC 5321 §4.5.5).
func (a Address) IsNull() bool { return a == Address{} }

// Key is the same for addresses that name the same mailbox as far as we may
// know: the domain is compared without case, the local part with it
// (RFC 5321 §2.4).
func (a Address) Key() string { return a.Local + "@" + strings.ToLower(a.Domain) }

// UTF8 reports whether a can only be relayed with SMTPUTF8 (RFC 6531 §3.3):
// its local part or its domain is not ASCII.
func (a Address) UTF8() bool { return !ascii(a.Local) || !ascii(a.Domain) }

// String is a as it stands between the angle brackets of MAIL and RCPT: the
// local part quoted where RFC 5321 §4.1.2 asks for it, no domain when it is
// bare, and "" for the null reverse-path. What Parse accepted, Parse reads back
// from String.
func (a Address) String() string {
	local := a.Local
	if !isDotAtom(local) && !a.IsNull() {
		local = quote(local)
	}
	if a.Domain == "" {
		return local
	}
	return local + "@" + a.Domain
}

// MarshalText is String; its error is always nil.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText is ParsePath, so that it reads back whatever MarshalText wrote,
// the null reverse-path included. After an error a is unchanged.
func (a *Address) UnmarshalText(text []byte) error {
	parsed, err := ParsePath(string(text))
	if err != nil {
		return err
	}
	*a = parsed
	return nil
}

// isDotAtom reports whether local needs no quotes (RFC 5321 §4.1.2, with the
// UTF-8 of RFC 6531 §3.3).
func isDotAtom(local string) bool {
	dot := true // a dot may not come here
	for i := range len(local) {
		c := local[i]
		if c == '.' && dot || c != '.' && !isAtext(c) {
			return false
		}
		dot = c == '.'
	}
	return !dot
}

func quote(local string) string {
	var b strings.Builder
	b.Grow(len(local) + 2)
	b.WriteByte('"')
	for i := range len(local) {
		if c := local[i]; c == '"' || c == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(local[i])
	}
	b.WriteByte('"')
	return b.String()
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
