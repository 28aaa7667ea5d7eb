package config

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Mode says what becomes of accepted mail.
type Mode string

const (
	Deliver Mode = "deliver" // send it
	Hold    Mode = "hold"    // accept it and send nothing until the mode changes
	Capture Mode = "capture" // keep it for reading and never send it
	// Redirect sends everything to one address instead of its recipients.
	Redirect Mode = "redirect"
)

// UnmarshalText refuses what is not a mode.
func (m *Mode) UnmarshalText(b []byte) error {
	return choose(m, b, "a mode", []Mode{Deliver, Hold, Capture, Redirect})
}

// TLSPolicy says how a connection to the relay is protected.
type TLSPolicy string

const (
	StartTLS      TLSPolicy = "starttls"      // STARTTLS or nothing is sent; certificate verified (RFC 3207)
	Implicit      TLSPolicy = "implicit"      // TLS from the first octet; certificate verified (RFC 8314 §3.3)
	Opportunistic TLSPolicy = "opportunistic" // STARTTLS where offered, nothing verified (RFC 7435)
	NoTLS         TLSPolicy = "none"          // never TLS
)

// UnmarshalText refuses what is not a TLS policy.
func (p *TLSPolicy) UnmarshalText(b []byte) error {
	return choose(p, b, "a TLS policy", []TLSPolicy{StartTLS, Implicit, Opportunistic, NoTLS})
}

// MXPolicy says how a connection to a mail exchanger is protected.
type MXPolicy string

const (
	MXAuto   MXPolicy = "auto"   // STARTTLS where it is offered, nothing verified (RFC 7435)
	MXVerify MXPolicy = "verify" // STARTTLS with a certificate for the exchanger's name, or nothing is sent
	MXNoTLS  MXPolicy = "none"   // never TLS
)

// UnmarshalText refuses what is not a policy for mail exchangers.
func (p *MXPolicy) UnmarshalText(b []byte) error {
	return choose(p, b, "a TLS policy for mail exchangers", []MXPolicy{MXAuto, MXVerify, MXNoTLS})
}

// IPFamily says which addresses of a mail exchanger are used.
type IPFamily string

const (
	AnyIP  IPFamily = "any" // IPv6 and IPv4 in turn
	OnlyV4 IPFamily = "v4"
	OnlyV6 IPFamily = "v6"
)

// UnmarshalText refuses what is not a family.
func (f *IPFamily) UnmarshalText(b []byte) error {
	return choose(f, b, "a family of addresses", []IPFamily{AnyIP, OnlyV4, OnlyV6})
}

// TLSVersion is the number crypto/tls gives a version of TLS.
type TLSVersion uint16

// UnmarshalText takes "1.2" or "1.3"; RFC 8996 retired what came before.
func (v *TLSVersion) UnmarshalText(b []byte) error {
	switch string(b) {
	case "1.2":
		*v = tls.VersionTLS12
	case "1.3":
		*v = tls.VersionTLS13
	default:
		return fmt.Errorf(`%s is not a TLS version to rely on: write "1.2" or "1.3"`, quote(string(b)))
	}
	return nil
}

func (v TLSVersion) String() string {
	return strings.TrimPrefix(tls.VersionName(uint16(v)), "TLS ")
}

// Pin is the SHA-256 of a public key in DER (SubjectPublicKeyInfo, RFC 5280 §4.1.2.7),
// in hexadecimal; empty is none.
type Pin string

// UnmarshalText takes hexadecimal or base64.
func (p *Pin) UnmarshalText(b []byte) error {
	sum, err := hex.DecodeString(string(b))
	if err != nil {
		sum, err = base64.StdEncoding.DecodeString(string(b))
	}
	if err != nil || len(sum) != sha256.Size {
		return fmt.Errorf("%s is not the SHA-256 of a public key: write its 32 octets in hexadecimal or base64", quote(string(b)))
	}
	*p = Pin(hex.EncodeToString(sum))
	return nil
}

// AuthMethod is a SASL mechanism, or how to come by one.
type AuthMethod string

const (
	AuthAuto  AuthMethod = "auto"  // the best mechanism the relay offers, when there are credentials
	AuthPlain AuthMethod = "plain" // RFC 4616
	AuthLogin AuthMethod = "login" // the old one, without an RFC
	AuthNone  AuthMethod = "none"  // no AUTH, whatever is offered

	AuthCRAMMD5 AuthMethod = "cram-md5"      // RFC 2195
	AuthSCRAM   AuthMethod = "scram-sha-256" // RFC 7677
	// With these the password is an access token of OAuth 2.0.
	AuthXOAUTH2     AuthMethod = "xoauth2"     // of Google and Microsoft, without an RFC
	AuthOAuthBearer AuthMethod = "oauthbearer" // RFC 7628
	AuthExternal    AuthMethod = "external"    // by the client certificate (RFC 4422 appendix A)
)

// UnmarshalText refuses what is not a mechanism this version knows.
func (a *AuthMethod) UnmarshalText(b []byte) error {
	return choose(a, b, "an authentication mechanism",
		[]AuthMethod{AuthAuto, AuthPlain, AuthLogin, AuthCRAMMD5, AuthSCRAM, AuthXOAUTH2, AuthOAuthBearer, AuthExternal, AuthNone})
}

// Rewrite says what is done to an address that mail is from.
type Rewrite string

const (
	Keep    Rewrite = "keep"
	Qualify Rewrite = "qualify" // a bare one is completed (RFC 6409 §8.1)
	Force   Rewrite = "force"   // another takes its place
)

// UnmarshalText refuses what is not done to addresses.
func (r *Rewrite) UnmarshalText(b []byte) error {
	return choose(r, b, "what is done to an address", []Rewrite{Keep, Qualify, Force})
}

// KeepAs is the name of the field that keeps a From that was replaced.
type KeepAs string

const (
	KeepNowhere     KeepAs = ""
	KeepAsReplyTo   KeepAs = "Reply-To"
	KeepAsXOriginal KeepAs = "X-Original-From"
)

// UnmarshalText refuses what is not such a name.
func (k *KeepAs) UnmarshalText(b []byte) error {
	return choose(k, b, "a field for that", []KeepAs{KeepNowhere, KeepAsReplyTo, KeepAsXOriginal})
}

// LocalDelivery says where mail for this machine goes that no alias takes. The zero
// value is nowhere: it goes on like any other mail.
type LocalDelivery struct {
	// Transport is one to mailboxes: by LMTP, Maildir, mbox or a program.
	Transport Transport
	// Forward is an address that gets it instead.
	Forward string
}

// UnmarshalText reads "none", "maildir:", "mbox:", "lmtp:" and "pipe:" as a Transport,
// and "forward:address".
func (l *LocalDelivery) UnmarshalText(b []byte) error {
	*l = LocalDelivery{}
	if string(b) == "none" {
		return nil
	}
	if to, ok := strings.CutPrefix(string(b), "forward:"); ok && isAddress(to) && !hasControl(to) {
		l.Forward = to
		return nil
	}
	err := l.Transport.UnmarshalText(b)
	switch l.Transport.Kind {
	case ViaMaildir, ViaMbox, ViaLMTP, ViaPipe:
		return err
	}
	*l = LocalDelivery{}
	return fmt.Errorf(`%s is not a place for mail: write "none", "maildir:/path", "mbox:/path", "lmtp:/path", "pipe:/program arguments" or "forward:address"`, quote(string(b)))
}

// String is the text that UnmarshalText reads as l.
func (l LocalDelivery) String() string {
	switch {
	case l.Forward != "":
		return "forward:" + l.Forward
	case l == LocalDelivery{}:
		return "none"
	}
	return l.Transport.String()
}

// MailqPolicy says whose mail an ordinary user sees in the queue.
type MailqPolicy string

const (
	MailqOwn MailqPolicy = "own" // addresses and reasons of the user's own mail alone
	MailqAll MailqPolicy = "all" // everybody's
)

// UnmarshalText refuses what is not a policy for mailq.
func (m *MailqPolicy) UnmarshalText(b []byte) error {
	return choose(m, b, "a policy for mailq", []MailqPolicy{MailqOwn, MailqAll})
}

// LogFormat is the form of a log line.
type LogFormat string

const (
	LogText    LogFormat = "text"    // key=value
	LogJSON    LogFormat = "json"    // one object a line
	LogPostfix LogFormat = "postfix" // what programs that read Postfix's log understand
)

// UnmarshalText refuses what is not a log format.
func (l *LogFormat) UnmarshalText(b []byte) error {
	return choose(l, b, "a log format", []LogFormat{LogText, LogJSON, LogPostfix})
}

// LogTarget is where log lines go.
type LogTarget string

const (
	LogAuto    LogTarget = "auto"    // the journal or syslog where nobody reads standard error
	LogStderr  LogTarget = "stderr"  // standard error
	LogJournal LogTarget = "journal" // systemd's
	LogSyslog  LogTarget = "syslog"  // /dev/log, facility mail
)

// UnmarshalText refuses what is not a target.
func (l *LogTarget) UnmarshalText(b []byte) error {
	return choose(l, b, "a place for the log", []LogTarget{LogAuto, LogStderr, LogJournal, LogSyslog})
}

// choose sets *dst to the word b when it is one of words. The refusal says what
// b is not.
func choose[T ~string](dst *T, b []byte, what string, words []T) error {
	if w := T(b); slices.Contains(words, w) {
		*dst = w
		return nil
	}
	return fmt.Errorf("%s is not %s: write %s", quote(string(b)), what, either(words))
}

// either lists words as a person would: "a", "b" or "c".
func either[T ~string](words []T) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(string(w))
	}
	last := len(quoted) - 1
	if last == 0 {
		return quoted[0]
	}
	return strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}

// maxQuoted bounds, in octets, what an error repeats of the file: a line of a
// terminal holds no more.
const maxQuoted = 60

// quote is s for an error message: quoted, no control characters, cut short.
func quote(s string) string {
	if len(s) > maxQuoted {
		cut := maxQuoted
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return strconv.Quote(s)
}
