package peer

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// postfix is a main.cf being read.
type postfix struct {
	in  *Import
	d   *draft
	set map[string]string // as written
	// seen are the parameters that were asked for, so that the others can be told.
	seen map[string]bool
	// creds and bySender are what smtp_sasl_password_maps has.
	passwords map[string]string
	bySender  bool
	steps     int // parameters replaced in the value at hand
}

// readPostfix reads main.cf and the maps it names, of which there has to be a source
// text.
func readPostfix(in *Import, d *draft, file string) error {
	_, text, err := in.first(usual(file, "/etc/postfix/main.cf")...)
	if err != nil {
		return err
	}
	p := &postfix{in: in, d: d, set: mainCf(text), seen: map[string]bool{}}
	p.names()
	p.readPasswords()
	p.smarthost()
	p.routes()
	p.local()
	p.senders()
	p.limits()
	p.rest()
	return nil
}

// mainCf reads lines "name = value"; one that begins with a blank goes on with the line
// before, and comments may stand between.
func mainCf(text string) map[string]string {
	set := map[string]string{}
	for _, line := range logical(text) {
		if name, value, found := strings.Cut(line, "="); found {
			set[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return set
}

const (
	// maxExpansion bounds a value, in octets, maxSteps the parameters that are replaced
	// in it, and maxDepth how deep they may name each other: $a = $b$b has no end.
	maxExpansion = 64 << 10
	maxSteps     = 10_000
	maxDepth     = 20
)

// get is the value of a parameter, its own default if it is not written.
func (p *postfix) get(name string) string {
	p.steps = 0
	return p.value(name, maxDepth)
}

// raw is the value before $names are replaced.
func (p *postfix) raw(name string) string {
	if v, written := p.set[name]; written {
		return v
	}
	switch name {
	case "myhostname":
		return p.in.Hostname
	case "myorigin":
		return "$myhostname"
	case "mydestination":
		return "$myhostname, localhost.$mydomain, localhost"
	case "queue_directory":
		return "/var/spool/postfix"
	case "config_directory":
		return "/etc/postfix"
	}
	return ""
}

// expand replaces $name, ${name} and $(name); of ${name?text} and ${name:text} it takes
// what holds.
func (p *postfix) expand(s string, depth int) string {
	if p.steps++; depth <= 0 || p.steps > maxSteps {
		p.d.note("parameters that name each other in a circle, or too deep")
		return ""
	}
	var out strings.Builder
	for s != "" && out.Len() < maxExpansion {
		before, after, found := strings.Cut(s, "$")
		out.WriteString(before)
		if !found {
			break
		}
		var name string
		name, s = parameter(after)
		out.WriteString(p.value(name, depth-1))
	}
	return out.String()[:min(out.Len(), maxExpansion)]
}

// parameter cuts the name behind a $ off.
func parameter(s string) (name, rest string) {
	if s != "" && (s[0] == '{' || s[0] == '(') {
		level := 0
		for i, c := range s {
			switch c {
			case '{', '(':
				level++
			case '}', ')':
				if level--; level == 0 {
					return s[1:i], s[i+1:]
				}
			}
		}
		return "", ""
	}
	n := strings.IndexFunc(s, func(c rune) bool {
		return !(c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z')
	})
	if n < 0 {
		n = len(s)
	}
	if n == 0 {
		return "", strings.TrimPrefix(s, "$")
	}
	return s[:n], s[n:]
}

func (p *postfix) value(name string, depth int) string {
	if i := strings.IndexAny(name, "?:"); i >= 0 {
		set := p.expand(p.raw(name[:i]), depth) != ""
		then, otherwise, both := strings.Cut(name[i+1:], "}:{")
		if both {
			then = strings.TrimPrefix(strings.TrimSpace(then), "{")
			otherwise = strings.TrimSuffix(strings.TrimSpace(otherwise), "}")
		}
		switch {
		case name[i] == '?' && set, name[i] == ':' && !set:
			return p.expand(strings.Trim(then, "{}"), depth)
		case both:
			return p.expand(otherwise, depth)
		}
		return ""
	}
	p.seen[name] = true
	if _, written := p.set[name]; name == "mydomain" && !written {
		_, domain, found := strings.Cut(p.value("myhostname", depth-1), ".")
		if !found {
			domain = "localdomain"
		}
		return domain
	}
	return p.expand(p.raw(name), depth)
}

// list divides a value at commas and blanks.
func (p *postfix) list(name string) []string {
	return strings.FieldsFunc(p.get(name), func(c rune) bool { return c == ',' || c == ' ' || c == '\t' })
}

func (p *postfix) yes(name string) bool { return yes(p.get(name)) }

// names writes what the machine is called.
func (p *postfix) names() {
	if host := p.get("myhostname"); p.set["myhostname"] != "" {
		p.d.set("", "hostname", host, "myhostname")
	}
	if helo := p.get("smtp_helo_name"); helo != "" && helo != p.get("myhostname") {
		p.d.set("", "hostname", helo, "smtp_helo_name")
	}
	origin := p.get("myorigin")
	if p.set["myorigin"] == "" && p.set["myhostname"] == "" {
		origin = "" // what the machine is called, as here
	}
	if strings.HasPrefix(origin, "/") {
		origin = p.in.word(origin)
	}
	p.d.set("", "domain", origin, "myorigin")
	var local []string
	for _, name := range p.list("mydestination") {
		switch {
		case name == "localhost" || slices.Contains(local, name):
		case strings.HasPrefix(name, "/"):
			local = append(local, p.linesOf(name)...)
		case strings.Contains(name, ":"):
			p.d.note("mydestination: %s: write its domains into local_domains", name)
		default:
			local = append(local, name)
		}
	}
	p.d.set("", "local_domains", local, "mydestination")
}

// linesOf is a file with a name in each line.
func (p *postfix) linesOf(path string) []string {
	text, err := p.in.read(path)
	if err != nil {
		p.d.note("%v", err)
		return nil
	}
	var list []string
	for line := range strings.SplitSeq(text, "\n") {
		if word, _ := cutSpace(strings.TrimSpace(line)); word != "" && word[0] != '#' {
			list = append(list, word)
		}
	}
	return list
}

// table reads the maps of a parameter, of which the first that has a key counts: the
// keys in order and what they stand for.
func (p *postfix) table(name string) (keys []string, values map[string]string) {
	values = map[string]string{}
	for _, m := range p.list(name) {
		kind, path, found := strings.Cut(strings.TrimPrefix(m, "proxy:"), ":")
		if !found && strings.HasPrefix(m, "/") {
			kind, path = "texthash", m
		}
		switch kind {
		case "hash", "texthash", "btree", "lmdb", "cdb", "dbm", "sdbm":
		default:
			p.d.note("%s: %s is a map that cannot be read here", name, kind)
			continue
		}
		text, err := p.in.read(path)
		if err != nil {
			p.d.note("%s: the text that the map was made of is needed: %v", name, err)
			continue
		}
		// Like main.cf, but the key ends at a blank.
		for _, line := range logical(text) {
			key, value := cutSpace(line)
			key = strings.ToLower(strings.Trim(key, `"`))
			if _, known := values[key]; !known {
				keys = append(keys, key)
				values[key] = value
			}
		}
	}
	return keys, values
}

// logical are the lines of main.cf or of a map, those that go on joined.
func logical(text string) []string {
	var lines []string
	var parts []string
	end := func() {
		if len(parts) > 0 {
			lines = append(lines, strings.Join(parts, " "))
		}
		parts = nil
	}
	for line := range strings.SplitSeq(text, "\n") {
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || trimmed[0] == '#' {
			continue
		}
		if line[0] != ' ' && line[0] != '\t' {
			end()
		}
		parts = append(parts, trimmed)
	}
	end()
	return lines
}

// senders writes what becomes of addresses that mail is from.
func (p *postfix) senders() {
	keys, values := p.table("smtp_generic_maps")
	generic := map[string]string{}
	for _, key := range keys {
		generic[key] = values[key]
	}
	if len(generic) > 0 {
		p.d.set("from", "generic", generic, "smtp_generic_maps")
	}
	for _, name := range []string{"canonical_maps", "sender_canonical_maps", "masquerade_domains"} {
		if v := p.get(name); v != "" {
			p.d.note("%s = %s: see [from]", name, v)
		}
	}
	for _, name := range []string{"recipient_canonical_maps", "virtual_alias_maps", "virtual_alias_domains"} {
		if v := p.get(name); v != "" {
			p.d.note("%s = %s: make aliases of it", name, v)
		}
	}
}

// local writes where mail for this machine goes.
func (p *postfix) local() {
	for i, m := range p.list("alias_maps") {
		kind, path, found := strings.Cut(m, ":")
		if !found {
			kind, path = "hash", m
		}
		switch {
		case i > 0 || !strings.HasPrefix(path, "/") || kind == "nis" || kind == "ldap":
			p.d.note("alias_maps: %s: there is one aliases file", m)
		default:
			p.d.set("aliases", "file", path, "alias_maps")
		}
	}
	p.get("alias_database")
	const where = "what Postfix does with mail for this machine"
	switch transport := p.get("local_transport"); {
	case strings.HasPrefix(transport, "error"):
		p.d.note("local_transport = %s: mail for this machine that no alias takes goes on like any other", transport)
		return
	case transport != "" && transport != "local" && transport != "local:$myhostname":
		p.d.note("local_transport = %s: see [local]", transport)
	}
	if strings.TrimSpace(p.get("mydestination")) == "" {
		return
	}
	for _, name := range []string{"mailbox_transport", "virtual_transport"} {
		if t := p.get(name); strings.HasPrefix(t, "lmtp:") {
			p.d.set("local", "deliver", p.lmtp(t), name)
			return
		}
	}
	switch {
	case p.get("mailbox_command") != "":
		p.d.note("mailbox_command = %s: postino runs no program for it; see [local]", p.get("mailbox_command"))
		p.d.set("local", "deliver", "mbox:/var/mail/{user}", where)
	case strings.HasSuffix(p.get("home_mailbox"), "/"):
		p.d.set("local", "deliver", "maildir:/home/{user}/"+strings.TrimSuffix(p.get("home_mailbox"), "/"), "home_mailbox")
		p.d.note("home_mailbox: homes elsewhere than below /home")
	case p.get("home_mailbox") != "":
		p.d.set("local", "deliver", "mbox:/home/{user}/"+p.get("home_mailbox"), "home_mailbox")
	default:
		dir := first(strings.TrimSuffix(p.get("mail_spool_directory"), "/"), "/var/mail")
		p.d.set("local", "deliver", "mbox:"+dir+"/{user}", where)
	}
}

// lmtp is lmtp:unix:path, lmtp:inet:host:port and lmtp:host:port as a transport of
// postino; sockets are below the queue directory.
func (p *postfix) lmtp(transport string) string {
	rest := strings.TrimPrefix(transport, "lmtp:")
	if path, unix := strings.CutPrefix(rest, "unix:"); unix {
		if !filepath.IsAbs(path) {
			path = filepath.Join(p.get("queue_directory"), path)
		}
		return "lmtp:" + path
	}
	host, port, err := hostPort(strings.TrimPrefix(rest, "inet:"))
	if err != nil {
		p.d.note("%s: %v", transport, err)
	}
	if port == 0 {
		port = 24
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return fmt.Sprintf("lmtp:%s:%d", host, port)
}

// limits writes times and sizes.
func (p *postfix) limits() {
	if n, err := strconv.ParseUint(p.get("message_size_limit"), 10, 62); err == nil && n > 0 {
		p.d.set("", "max_message_size", strconv.FormatUint(n, 10), "message_size_limit")
	}
	for _, t := range []struct{ name, key, unit string }{
		{"minimal_backoff_time", "first", "s"}, {"maximal_backoff_time", "max", "s"},
		{"maximal_queue_lifetime", "lifetime", "d"}, {"delay_warning_time", "warn_after", "h"},
	} {
		v := p.get(t.name)
		if v == "" || strings.Trim(v, "0smhdw") == "" {
			continue
		}
		if strings.Trim(v, "0123456789") == "" {
			v += t.unit
		}
		p.d.set("retry", t.key, v, t.name)
	}
	switch p.get("inet_protocols") {
	case "ipv4":
		p.d.set("mx", "ip", "v4", "inet_protocols")
	case "ipv6":
		p.d.set("mx", "ip", "v6", "inet_protocols")
	}
	if slices.Contains(p.list("notify_classes"), "bounce") {
		p.d.set("", "bounce_to", first(p.get("bounce_notice_recipient"), "postmaster"), "notify_classes")
	}
	if n, err := strconv.Atoi(p.get("smtp_destination_concurrency_limit")); err == nil && n <= 100 && p.d.has("relay", "host") {
		p.d.set("relay", "max_connections", n, "smtp_destination_concurrency_limit")
	}
}

// silent are the parameters that say nothing about mail going out, or that postino does
// by itself.
func silent(name string) bool {
	for _, prefix := range []string{"smtpd_", "postscreen_", "tlsproxy_", "milter_", "virtual_mailbox", "virtual_uid", "virtual_gid", "tls_", "lmtp_", "debug"} {
		if strings.HasPrefix(name, prefix) {
			return name != "smtpd_milters" && name != "milter_header_checks"
		}
	}
	for _, suffix := range []string{"_directory", "_path"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return slices.Contains([]string{
		"compatibility_level", "biff", "append_dot_mydomain", "readme_directory", "mynetworks", "mynetworks_style", "mailbox_size_limit",
		"recipient_delimiter", "mail_owner", "setgid_group", "sendmail_path", "mail_name", "mail_version", "default_privs", "relay_domains",
		"unknown_local_recipient_reject_code", "local_recipient_maps", "inet_interfaces", "smtp_tls_session_cache_database",
		"smtp_tls_loglevel", "smtp_tls_note_starttls_offer", "smtp_tls_ciphers", "smtp_tls_mandatory_ciphers", "smtp_sasl_tls_security_options",
		"smtp_sasl_security_options", "maillog_file", "meta_directory", "shlib_directory", "disable_vrfy_command", "strict_rfc821_envelopes", "mydomain",
	}, name)
}

// rest tells which of the parameters that are written were not asked for.
func (p *postfix) rest() {
	for _, name := range slices.Sorted(maps.Keys(p.set)) {
		value := p.set[name]
		switch {
		case p.seen[name] || silent(name) || value == "":
		case strings.HasSuffix(name, "_milters"):
			p.d.note("%s = %s: postino speaks no milter protocol; for signatures see [[dkim]]", name, value)
		default:
			p.d.note("%s = %s", name, value)
		}
	}
	if all := p.get("inet_interfaces"); all != "" && all != "loopback-only" && all != "localhost" && all != "127.0.0.1" {
		p.d.note("inet_interfaces = %s: postino takes mail of this machine alone", all)
	}
	if p.set["inet_interfaces"] == "" && len(p.set) > 0 {
		p.d.note("inet_interfaces is not set: Postfix took mail from the network, and postino takes that of this machine alone")
	}
	if _, err := os.Stat(filepath.Join(p.in.Root, "/etc/postfix/master.cf")); err == nil {
		p.d.note("master.cf: options (-o) and transports that were added there")
	}
}
