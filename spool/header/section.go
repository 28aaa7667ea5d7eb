package header

import (
	"errors"
	"io"
	"strings"

	"postino/spool/address"
)

// Section is the header section of a message (RFC 5322 §2.2). The zero value is
// an empty one, ready to use.
type Section struct {
	fields []Field
}

// Field is a header field. Raw is the whole of it with its CRLFs, as the caller
// wrote it but for canonical line ends. Name is its name without the blanks
// that may stand before the colon (RFC 5322 §4.5).
type Field struct {
	Name string
	Raw  []byte
}

// body is what stands behind the colon, without the last CRLF.
func (f Field) body() string {
	_, body, _ := strings.Cut(string(f.Raw), ":")
	return strings.TrimSuffix(body, "\r\n")
}

func (f Field) named(names ...string) bool {
	for _, name := range names {
		if strings.EqualFold(f.Name, name) {
			return true
		}
	}
	return false
}

// Fields returns the fields in their order. It is the section's own slice: not
// to be changed.
func (s *Section) Fields() []Field { return s.fields }

// Has reports whether there is a field of that name, in any case.
func (s *Section) Has(name string) bool {
	for _, f := range s.fields {
		if f.named(name) {
			return true
		}
	}
	return false
}

// Value returns the first field of that name unfolded (RFC 5322 §2.2.3) and
// without blanks around it, or "" if there is none.
func (s *Section) Value(name string) string {
	for _, f := range s.fields {
		if f.named(name) {
			return strings.Trim(strings.ReplaceAll(f.body(), "\r\n", ""), " \t")
		}
	}
	return ""
}

// Recipients returns whom the section names as recipients, each once and in
// order: those of all To, Cc and Bcc fields, or of all Resent-To, Resent-Cc and
// Resent-Bcc fields if there is one of these (RFC 5322 §3.6.6). An error names
// the field and shows the text that is no address; there are no recipients then.
func (s *Section) Recipients() ([]address.Address, error) {
	names := []string{"To", "Cc", "Bcc"}
	if s.Has("Resent-To") || s.Has("Resent-Cc") || s.Has("Resent-Bcc") {
		names = []string{"Resent-To", "Resent-Cc", "Resent-Bcc"}
	}
	var list []address.Address
	seen := make(map[string]bool)
	found, err := s.Addresses(names...)
	for _, a := range found {
		if !seen[a.Key()] {
			seen[a.Key()] = true
			list = append(list, a)
		}
	}
	return list, err
}

// Addresses returns the addresses in all fields of these names, in their order. An error
// names the field and shows the text that is no address.
func (s *Section) Addresses(names ...string) ([]address.Address, error) {
	var list []address.Address
	for _, f := range s.fields {
		if !f.named(names...) {
			continue
		}
		found, err := address.ParseList(f.body())
		if err != nil {
			return nil, errors.New(f.Name + ": " + err.Error())
		}
		list = append(list, found...)
	}
	return list, nil
}

// Drop removes all fields of these names, in any case, with their continuation
// lines.
func (s *Section) Drop(names ...string) {
	var kept []Field
	for _, f := range s.fields {
		if !f.named(names...) {
			kept = append(kept, f)
		}
	}
	s.fields = kept
}

// Prepend adds a field before all others. Name must be a field name; value may
// be any text: CR, LF and NUL become blanks, and it is folded at blanks to lines
// of 78 octets where it can be (RFC 5322 §2.1.1).
func (s *Section) Prepend(name, value string) {
	s.fields = append([]Field{newField(name, value)}, s.fields...)
}

// Append is Prepend behind all others.
func (s *Section) Append(name, value string) {
	s.fields = append(s.fields[:len(s.fields):len(s.fields)], newField(name, value))
}

// Qualify completes the bare addresses in the originator and destination fields
// (RFC 6409 §8.1) with "@domain", and author's addresses that end in "@" with the
// domain. Every other octet stays as it is, and so does a field that does not parse.
func (s *Section) Qualify(domain string) {
	for i, f := range s.fields {
		if f.named("From", "Sender", "Reply-To") {
			s.fields[i].Raw = withDomain(f, domain)
		}
	}
	names := []string{"From", "Sender", "Reply-To", "To", "Cc", "Bcc", "Resent-From",
		"Resent-Sender", "Resent-Reply-To", "Resent-To", "Resent-Cc", "Resent-Bcc"}
	s.splice(names, func(b address.Mailbox) (start, end int, text string) {
		if b.Address.Domain == "" {
			text = "@" + domain
		}
		return b.LocalEnd, b.LocalEnd, text
	})
}

// withDomain is a field with the domain behind each "@" that has none, such as
// "wordpress@" of a program that looked for the name of its site in vain. A field that
// parses, or does not parse with it, stays as it is.
func withDomain(f Field, domain string) []byte {
	body := f.body()
	if _, err := address.Scan(body); err == nil {
		return f.Raw
	}
	var b strings.Builder
	quoted := false
	for i := range len(body) {
		b.WriteByte(body[i])
		if body[i] == '"' && (i == 0 || body[i-1] != '\\') {
			quoted = !quoted
		}
		if body[i] == '@' && !quoted && (i+1 == len(body) || strings.IndexByte(">, \t\r", body[i+1]) >= 0) {
			b.WriteString(domain)
		}
	}
	if _, err := address.Scan(b.String()); err != nil {
		return f.Raw
	}
	return []byte(string(f.Raw[:len(f.Raw)-len(body)-len("\r\n")]) + b.String() + "\r\n")
}

// Rewrite puts the address that replace returns in the place of each in these
// fields; one that is returned as it came stays as it is written. So does every other
// octet, display names and comments too, and a field that does not parse. It reports
// whether anything was changed.
func (s *Section) Rewrite(replace func(address.Address) address.Address, names ...string) bool {
	return s.splice(names, func(b address.Mailbox) (start, end int, text string) {
		if to := replace(b.Address); to != b.Address {
			text = to.String()
		}
		return b.Start, b.End, text
	})
}

// splice asks for each address in the named fields what text is to stand in the place
// of which octets of the field's body; an empty text is no change.
func (s *Section) splice(names []string, edit func(address.Mailbox) (start, end int, text string)) (changed bool) {
	for i, f := range s.fields {
		if !f.named(names...) {
			continue
		}
		body := f.body()
		boxes, err := address.Scan(body)
		if err != nil {
			continue
		}
		colon := len(f.Raw) - len(body) - len("\r\n")
		raw, done := []byte(nil), 0
		for _, b := range boxes {
			if start, end, text := edit(b); text != "" {
				raw = append(append(raw, f.Raw[done:colon+start]...), text...)
				done = colon + end
			}
		}
		if done > 0 {
			s.fields[i].Raw, changed = append(raw, f.Raw[done:]...), true
		}
	}
	return changed
}

// Check returns ErrTooLarge for a section that Read would not take, as one may be
// that something was added to.
func (s *Section) Check() error {
	size := 0
	for _, f := range s.fields {
		size += len(f.Raw)
	}
	if size > MaxSection || len(s.fields) > MaxFields {
		return ErrTooLarge
	}
	return nil
}

// EightBit reports whether the section has octets beyond ASCII.
func (s *Section) EightBit() bool {
	for _, f := range s.fields {
		for _, c := range f.Raw {
			if c > 0x7F {
				return true
			}
		}
	}
	return false
}

// WriteTo writes the fields and the blank line behind them.
func (s *Section) WriteTo(w io.Writer) (int64, error) {
	size := len("\r\n")
	for _, f := range s.fields {
		size += len(f.Raw)
	}
	out := make([]byte, 0, size)
	for _, f := range s.fields {
		out = append(out, f.Raw...)
	}
	n, err := w.Write(append(out, "\r\n"...))
	return int64(n), err
}
