package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
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
	r.checkFrom(&c.From)
	r.checkGeneric(c.From.Generic)
	r.checkAllowFrom(c.Limits.AllowFrom)
	r.checkAliases(&c.Aliases)
	r.checkLocal(&c.Local)
	for _, text := range c.SMTP.Listen {
		if at, err := netip.ParseAddrPort(text); err != nil || !at.Addr().IsLoopback() || at.Port() == 0 {
			r.failAt(keys{"smtp.listen"}, `%s is not an address and port of this machine's loopback: write one such as "127.0.0.1:25"; nobody else is to send mail here`, quote(text))
		}
	}
	if text := c.Metrics.Listen; text != "" {
		if at, err := netip.ParseAddrPort(text); err != nil || at.Port() == 0 {
			r.failAt(keys{"metrics.listen"}, `%s is not an IP address and port: write one such as "127.0.0.1:9154"`, quote(text))
		}
	}
	for i, name := range c.Metrics.Names {
		if !isDomain(name) {
			r.failAt(keys{"metrics.names"}, "%s is not a host name: %s", quote(name), domainForm)
		}
		c.Metrics.Names[i] = strings.ToLower(name)
	}
	if c.Relay != nil {
		r.checkRelay("relay.", c.Relay)
	}
	for i := range c.Routes {
		r.checkRoute("route."+strconv.Itoa(i)+".", &c.Routes[i])
	}
	for i, k := range c.DKIM {
		r.checkDKIM("dkim."+strconv.Itoa(i)+".", &k)
	}
	r.checkMX(&c.MX)
	for _, a := range []struct{ key, value string }{{"redirect_to", c.RedirectTo}, {"bounce_to", c.BounceTo}} {
		if a.value != "" && !isAddress(a.value) {
			r.failAt(keys{a.key}, "%s is not an address: write one such as ops@example.com", quote(a.value))
		}
	}
	if c.Mode == Redirect && c.RedirectTo == "" {
		r.failAt(keys{"redirect_to", "mode"}, `missing: mode "redirect" needs to know where to`)
	}
}

func (r *reader) checkFrom(f *From) {
	r.checkTemplate("from.address", f.Address)
	switch {
	case f.Address == "" && (f.Envelope == Force || f.Header == Force):
		r.failAt(keys{"from.address", "from.envelope", "from.header"}, `missing: "force" needs to know which`)
	}
	if f.Name != "" && f.Header != Force {
		r.failAt(keys{"from.name"}, `is for header = "force": write that, or leave the name out`)
	}
}

func (r *reader) checkAliases(a *Aliases) {
	r.checkPath("aliases.file", a.File)
	r.checkPath("aliases.helper", a.Helper)
	r.checkPath("aliases.forward", a.Forward)
	if a.Forward != "" && !strings.Contains(a.Forward, UserMark) {
		r.failAt(keys{"aliases.forward"}, "%s is one file for all: write %s where the name of the user belongs", quote(a.Forward), UserMark)
	}
	if a.RunAs == "" || a.RunAs == "root" || strings.Trim(a.RunAs, "0") == "" {
		r.failAt(keys{"aliases.run_as"}, `%s may not run what strangers' mail is for: name a user who may do little, such as "nobody"`, quote(a.RunAs))
	}
}

func (r *reader) checkLocal(l *Local) {
	r.checkPath("local.helper", l.Helper)
	if to := l.Deliver.Transport; l.Helper != "" && (to.Kind != ViaMaildir && to.Kind != ViaMbox && to.Kind != ViaPipe || !strings.Contains(to.Path, UserMark)) {
		r.failAt(keys{"local.helper"}, "is for mailboxes of users: set local.deliver to maildir:, mbox: or pipe: with %s in it", UserMark)
	}
}

// checkTemplate refuses what no address can come of.
func (r *reader) checkTemplate(key, text string) {
	filled := strings.NewReplacer("{user}", "u", "{hostname}", "h").Replace(text)
	if text != "" && (!isAddress(filled) || strings.ContainsAny(filled, "{}<> \"")) {
		r.failAt(keys{key}, "%s is not an address: write one such as \"{user}@example.com\", in which {user} and {hostname} may stand", quote(text))
	}
}

// checkRoute checks a route, and takes the relay out of one that has another
// transport.
func (r *reader) checkRoute(table string, route *Route) {
	for _, p := range append(slices.Clone(route.Recipients), route.Senders...) {
		if !isPattern(p) {
			r.failAt(keys{table + "recipients", table + "senders"}, `%s is no pattern: write "@domain", an address or "*"`, quote(p))
		}
	}
	if len(route.Recipients)+len(route.Senders) == 0 {
		r.failAt(keys{table + "recipients"}, "missing: say whom the route is for, by recipients or senders")
	}
	r.checkTemplate(table+"from", route.From)
	if route.Transport.Kind == ViaRelay {
		r.checkRelay(table, route.Relay)
		return
	}
	for _, s := range route.Relay.settings(table) {
		if _, written := r.at[s.key]; written {
			r.failAt(keys{s.key}, "belongs to a smarthost, and this route has a transport: keep one of them")
		}
	}
	route.Relay = nil
}

func (r *reader) checkDKIM(table string, k *DKIM) {
	for _, name := range []struct{ key, value string }{{"domain", k.Domain}, {"selector", k.Selector}} {
		switch {
		case name.value == "":
			r.failAt(keys{table + name.key}, "missing: a key is for a domain, and published under a selector")
		case !isDomain(name.value):
			r.failAt(keys{table + name.key}, "%s is not a domain name: %s", quote(name.value), domainForm)
		}
	}
	if k.KeyFile == "" {
		r.failAt(keys{table + "key_file"}, `missing: name the file with the private key: "postino dkim keygen" makes one`)
	}
	r.checkPath(table+"key_file", k.KeyFile)
}

func (r *reader) checkMX(mx *MX) {
	if mx.Resolver == "" {
		return
	}
	_, err := netip.ParseAddrPort(mx.Resolver)
	if _, plain := netip.ParseAddr(mx.Resolver); err != nil && plain != nil {
		r.failAt(keys{"mx.resolver"}, `%s is not the address of a resolver: write an IP address, with a port if it is not 53: "127.0.0.1:5353"`, quote(mx.Resolver))
	}
}

// checkPath refuses paths that depend on where a program was started.
func (r *reader) checkPath(key, path string) {
	if path != "" && !filepath.IsAbs(path) {
		r.failAt(keys{key}, "%s is not an absolute path: write it from / on", quote(path))
	}
}

const domainForm = `write letters, digits and hyphens with dots between, such as "mail.example.com"`

// checkRelay checks the relay in a table: "relay.", "route.0.".
func (r *reader) checkRelay(table string, relay *Relay) {
	switch {
	case len(relay.Host) == 0 && relay.Preset != "":
		r.failAt(keys{table + "host", table + "preset"}, "missing: with this preset it is %s", relay.Preset.hint("host_form"))
	case len(relay.Host) == 0 || relay.Host[0] == "":
		r.failAt(keys{table + "host"}, "missing: name the smarthost, or remove the table")
	case slices.ContainsFunc(relay.Host, func(h string) bool { return !isHost(h) }):
		bad := relay.Host[slices.IndexFunc(relay.Host, func(h string) bool { return !isHost(h) })]
		r.failAt(keys{table + "host"}, "%s is neither a domain name nor an IP address: write one of them, and a port as %s", quote(bad), shown(table+"port"))
	}
	r.checkPath(table+"ca_file", relay.CAFile)
	r.checkTLS(table, relay)
	if _, err := netip.ParseAddr(relay.SourceAddress); relay.SourceAddress != "" && err != nil {
		r.failAt(keys{table + "source_address"}, "%s is not an IP address: write one that this machine has", quote(relay.SourceAddress))
	}
	r.checkPath(table+"password_file", relay.PasswordFile)
	if c := relay.Credential; c == "." || c == ".." || strings.Contains(c, "/") {
		r.failAt(keys{table + "credential"}, "%s is not the name of a credential: write what stands before the colon in LoadCredential=", quote(c))
	}
	r.checkOAuth(table+"oauth.", &relay.OAuth, relay.Preset)
	r.checkCredentials(table, relay)
}

// checkTLS refuses half a client certificate, and what asks for TLS where there may
// be none.
func (r *reader) checkTLS(table string, relay *Relay) {
	for _, file := range []struct{ key, path, other string }{
		{"cert_file", relay.CertFile, relay.KeyFile}, {"key_file", relay.KeyFile, relay.CertFile},
	} {
		r.checkPath(table+file.key, file.path)
		if file.path == "" && file.other != "" {
			r.failAt(keys{table + file.key, table + "cert_file", table + "key_file"}, "missing: a client certificate is cert_file and key_file")
		}
	}
	for _, demand := range []struct {
		key string
		set bool
	}{{"tls_pin", relay.TLSPin != ""}, {"cert_file", relay.CertFile != ""}} {
		if demand.set && (relay.TLS == NoTLS || relay.TLS == Opportunistic) {
			r.failAt(keys{table + demand.key}, `asks for TLS and %s = %q does not: write "starttls" or "implicit" there`, shown(table+"tls"), relay.TLS)
		}
	}
	if relay.Auth == AuthExternal && relay.CertFile == "" {
		r.failAt(keys{table + "cert_file", table + "auth"}, `missing: auth "external" logs in by the client certificate`)
	}
}

// checkCredentials refuses half of a user name and password, two passwords, and
// the network hearing them.
func (r *reader) checkCredentials(table string, relay *Relay) {
	sources := relay.passwordSources()
	for i := range sources {
		sources[i] = table + sources[i]
	}
	explicit := relay.Auth != AuthAuto && relay.Auth != AuthNone
	if len(sources) > 1 {
		r.failAt(keys{sources[1]}, "a second password, besides %s: keep one of them", shown(sources[0]))
	}
	if relay.Auth == AuthExternal {
		if len(sources) > 0 {
			r.failAt(keys{sources[0]}, `a password, and auth "external" uses none: remove one of them`)
		}
		return
	}
	if relay.Auth == AuthNone {
		if relay.Credentials() {
			r.failAt(keys{table + "auth"}, `"none" contradicts %s: remove one of them`, shown(firstCredential(table, relay)))
		}
		return
	}
	if !explicit && !relay.Credentials() {
		return
	}
	if relay.Username == "" {
		r.failAt(keys{table + "username", table + "auth"}, "missing: AUTH needs a user name besides the password%s", loginHint(relay))
	}
	if len(sources) == 0 {
		r.failAt(keys{table + "password_file", table + "username", table + "auth"},
			"missing: AUTH needs a password besides the user name: write it, or password_command, credential or password%s%s", tokenHint(relay), loginHint(relay))
	}
	if relay.OAuth.IsSet() && explicit && relay.Auth != AuthXOAUTH2 && relay.Auth != AuthOAuthBearer {
		r.failAt(keys{table + "auth", table + "oauth"}, `%q takes no access token: write "xoauth2" or "oauthbearer", or leave it out`, relay.Auth)
	}
	unsafe := relay.TLS == NoTLS || relay.TLS == Opportunistic
	far := relay.Proxy != Proxy{} // who looks up what localhost is
	if unsafe && (far || slices.ContainsFunc(relay.Host, func(h string) bool { return !isLoopback(h) })) {
		r.failAt(keys{table + "tls"}, `%q with credentials: never credentials in plaintext: write "starttls" or "implicit"`, relay.TLS)
	}
}

// loginHint says what the provider wants; nothing without a preset.
func loginHint(relay *Relay) string {
	if relay.Preset == "" {
		return ""
	}
	return fmt.Sprintf(" (%s: %s)", relay.Preset, relay.Preset.hint("login"))
}

// tokenHint says what is meant by a password where it is an access token.
func tokenHint(relay *Relay) string {
	if relay.Auth == AuthXOAUTH2 || relay.Auth == AuthOAuthBearer {
		return "; an access token is fetched by [relay.oauth]"
	}
	return ""
}

func firstCredential(table string, relay *Relay) string {
	if relay.Username != "" {
		return table + "username"
	}
	return table + relay.passwordSources()[0]
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
	r.fail(offset, shown(about[0])+": "+format, args...)
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
