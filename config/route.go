package config

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"

	"postino/spool/address"
)

// Route sends mail for some recipients, or of some senders, elsewhere than the rest
// goes. The first that matches a recipient counts.
type Route struct {
	// Recipients and Senders are patterns: an address, "@domain", or "*" for all. A
	// route with both takes a recipient only if both match.
	Recipients, Senders []string
	// Transport is the way; the zero Transport is the smarthost in Relay.
	Transport Transport
	// From is the address that mail of the route is from, in which {user} and {hostname}
	// may stand; empty: as it was handed in.
	From string
	// Relay is nil exactly when Transport is set.
	Relay *Relay
}

// TransportKind is a way for mail to go.
type TransportKind string

// The kinds of transports.
const (
	ViaRelay TransportKind = ""      // a smarthost
	ViaMX    TransportKind = "mx"    // the recipient's mail exchangers
	ViaLMTP  TransportKind = "lmtp"  // a mail store (RFC 2033)
	ViaError TransportKind = "error" // none: the recipients fail, or wait

	ViaMaildir TransportKind = "maildir" // a directory of this machine
	ViaMbox    TransportKind = "mbox"    // a file of this machine
	ViaPipe    TransportKind = "pipe"    // a program of this machine
)

// Transport is a way for mail to go and what it needs to know.
type Transport struct {
	Kind TransportKind
	// Path or Host and Port are of an LMTP server; Path is that of mailboxes too, in
	// which UserMark stands for the local part of the recipient, and the program of
	// ViaPipe with its arguments, separated by one space.
	Path, Host string
	Port       int
	// Code, Status and Text are what ViaError answers, 400 to 599.
	Code         int
	Status, Text string
}

// UserMark stands for the user in the path of mailboxes. In the arguments of a program
// the others may stand as well.
const (
	UserMark      = "{user}"
	RecipientMark = "{recipient}"
	SenderMark    = "{sender}"
)

const transportForm = `write "mx", "lmtp:/path", "lmtp:host:port", "maildir:/path", "mbox:/path", "pipe:/program arguments" or "error:550 5.7.1 text"`

// UnmarshalText reads "mx", "lmtp:/path/to/socket", "lmtp:host:port" and "error:"
// with a reply code, an enhanced status and a text, of which only the text must be
// there.
func (t *Transport) UnmarshalText(b []byte) error {
	text := string(b)
	if hasControl(text) {
		return fmt.Errorf("a control character in it: remove it")
	}
	kind, rest, _ := strings.Cut(text, ":")
	switch TransportKind(kind) {
	case ViaMX:
		if text == string(ViaMX) {
			*t = Transport{Kind: ViaMX}
			return nil
		}
	case ViaLMTP:
		if filepath.IsAbs(rest) {
			*t = Transport{Kind: ViaLMTP, Path: rest}
			return nil
		}
		host, port, err := net.SplitHostPort(rest)
		if n, numErr := strconv.ParseUint(port, 10, 16); err == nil && numErr == nil && n > 0 && isHost(host) {
			*t = Transport{Kind: ViaLMTP, Host: host, Port: int(n)}
			return nil
		}
	case ViaError:
		if e, ok := errorTransport(strings.TrimSpace(rest)); ok {
			*t = e
			return nil
		}
	case ViaMaildir, ViaMbox:
		if filepath.IsAbs(rest) && !strings.ContainsAny(strings.ReplaceAll(rest, UserMark, ""), "{}") {
			*t = Transport{Kind: TransportKind(kind), Path: filepath.Clean(rest)}
			return nil
		}
	case ViaPipe:
		words := strings.Fields(rest)
		left := strings.NewReplacer(UserMark, "", RecipientMark, "", SenderMark, "").Replace(rest)
		if len(words) > 0 && filepath.IsAbs(words[0]) && !strings.ContainsAny(words[0]+left, "{}") {
			*t = Transport{Kind: ViaPipe, Path: strings.Join(words, " ")}
			return nil
		}
	}
	return fmt.Errorf("%s is not a transport: %s", quote(text), transportForm)
}

// errorTransport reads "[code] [status] text".
func errorTransport(rest string) (Transport, bool) {
	t := Transport{Kind: ViaError, Code: 550, Status: "5.7.1", Text: rest}
	word, after, _ := strings.Cut(rest, " ")
	if n, err := strconv.Atoi(word); err == nil && len(word) == 3 {
		if n < 400 || n > 599 {
			return t, false
		}
		t.Code, t.Text = n, strings.TrimSpace(after)
		t.Status = word[:1] + ".7.1"
		word, after, _ = strings.Cut(t.Text, " ")
	}
	if isEnhanced(word) {
		if word[0] != strconv.Itoa(t.Code)[0] {
			return t, false
		}
		t.Status, t.Text = word, strings.TrimSpace(after)
	}
	return t, t.Text != ""
}

// isEnhanced reports whether s is an enhanced status of class 4 or 5 (RFC 3463 §2).
func isEnhanced(s string) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || parts[0] != "4" && parts[0] != "5" {
		return false
	}
	for _, p := range parts[1:] {
		if n, err := strconv.Atoi(p); err != nil || n < 0 || n > 999 || strconv.Itoa(n) != p {
			return false
		}
	}
	return true
}

// String is the text that UnmarshalText reads as t.
func (t Transport) String() string {
	switch t.Kind {
	case ViaLMTP:
		if t.Path != "" {
			return "lmtp:" + t.Path
		}
		return "lmtp:" + net.JoinHostPort(t.Host, strconv.Itoa(t.Port))
	case ViaMaildir, ViaMbox, ViaPipe:
		return string(t.Kind) + ":" + t.Path
	case ViaError:
		return fmt.Sprintf("error:%d %s %s", t.Code, t.Status, t.Text)
	}
	return string(t.Kind)
}

// Matches reports whether the route is for mail of that sender, the zero Address
// being the null one, to that recipient.
func (r *Route) Matches(sender, recipient address.Address) bool {
	return matchesAny(r.Recipients, recipient) && matchesAny(r.Senders, sender)
}

// matchesAny is true of no patterns at all.
func matchesAny(patterns []string, a address.Address) bool {
	for _, p := range patterns {
		local, domain, _ := cutLast(p, "@")
		if p == "*" || strings.EqualFold(domain, a.Domain) && a.Domain != "" && (local == "" || local == a.Local) {
			return true
		}
	}
	return len(patterns) == 0
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// isPattern reports whether s is "*", "@domain" or an address.
func isPattern(s string) bool {
	if s == "*" {
		return true
	}
	if strings.HasPrefix(s, "@") {
		s = "x" + s
	}
	return isAddress(s)
}

// isAddress reports whether s is an address with a domain.
func isAddress(s string) bool {
	a, err := address.Parse(s)
	return err == nil && a.Domain != ""
}

// relays are all smarthosts of the configuration.
func (c *Config) relays() []*Relay {
	var list []*Relay
	if c.Relay != nil {
		list = append(list, c.Relay)
	}
	for i := range c.Routes {
		if c.Routes[i].Relay != nil {
			list = append(list, c.Routes[i].Relay)
		}
	}
	return list
}
