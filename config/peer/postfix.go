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
	switch all := p.get("inet_interfaces"); all {
	case "loopback-only", "localhost", "127.0.0.1":
		p.d.portOf("inet_interfaces")
	case "":
		if len(p.set) > 0 {
			p.d.note("inet_interfaces is not set: Postfix took mail from the network, and postino takes that of this machine alone")
		}
	default:
		p.d.note("inet_interfaces = %s: postino takes mail of this machine alone", all)
	}
	if _, err := os.Stat(filepath.Join(p.in.Root, "/etc/postfix/master.cf")); err == nil {
		p.d.note("master.cf: options (-o) and transports that were added there")
	}
}
