package peer

import (
	"slices"
	"strings"
)

// readPasswords reads smtp_sasl_password_maps: next hop or sender, and user:password.
func (p *postfix) readPasswords() {
	p.passwords = map[string]string{}
	p.bySender = p.yes("smtp_sender_dependent_authentication")
	maps := p.get("smtp_sasl_password_maps")
	if !p.yes("smtp_sasl_auth_enable") {
		if maps != "" {
			p.d.note("smtp_sasl_password_maps: smtp_sasl_auth_enable is not yes, so that nobody logged in")
		}
		return
	}
	if login, static := strings.CutPrefix(strings.TrimSpace(maps), "static:"); static {
		p.passwords["*"] = strings.Trim(login, "{}")
		return
	}
	_, p.passwords = p.table("smtp_sasl_password_maps")
}

// login is the user and password for a next hop as it is written, for mail of that
// sender where that matters.
func (p *postfix) login(nexthop, sender string) (user, password string) {
	host, _, _ := hostPort(nexthop) // what is wrong with it was told
	keys := []string{strings.ToLower(nexthop), strings.ToLower(host), "*"}
	if p.bySender && sender != "" {
		_, domain, _ := strings.Cut(sender, "@")
		keys = append([]string{sender, "@" + domain}, keys...)
	}
	for _, key := range keys {
		if login, found := p.passwords[key]; found {
			user, password, _ = strings.Cut(login, ":")
			return user, password
		}
	}
	return "", ""
}

// level is the TLS of a smarthost: smtp_tls_security_level, or what came before it.
func (p *postfix) level(user string) string {
	level := p.get("smtp_tls_security_level")
	if level == "" {
		switch {
		case p.yes("smtp_enforce_tls"):
			level = "encrypt"
		case p.yes("smtp_use_tls"):
			level = "may"
		}
	}
	if p.yes("smtp_tls_wrappermode") {
		return "implicit"
	}
	switch level {
	case "", "none":
		if user != "" {
			p.d.note("smtp_tls_security_level is not set: Postfix sent the password in plaintext; never credentials in plaintext, so TLS is demanded")
			return "starttls"
		}
		return "none"
	case "may", "dane":
		if user != "" {
			p.d.note("smtp_tls_security_level = %s: never credentials in plaintext, so TLS is demanded and its certificate verified", level)
			return "starttls"
		}
		return "opportunistic"
	case "encrypt":
		p.d.note("smtp_tls_security_level = encrypt: Postfix verified no certificate, and postino does; for one that no authority signed, name its CA in ca_file or its key in tls_pin")
	case "fingerprint":
		p.d.note("smtp_tls_fingerprint_cert_match: if that is the SHA-256 of the public key, it belongs into tls_pin")
	case "dane-only":
		p.d.note("smtp_tls_security_level = dane-only: the certificate of a smarthost is verified by authorities")
	}
	return "starttls"
}

// nexthop writes a next hop ("[host]:port") into a table. Without brackets Postfix
// looks the exchangers of a domain up.
func (p *postfix) nexthop(tableName, nexthop, sender, from string) {
	host, port, err := hostPort(nexthop)
	if err != nil {
		p.d.note("%s: %v", from, err)
	}
	if !strings.HasPrefix(nexthop, "[") && strings.ContainsAny(host, "abcdefghijklmnopqrstuvwxyz") {
		p.d.note("%s: %s has no brackets, so Postfix asked for its exchangers (MX), and postino for its address", from, host)
	}
	if port == 0 {
		port = 25
	}
	s := smarthost{hosts: []string{host}, port: port, from: from, login: "smtp_sasl_password_maps"}
	s.user, s.password = p.login(nexthop, sender)
	if s.user == "" && p.yes("smtp_sasl_auth_enable") {
		p.d.note("smtp_sasl_password_maps: no login for %s was found: if there is one, write username and password_file", nexthop)
	}
	s.tls = p.level(s.user)
	if s.user != "" && s.password == "" {
		p.d.note("smtp_sasl_password_maps: %s has no password", nexthop)
		s.user = ""
	}
	p.d.relay(tableName, s)
	p.tls(tableName, s.tls)
	if addr := first(p.get("smtp_bind_address"), p.get("smtp_bind_address6")); addr != "" && addr != "0.0.0.0" && addr != "::" {
		p.d.set(tableName, "source_address", addr, "smtp_bind_address")
	}
	switch filter := p.list("smtp_sasl_mechanism_filter"); {
	case s.user == "" || len(filter) == 0:
	case len(filter) == 1 && !strings.ContainsAny(filter[0], "!:/"):
		p.d.set(tableName, "auth", strings.ToLower(filter[0]), "smtp_sasl_mechanism_filter")
	default:
		p.d.note("smtp_sasl_mechanism_filter = %s", strings.Join(filter, ", "))
	}
}

// tls writes the files and versions of TLS where there is any.
func (p *postfix) tls(tableName, policy string) {
	ca, cert, key := p.get("smtp_tls_CAfile"), p.get("smtp_tls_cert_file"), p.get("smtp_tls_key_file")
	protocols := first(p.get("smtp_tls_mandatory_protocols"), p.get("smtp_tls_protocols"))
	if dir := p.get("smtp_tls_CApath"); dir != "" && dir != "/etc/ssl/certs" {
		p.d.note("smtp_tls_CApath = %s: name a file in ca_file", dir)
	}
	for _, name := range []string{"smtp_tls_policy_maps", "smtp_tls_fingerprint_cert_match", "smtp_tls_secure_cert_match", "smtp_tls_verify_cert_match", "smtp_tls_per_site"} {
		if v := p.get(name); v != "" {
			p.d.note("%s = %s", name, v)
		}
	}
	if policy == "none" || policy == "opportunistic" {
		return
	}
	if !strings.HasSuffix(ca, "/ca-certificates.crt") && !strings.HasSuffix(ca, "/ca-bundle.crt") {
		p.d.set(tableName, "ca_file", ca, "smtp_tls_CAfile")
	}
	p.d.set(tableName, "cert_file", cert, "smtp_tls_cert_file")
	if cert != "" {
		p.d.set(tableName, "key_file", first(strings.TrimPrefix(key, "$smtp_tls_cert_file"), cert), "smtp_tls_key_file")
	}
	if strings.Contains(protocols, ">=TLSv1.3") || protocols == "TLSv1.3" {
		p.d.set(tableName, "tls_min", "1.3", "smtp_tls_mandatory_protocols")
	}
}

// smarthost writes relayhost, or how mail goes directly.
func (p *postfix) smarthost() {
	hops := p.list("relayhost")
	if len(hops) > 0 {
		p.nexthop("relay", hops[0], "", "relayhost")
		if more := append(hops[1:], p.list("smtp_fallback_relay")...); len(more) > 0 {
			p.fallback(hops[0], more)
		}
	} else {
		p.direct()
	}
	for _, name := range []string{"default_transport", "relay_transport"} {
		switch t := p.get(name); {
		case t == "" || t == "smtp" || t == "relay":
		case strings.HasPrefix(t, "error:") || strings.HasPrefix(t, "error"):
			route := p.d.route()
			p.d.set(route, "recipients", []string{"*"}, name)
			p.d.set(route, "transport", errorOf(t), name)
		default:
			p.d.note("%s = %s", name, t)
		}
	}
}

// direct writes the TLS of mail that goes to exchangers.
func (p *postfix) direct() {
	for _, name := range []string{"smtp_fallback_relay", "smtp_tls_CApath", "smtp_tls_CAfile"} { // of smarthosts alone
		p.get(name)
	}
	switch level := p.get("smtp_tls_security_level"); level {
	case "", "none":
		if !p.yes("smtp_use_tls") {
			p.d.set("mx", "tls", "none", "smtp_tls_security_level")
		}
	case "verify", "secure", "encrypt":
		p.d.set("mx", "tls", "verify", "smtp_tls_security_level")
		if level == "encrypt" {
			p.d.note("smtp_tls_security_level = encrypt: Postfix verified no certificate; mx.tls = \"auto\" is the other choice")
		}
	}
}

// fallback adds hosts with the first one's port and login to the smarthost.
func (p *postfix) fallback(main string, more []string) {
	host, port, _ := hostPort(main)
	hosts := []string{host}
	for _, hop := range more {
		h, n, err := hostPort(hop)
		user, password := p.login(hop, "")
		mainUser, mainPassword := p.login(main, "")
		if err == nil && n == port && user == mainUser && password == mainPassword {
			hosts = append(hosts, h)
		} else {
			p.d.note("relayhost, smtp_fallback_relay: %s has another port or login than %s, and those that stand in for a smarthost share them", hop, host)
		}
	}
	p.d.set("relay", "host", hosts, "relayhost")
}

// errorOf is error:text as a transport of postino.
func errorOf(t string) string {
	_, text, _ := strings.Cut(t, ":")
	return "error:" + first(strings.TrimSpace(text), "550 5.7.1 mail is not sent there")
}

// routes writes transport_maps, which Postfix asks first, and then
// sender_dependent_relayhost_maps.
func (p *postfix) routes() {
	keys, transports := p.table("transport_maps")
	// An address counts before its domain, and "*" last, as Postfix asks for them.
	slices.SortStableFunc(keys, func(a, b string) int { return rank(a) - rank(b) })
	for _, key := range keys {
		p.transport(key, transports[key])
	}
	keys, hops := p.table("sender_dependent_relayhost_maps")
	slices.SortStableFunc(keys, func(a, b string) int { return rank(a) - rank(b) })
	for _, sender := range keys {
		hop := hops[sender]
		if strings.EqualFold(hop, "dunno") || hop == "" {
			p.d.note("sender_dependent_relayhost_maps: %s has no next hop", sender)
			continue
		}
		name := p.d.route()
		p.d.set(name, "senders", []string{sender}, "sender_dependent_relayhost_maps")
		p.nexthop(name, hop, sender, "sender_dependent_relayhost_maps")
	}
	if p.bySender {
		p.senderLogins(hops)
	}
	if v := p.get("sender_dependent_default_transport_maps"); v != "" {
		p.d.note("sender_dependent_default_transport_maps = %s: write [[route]] with senders", v)
	}
}

// senderLogins makes routes of senders that log in by themselves at the one relayhost.
func (p *postfix) senderLogins(done map[string]string) {
	var senders []string
	for key := range p.passwords {
		if _, routed := done[key]; strings.Contains(key, "@") && !routed {
			senders = append(senders, key)
		}
	}
	slices.Sort(senders)
	slices.SortStableFunc(senders, func(a, b string) int { return rank(a) - rank(b) })
	hops := p.list("relayhost")
	for _, sender := range senders {
		if len(hops) == 0 {
			p.d.note("smtp_sasl_password_maps: %s has no next hop", sender)
			continue
		}
		name := p.d.route()
		p.d.set(name, "senders", []string{sender}, "smtp_sasl_password_maps")
		p.nexthop(name, hops[0], sender, "relayhost")
	}
}

// rank orders the keys of a map: addresses, domains, everything.
func rank(key string) int {
	switch {
	case key == "*":
		return 2
	case strings.Contains(key, "@") && !strings.HasPrefix(key, "@"):
		return 0
	}
	return 1
}

// transport writes a line of transport_maps: address or domain, and transport:nexthop.
func (p *postfix) transport(key, value string) {
	pattern := key
	switch {
	case strings.HasPrefix(key, "."):
		p.d.note("transport_maps: %s: all below a domain, which a route cannot say: write each one", key)
		return
	case key != "*" && !strings.Contains(key, "@"):
		pattern = "@" + key
	}
	kind, nexthop, _ := strings.Cut(value, ":")
	if kind == "" && nexthop == "" {
		return // like all other mail
	}
	name := p.d.route()
	p.d.set(name, "recipients", []string{pattern}, "transport_maps")
	switch kind {
	case "", "smtp", "relay", "smtps":
		if nexthop == "" || nexthop == key {
			p.d.set(name, "transport", "mx", "transport_maps")
		} else {
			p.nexthop(name, nexthop, "", "transport_maps")
		}
	case "lmtp":
		p.d.set(name, "transport", p.lmtp(value), "transport_maps")
	case "error", "retry":
		p.d.set(name, "transport", errorOf(value), "transport_maps")
	default:
		p.d.note("transport_maps: %s goes by %s, which there is not", key, kind)
		p.d.table(name).lines = nil
	}
}
