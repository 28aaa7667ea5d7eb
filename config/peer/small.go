package peer

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

var errNoPort = errors.New("not a port")

// readSsmtp reads ssmtp.conf: lines "keyword=value", keywords in any case.
func readSsmtp(in *Import, d *draft, file string) error {
	path, text, err := in.first(usual(file, "/etc/ssmtp/ssmtp.conf")...)
	if err != nil {
		return err
	}
	set := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, found := strings.Cut(line, "=")
		if !found {
			d.note("%s: a line without =", path)
			continue
		}
		set[strings.ToLower(strings.TrimSpace(key))] = strings.TrimSpace(value)
	}
	ssmtpRelay(d, set)
	d.set("", "hostname", set["hostname"], "hostname")
	d.set("", "domain", set["rewritedomain"], "rewriteDomain")
	if !yes(set["fromlineoverride"]) {
		d.note("FromLineOverride is not YES: ssmtp wrote every From itself; [from] header = \"force\" does that with one address for all")
	}
	if root := set["root"]; root != "" {
		d.note("root=%s: mail for users below 1000: put %q into /etc/aliases", root, "root: "+root)
	}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		switch key {
		case "tls_ca_dir":
			d.note("%s: a directory of certificates; name one file in relay.ca_file", key)
		case "debug", "root", "mailhub", "hostname", "rewritedomain", "fromlineoverride", "usetls", "usestarttls", "usetlscert",
			"tlscert", "tlskey", "tls_ca_file", "authuser", "authpass", "authmethod", "minuserid":
		default:
			d.note("%s", key)
		}
	}
	return ssmtpAliases(in, d)
}

func yes(s string) bool {
	switch strings.ToLower(s) {
	case "yes", "true", "1", "on":
		return true
	}
	return false
}

func ssmtpRelay(d *draft, set map[string]string) {
	host, port, err := hostPort(set["mailhub"])
	if err != nil {
		d.note("mailhub=%s: %v", set["mailhub"], err)
	}
	if host == "" {
		d.note("no mailhub is named: ssmtp takes a host called mail; write [relay], or mail goes directly to the exchangers of its recipients")
		return
	}
	if port == 0 {
		port = 25
	}
	s := smarthost{hosts: []string{host}, port: port, from: "mailhub", user: set["authuser"], password: set["authpass"], login: "AuthUser", tls: "none"}
	switch {
	case yes(set["usestarttls"]):
		s.tls = "starttls"
	case yes(set["usetls"]):
		s.tls = "implicit"
	}
	if s.tls != "none" {
		d.note("ssmtp verified no certificate, and postino does: for one that no authority signed, name its CA in ca_file or its key in tls_pin")
	}
	d.relay("relay", s)
	if strings.EqualFold(set["authmethod"], "cram-md5") {
		d.set("relay", "auth", "cram-md5", "AuthMethod")
	}
	d.set("relay", "ca_file", set["tls_ca_file"], "TLS_CA_File")
	if yes(set["usetlscert"]) {
		d.set("relay", "cert_file", set["tlscert"], "TLSCert")
		d.set("relay", "key_file", first(set["tlskey"], set["tlscert"]), "TLSKey")
	}
}

func first(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}

// ssmtpAliases reads revaliases: lines "user:address[:mailhub[:port]]".
func ssmtpAliases(in *Import, d *draft) error {
	const path = "/etc/ssmtp/revaliases"
	if !in.exists(path) {
		return nil
	}
	text, err := in.read(path)
	if err != nil {
		return err
	}
	generic := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		parts := strings.SplitN(line, ":", 3)
		if len(parts) < 2 {
			d.note("%s: a line without a colon", path)
			continue
		}
		generic[parts[0]] = parts[1]
		if len(parts) == 3 {
			d.note("%s: mail of %s went to %s: write a [[route]] with senders = [%q]", path, parts[0], parts[2], parts[1])
		}
	}
	if len(generic) > 0 {
		d.set("from", "generic", generic, path)
	}
	return nil
}

// hostPort cuts "host", "host:port", "[host]:port" and an IPv6 address in brackets; the
// port may be a service. It is 0 when there is none.
func hostPort(s string) (host string, port int, err error) {
	s = strings.TrimSpace(s)
	host, service := s, ""
	if rest, bracket := strings.CutPrefix(s, "["); bracket {
		var closed bool
		host, service, closed = strings.Cut(rest, "]")
		if !closed {
			return "", 0, fmt.Errorf("%q: a bracket is not closed", s)
		}
		service = strings.TrimPrefix(service, ":")
		host = strings.TrimPrefix(host, "IPv6:")
	} else if strings.Count(s, ":") == 1 {
		host, service, _ = strings.Cut(s, ":")
	}
	if service != "" {
		if port, err = servicePort(service); err != nil {
			return host, 0, fmt.Errorf("%q: %w", service, err)
		}
	}
	return host, port, nil
}

// readDma reads dma.conf: lines "NAME value".
func readDma(in *Import, d *draft, file string) error {
	path, text, err := in.first(usual(file, "/etc/dma/dma.conf")...)
	if err != nil {
		return err
	}
	set := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if name, value := cutSpace(strings.TrimSpace(line)); name != "" {
			set[name] = value
		}
	}
	has := func(name string) bool { _, there := set[name]; return there }
	mailname := set["MAILNAME"]
	if strings.HasPrefix(mailname, "/") {
		mailname = in.word(mailname)
	}
	d.set("", "hostname", mailname, "MAILNAME")
	if err := dmaRelay(in, d, set); err != nil {
		return err
	}
	if m := set["MASQUERADE"]; m != "" {
		dmaMasquerade(d, m)
	}
	d.set("aliases", "file", set["ALIASES"], "ALIASES")
	if set["SMARTHOST"] == "" || !has("NULLCLIENT") {
		d.set("local", "deliver", "mbox:/var/mail/{user}", "what dma does with mail for this machine")
	}
	for _, name := range []string{"DEFER", "FULLBOUNCE", "FINGERPRINT"} {
		if has(name) {
			d.note("%s: %s", name, map[string]string{
				"DEFER":       "mail waited for dma -q; mode = \"hold\" and postino release do that",
				"FULLBOUNCE":  "what a report returns is for the sender to say (sendmail -R)",
				"FINGERPRINT": "that is of the certificate, and tls_pin is of its public key",
			}[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		switch name {
		case "SMARTHOST", "PORT", "ALIASES", "SPOOLDIR", "AUTHPATH", "SECURETRANS", "SECURETRANSFER", "STARTTLS", "OPPORTUNISTIC_TLS",
			"CERTFILE", "SECURE", "INSECURE", "DEFER", "FULLBOUNCE", "MAILNAME", "MASQUERADE", "NULLCLIENT", "FINGERPRINT", "VIRTPATH":
		default:
			d.note("%s: %s: no setting of dma that is known", path, name)
		}
	}
	return nil
}

func dmaRelay(in *Import, d *draft, set map[string]string) error {
	has := func(name string) bool { _, there := set[name]; return there }
	port, err := servicePort(set["PORT"])
	if err != nil {
		d.note("PORT %s: %v", set["PORT"], err)
	}
	host := set["SMARTHOST"]
	if host == "" {
		if port != 0 {
			d.set("mx", "port", port, "PORT")
		}
		return nil
	}
	if port == 0 {
		port = 25
	}
	s := smarthost{hosts: []string{host}, port: port, from: "SMARTHOST", tls: "none"}
	secure := has("SECURETRANSFER") || has("SECURETRANS")
	switch {
	case secure && has("STARTTLS") && has("OPPORTUNISTIC_TLS"):
		s.tls = "opportunistic"
	case secure && has("STARTTLS"):
		s.tls = "starttls"
	case secure:
		s.tls = "implicit"
	}
	if path := set["AUTHPATH"]; path != "" {
		text, err := in.read(path)
		if err != nil {
			return err
		}
		for line := range strings.SplitSeq(text, "\n") {
			// user|smarthost:password, and the password may have any character in it
			user, rest, found := strings.Cut(strings.TrimSpace(line), "|")
			of, password, _ := strings.Cut(rest, ":")
			if found && !strings.HasPrefix(user, "#") && strings.EqualFold(of, host) {
				s.user, s.password, s.login = user, password, path
			}
		}
	}
	if s.user != "" && s.tls == "opportunistic" {
		s.tls = "starttls"
		d.note("OPPORTUNISTIC_TLS: never credentials in plaintext, so TLS is demanded")
	}
	if s.tls == "starttls" || s.tls == "implicit" {
		d.note("dma verified no certificate, and postino does: for one that no authority signed, name its CA in ca_file or its key in tls_pin")
	}
	d.relay("relay", s)
	if cert := set["CERTFILE"]; cert != "" {
		d.set("relay", "cert_file", cert, "CERTFILE")
		d.set("relay", "key_file", cert, "CERTFILE")
	}
	return nil
}

// dmaMasquerade is "host", "user@" or "user@host" for every envelope.
func dmaMasquerade(d *draft, m string) {
	user, host, both := strings.Cut(m, "@")
	if !both {
		user, host = "", m
	}
	d.set("from", "envelope", "force", "MASQUERADE")
	d.set("from", "address", first(user, "{user}")+"@"+first(host, "{hostname}"), "MASQUERADE")
	d.note("MASQUERADE: dma replaced what -f said as well, and so does [from] envelope = \"force\"")
}
