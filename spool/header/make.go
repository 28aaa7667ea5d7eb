package header

import (
	"encoding/base64"
	"strings"
	"time"
	"unicode/utf8"

	"postino/spool/address"
)

// maxLine is the length in octets that lines should keep to (RFC 5322 §2.1.1).
const maxLine = 78

// wordOctets is how many octets of text fit in one encoded-word of 75
// (RFC 2047 §2): "=?UTF-8?B?", four characters for each three octets, "?=".
const wordOctets = (75 - len("=?UTF-8?B?") - len("?=")) / 4 * 3

// Date is t as RFC 5322 §3.3 writes it, with a numeric zone.
func Date(t time.Time) string { return t.Format("Mon, 2 Jan 2006 15:04:05 -0700") }

// Mailbox is the value of a generated From: name and address, or the address
// alone if the name is empty. The name may be any text: controls become blanks,
// and it is quoted or encoded (RFC 2047 §5) when it is no plain phrase.
func Mailbox(name string, a address.Address) string {
	name = strings.ToValidUTF8(name, string(utf8.RuneError))
	name = strings.Map(func(r rune) rune {
		if r < ' ' || 0x7F <= r && r < 0xA0 || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, name)
	name = strings.Trim(name, " ")
	switch {
	case name == "":
		return a.String()
	case !isASCII(name):
		name = encodeWords(name)
	case !isPhrase(name):
		name = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
	}
	return name + " <" + a.String() + ">"
}

// encodeWords writes text as encoded-words of whole runes.
func encodeWords(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		n := min(len(text), wordOctets)
		for n < len(text) && !utf8.RuneStart(text[n]) {
			n--
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString("=?UTF-8?B?" + base64.StdEncoding.EncodeToString([]byte(text[:n])) + "?=")
		text = text[n:]
	}
	return b.String()
}

// isPhrase reports whether text needs no quotes (RFC 5322 §3.2.5). What looks
// like an encoded-word does, so that it is read as it was written.
func isPhrase(text string) bool {
	for i := range len(text) {
		c := text[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == ' ':
		case !strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", rune(c)):
			return false
		}
	}
	return !strings.Contains(text, "=?")
}

func isASCII(text string) bool {
	for i := range len(text) {
		if text[i] > 0x7F {
			return false
		}
	}
	return true
}

// newField makes a field of any text.
func newField(name, value string) Field {
	value = strings.NewReplacer("\r", " ", "\n", " ", "\x00", " ").Replace(value)
	return Field{Name: name, Raw: fold(name+": ", strings.Trim(value, " \t"))}
}

// fold breaks lines before the last blank that keeps them within maxLine, or
// else before the next one; never within a run of blanks, and not behind the
// colon, since nobody expects a first line that is empty.
func fold(start, value string) []byte {
	out := []byte(start)
	line := len(out)
	for value != "" {
		n := wordEnd(value)
		if line+n > maxLine && isBlank(value[0]) {
			out = append(out, "\r\n"...)
			line = 0
		}
		out = append(out, value[:n]...)
		line += n
		value = value[n:]
	}
	return append(out, "\r\n"...)
}

// wordEnd returns the length of the blanks and the word that text begins with.
func wordEnd(text string) int {
	word := strings.TrimLeft(text, " \t")
	blanks := len(text) - len(word)
	if i := strings.IndexAny(word, " \t"); i >= 0 {
		return blanks + i
	}
	return len(text)
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }
