package peer

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// readMsmtp reads msmtp's file: accounts of lines "command argument".
func readMsmtp(in *Import, d *draft, file string) error {
	path, text, err := in.first(usual(file, append(in.own(".msmtprc", "msmtp/config"), "/etc/msmtprc")...)...)
	if err != nil {
		return err
	}
	accounts := &msmtpAccounts{byName: map[string]*msmtpAccount{}, defaults: &msmtpAccount{set: map[string]string{}}}
	current := accounts.defaults
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		command, argument := cutSpace(line)
		if len(argument) >= 2 && argument[0] == '"' && argument[len(argument)-1] == '"' {
			argument = argument[1 : len(argument)-1]
		}
		switch command {
		case "defaults":
			current = accounts.defaults
		case "account":
			current = accounts.begin(d, argument)
		case "eval":
			d.note("%s: eval %q is a program that makes settings: what it would have said", path, argument)
		default:
			current.set[command] = argument
		}
	}
	return accounts.write(in, d)
}

// msmtpAccount is an account with the settings it has from others.
type msmtpAccount struct {
	name string
	set  map[string]string
}

type msmtpAccounts struct {
	defaults *msmtpAccount
	order    []*msmtpAccount
	byName   map[string]*msmtpAccount
}

// begin is a line "account name : other, another".
func (a *msmtpAccounts) begin(d *draft, argument string) *msmtpAccount {
	name, bases, _ := strings.Cut(argument, ":")
	account := &msmtpAccount{name: strings.TrimSpace(name), set: map[string]string{}}
	copyInto(account.set, a.defaults.set)
	for base := range strings.SplitSeq(bases, ",") {
		base = strings.TrimSpace(base)
		if other := a.byName[base]; other != nil {
			copyInto(account.set, other.set)
		} else if base != "" {
			d.note("account %s: it has the settings of %s, which comes later or not at all", account.name, base)
		}
	}
	if a.byName[account.name] == nil {
		a.order = append(a.order, account)
		a.byName[account.name] = account
	} else {
		*a.byName[account.name] = *account
	}
	return a.byName[account.name]
}

func copyInto(to, from map[string]string) {
	for k, v := range from {
		to[k] = v
	}
}

// write makes the default account the smarthost, and the others routes by sender.
func (a *msmtpAccounts) write(in *Import, d *draft) error {
	main := a.byName["default"]
	if main == nil && len(a.order) == 0 {
		main = a.defaults
	}
	if main != nil {
		a.account(in, d, "relay", main)
	} else {
		d.note("there is no default account: write [relay], or mail goes directly to the exchangers of its recipients")
	}
	for _, other := range a.order {
		if other == main || main != nil && sameAccount(other, main) {
			continue
		}
		pattern := msmtpPattern(other.set["from"])
		if pattern == "" {
			d.note("account %s is chosen by -a or by a pattern, which there is not: write a [[route]] with its senders", other.name)
			continue
		}
		name := d.route()
		d.set(name, "senders", []string{pattern}, other.from("from"))
		a.account(in, d, name, other)
	}
	if main != nil {
		a.sender(d, main)
	}
	return nil
}

// sameAccount reports whether a default account is but another name of it.
func sameAccount(a, b *msmtpAccount) bool {
	return a.set["host"] == b.set["host"] && a.set["port"] == b.set["port"] && a.set["user"] == b.set["user"]
}

// msmtpPattern is the pattern of a route for an account's from; empty when there is none.
func msmtpPattern(from string) string {
	from = strings.TrimPrefix(from, "*")
	if from == "" || strings.ContainsAny(from, "*?%") {
		return ""
	}
	return from
}

func (m *msmtpAccount) from(command string) string {
	if m.name == "" {
		return command
	}
	return "account " + m.name + ": " + command
}

// on reads "on", "off" and nothing, which is on.
func (m *msmtpAccount) on(command string, otherwise bool) bool {
	v, set := m.set[command]
	switch {
	case !set:
		return otherwise
	case v == "off":
		return false
	}
	return true
}

// account writes an account's server into a table.
func (a *msmtpAccounts) account(in *Import, d *draft, tableName string, m *msmtpAccount) {
	s := smarthost{hosts: nonEmpty(m.set["host"]), from: m.from("host"), login: m.from("user")}
	port, err := servicePort(m.set["port"])
	if err != nil {
		d.note("%s %q: %v", m.from("port"), m.set["port"], err)
	}
	switch {
	case !m.on("tls", false):
		s.tls, s.port = "none", 25
	case m.on("tls_starttls", true):
		s.tls, s.port = "starttls", 25
	default:
		s.tls, s.port = "implicit", 465
	}
	if port != 0 {
		s.port = port
	}
	if m.on("auth", false) {
		s.user = m.set["user"]
		s.password = m.set["password"]
		if method := m.set["auth"]; method != "" && method != "on" {
			d.set(tableName, "auth", method, m.from("auth"))
		}
		if s.user == "" && m.set["auth"] != "external" {
			d.note("%s: no user is named: msmtp asks or looks into a keyring", m.from("auth"))
			s.password = ""
		}
	}
	d.relay(tableName, s)
	if m.set["password"] == "" && s.user != "" {
		if eval := m.set["passwordeval"]; eval != "" {
			d.unset(tableName, "password_file")
			d.set(tableName, "password_command", []string{"/bin/sh", "-c", eval}, m.from("passwordeval"))
			d.note("%s: the runner runs the command of password_command as its own user: see that it may", m.from("passwordeval"))
		} else {
			d.note("%s: the password is in a keyring, in .netrc or with a person: write it into %s", m.from("user"), d.secretPath(tableName))
		}
	}
	a.tls(in, d, tableName, m)
	a.rest(d, tableName, m)
}

func (a *msmtpAccounts) tls(in *Import, d *draft, tableName string, m *msmtpAccount) {
	if !m.on("tls", false) {
		return
	}
	if trust := m.set["tls_trust_file"]; trust != "system" && !strings.HasSuffix(trust, "/ca-certificates.crt") {
		d.set(tableName, "ca_file", in.expandHome(trust), m.from("tls_trust_file"))
	}
	d.set(tableName, "cert_file", in.expandHome(m.set["tls_cert_file"]), m.from("tls_cert_file"))
	d.set(tableName, "key_file", in.expandHome(m.set["tls_key_file"]), m.from("tls_key_file"))
	if !m.on("tls_certcheck", true) {
		d.note(`%s: postino verifies certificates wherever it demands TLS; for one that cannot be, name its CA in ca_file or its key in tls_pin`, m.from("tls_certcheck off"))
	}
	if m.set["tls_fingerprint"] != "" {
		d.note("%s: that is of the certificate, and tls_pin is of its public key", m.from("tls_fingerprint"))
	}
}

// expandHome replaces the tilde of a file name.
func (in *Import) expandHome(path string) string {
	if rest, found := strings.CutPrefix(path, "~/"); found && in.Home != "" {
		return in.Home + "/" + rest
	}
	return path
}

// sender writes what is about senders and recipients, of the default account alone.
func (a *msmtpAccounts) sender(d *draft, m *msmtpAccount) {
	from := strings.NewReplacer("%U", "{user}", "%H", "{hostname}", "%C", "{hostname}").Replace(m.set["from"])
	switch {
	case from == "":
	case d.has("route.0", "senders"):
		d.note("%s %s: [from] could force it on all mail, but then no [[route]] would find its senders", m.from("from"), from)
	default:
		d.set("from", "address", from, m.from("from"))
		d.set("from", "envelope", "force", m.from("from"))
		if m.on("allow_from_override", true) {
			d.note("%s: callers could choose another envelope sender by -f, and this is forced on all: write envelope = \"qualify\" to let them", m.from("from"))
		}
		if set, written := m.set["set_from_header"]; written && set != "off" && set != "auto" {
			d.set("from", "header", "force", m.from("set_from_header"))
		}
	}
	d.set("", "domain", m.set["maildomain"], m.from("maildomain"))
	d.set("", "hostname", m.set["domain"], m.from("domain"))
	d.set("aliases", "file", m.set["aliases"], m.from("aliases"))
}

// rest tells what has no counterpart.
func (a *msmtpAccounts) rest(d *draft, tableName string, m *msmtpAccount) {
	d.set(tableName, "source_address", m.set["source_ip"], m.from("source_ip"))
	if host := m.set["proxy_host"]; host != "" {
		port := m.set["proxy_port"]
		if port == "" {
			port = "1080"
		}
		d.set(tableName, "proxy", "socks5://"+host+":"+port, m.from("proxy_host"))
	}
	if m.set["protocol"] == "lmtp" {
		d.note(`%s: a mail store is a [[route]] with transport = "lmtp:host:port"`, m.from("protocol lmtp"))
	}
	for _, command := range slices.Sorted(maps.Keys(m.set)) {
		switch command {
		case "logfile", "logfile_time_format", "syslog":
			// The runner logs by itself.
		case "dsn_notify", "dsn_return", "undisclosed_recipients", "from_full_name", "remove_bcc_headers", "set_to_header", "set_msgid_header", "tls_crl_file", "tls_priorities", "tls_min_dh_prime_bits", "tls_host_override", "ntlmdomain", "socket":
			if m.set[command] != "" && m.set[command] != "auto" {
				d.note("%s %q", m.from(command), m.set[command])
			}
		}
	}
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// cutSpace cuts a line into its first word and what follows.
func cutSpace(line string) (first, rest string) {
	i := strings.IndexAny(line, " \t")
	if i < 0 {
		return line, ""
	}
	return line[:i], strings.TrimSpace(line[i:])
}

// servicePort is a port by number or by the name that peers use; 0 for none.
func servicePort(s string) (int, error) {
	switch s {
	case "":
		return 0, nil
	case "smtp":
		return 25, nil
	case "submission":
		return 587, nil
	case "smtps", "submissions", "ssmtp":
		return 465, nil
	case "lmtp":
		return 24, nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, errNoPort
	}
	return int(n), nil
}
