package config

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

// check applies the rules that a value cannot know of itself. It runs once every
// value is good, so that nothing is said twice.
func (r *reader) check() {
	c := r.config
	for _, name := range []struct{ key, value string }{{"hostname", c.Hostname}, {"domain", c.Domain}} {
		if name.value != "" && !isDomain(name.value) {
			r.failAt(keys{name.key}, "%s is not a domain name: %s", quote(name.value), domainForm)
		}
	}
	for i, name := range c.LocalDomains {
		if !isDomain(name) {
			r.failAt(keys{"local_domains"}, "%s is not a domain name: %s", quote(name), domainForm)
		}
		c.LocalDomains[i] = strings.ToLower(name)
	}
	if c.Retry.First > c.Retry.Max {
		r.failAt(keys{"retry.first", "retry.max"},
			"%v is longer than retry.max, %v: the first wait is the shortest", c.Retry.First, c.Retry.Max)
	}
	if c.Retry.Max > c.Retry.Lifetime {
		r.failAt(keys{"retry.max", "retry.lifetime"},
			"%v is longer than retry.lifetime, %v: no attempt would follow", c.Retry.Max, c.Retry.Lifetime)
	}
	r.checkPath("aliases.file", c.Aliases.File)
	if c.Relay != nil {
		r.checkRelay(c.Relay)
	}
}

// checkPath refuses paths that depend on where a program was started.
func (r *reader) checkPath(key, path string) {
	if path != "" && !filepath.IsAbs(path) {
		r.failAt(keys{key}, "%s is not an absolute path: write it from / on", quote(path))
	}
}

const domainForm = `write letters, digits and hyphens with dots between, such as "mail.example.com"`

func (r *reader) checkRelay(relay *Relay) {
	switch {
	case len(relay.Host) == 0 || relay.Host[0] == "":
		r.failAt(keys{"relay.host"}, "missing: name the smarthost, or remove [relay]")
	case len(relay.Host) > 1:
		r.failAt(keys{"relay.host"}, "a list of more than one is not supported by this version: write one host")
	case !isHost(relay.Host[0]):
		r.failAt(keys{"relay.host"}, "%s is neither a domain name nor an IP address: write one of them, and a port as relay.port", quote(relay.Host[0]))
	}
	r.checkPath("relay.ca_file", relay.CAFile)
	r.checkPath("relay.password_file", relay.PasswordFile)
	if c := relay.Credential; c == "." || c == ".." || strings.Contains(c, "/") {
		r.failAt(keys{"relay.credential"}, "%s is not the name of a credential: write what stands before the colon in LoadCredential=", quote(c))
	}
	r.checkCredentials(relay)
}

// checkCredentials refuses half of a user name and password, two passwords, and
// the network hearing them.
func (r *reader) checkCredentials(relay *Relay) {
	sources := relay.passwordSources()
	explicit := relay.Auth == AuthPlain || relay.Auth == AuthLogin
	if len(sources) > 1 {
		r.failAt(keys{sources[1]}, "a second password, besides %s: keep one of them", sources[0])
	}
	if relay.Auth == AuthNone {
		if relay.Credentials() {
			r.failAt(keys{"relay.auth"}, `"none" contradicts %s: remove one of them`, firstCredential(relay))
		}
		return
	}
	if !explicit && !relay.Credentials() {
		return
	}
	if relay.Username == "" {
		r.failAt(keys{"relay.username", "relay.auth"}, "missing: AUTH needs a user name besides the password")
	}
	if len(sources) == 0 {
		r.failAt(keys{"relay.password_file", "relay.username", "relay.auth"},
			"missing: AUTH needs a password besides the user name: write it, or password_command, credential or password")
	}
	unsafe := relay.TLS == NoTLS || relay.TLS == Opportunistic
	if unsafe && len(relay.Host) == 1 && !isLoopback(relay.Host[0]) {
		r.failAt(keys{"relay.tls"}, `%q with credentials: never credentials in plaintext: write "starttls" or "implicit"`, relay.TLS)
	}
}

func firstCredential(relay *Relay) string {
	if relay.Username != "" {
		return "relay.username"
	}
	return relay.passwordSources()[0]
}

// keys are what a rule is about: the first is named, and the first that is
// written, else their table, is the place.
type keys []string

func (r *reader) failAt(about keys, format string, args ...any) {
	table, _ := split(about[0])
	offset := -1
	for _, key := range append(slices.Clone(about), table) {
		if at, written := r.at[key]; written {
			offset = at
			break
		}
	}
	r.fail(offset, about[0]+": "+format, args...)
}

const (
	maxDomain = 253 // octets without the root's dot; RFC 1035 §2.3.4 has 255 on the wire
	maxLabel  = 63  // octets; RFC 1035 §2.3.4
)

// isDomain reports whether s is a host name of letters, digits and hyphens
// (RFC 1123 §2.1) and no IP address.
func isDomain(s string) bool {
	if len(s) > maxDomain {
		return false
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return false
	}
	for _, label := range strings.Split(s, ".") {
		if label == "" || len(label) > maxLabel || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return false
		}
		for _, c := range []byte(label) {
			if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-') {
				return false
			}
		}
	}
	return true
}

// isHost reports whether s is a domain name or an IP address.
func isHost(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil || isDomain(s)
}

// isLoopback reports whether what is sent to host stays on this machine.
func isLoopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.IsLoopback()
	}
	return strings.EqualFold(host, "localhost")
}
