package peer

import (
	"errors"
	"path"
	"strings"
)

// readExim reads what Debian's packages ask for: update-exim4.conf.conf, lines
// name='value'. Exim's own language has no end of what may be said in it, and is not
// read.
func readExim(in *Import, d *draft, file string) error {
	name, text, err := in.first(usual(file, "/etc/exim4/update-exim4.conf.conf")...)
	if err != nil {
		return err
	}
	set := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		key, value, found := strings.Cut(line, "=")
		if found && !strings.HasPrefix(line, "#") {
			set[strings.TrimSpace(key)] = strings.Trim(strings.TrimSpace(value), `'"`)
		}
	}
	if _, debian := set["dc_eximconfig_configtype"]; !debian {
		return errors.New(name + " is not Debian's update-exim4.conf.conf: a configuration in exim's own language has to be written anew")
	}
	if in.exists("/etc/exim4/exim4.conf") {
		d.note("/etc/exim4/exim4.conf is there, which exim reads instead of %s", name)
	}
	d.set("", "domain", in.word("/etc/mailname"), "/etc/mailname")
	var local []string
	for _, domain := range eximList(set["dc_other_hostnames"]) {
		if !strings.ContainsAny(domain, "*!@/") {
			local = append(local, domain)
		} else {
			d.note("dc_other_hostnames: %s: write each domain into local_domains", domain)
		}
	}
	d.set("", "local_domains", local, "dc_other_hostnames")
	if err := eximKind(in, d, set); err != nil {
		return err
	}
	eximListen(d, set)
	for key, about := range map[string]string{
		"dc_relay_domains": "postino takes mail of this machine alone",
		"dc_relay_nets":    "postino takes mail of this machine alone",
	} {
		if set[key] != "" {
			d.note("%s = %q: %s", key, set[key], about)
		}
	}
	if set["dc_use_split_config"] == "true" {
		d.note("dc_use_split_config: what was changed below /etc/exim4/conf.d")
	}
	return eximAddresses(in, d)
}

// eximKind writes where mail goes.
func eximKind(in *Import, d *draft, set map[string]string) error {
	deliver := map[string]string{"": "mbox:/var/mail/{user}", "mail_spool": "mbox:/var/mail/{user}", "maildir_home": "maildir:/home/{user}/Maildir"}[set["dc_localdelivery"]]
	if deliver == "" {
		d.note("dc_localdelivery = %q: see [local]", set["dc_localdelivery"])
	}
	switch kind := set["dc_eximconfig_configtype"]; kind {
	case "internet":
		d.set("local", "deliver", deliver, "dc_localdelivery")
	case "local":
		name := d.route()
		d.set(name, "recipients", []string{"*"}, "dc_eximconfig_configtype = local")
		d.set(name, "transport", "error:550 5.7.1 mail to other machines is not sent from here", "dc_eximconfig_configtype = local")
		d.set("local", "deliver", deliver, "dc_localdelivery")
	case "smarthost":
		d.set("local", "deliver", deliver, "dc_localdelivery")
		if set["dc_hide_mailname"] == "true" && set["dc_readhost"] != "" {
			d.set("", "domain", set["dc_readhost"], "dc_readhost")
		}
		return eximRelay(in, d, set)
	case "satellite":
		// Mail of local users goes to them at the readhost.
		d.set("", "domain", set["dc_readhost"], "dc_readhost")
		return eximRelay(in, d, set)
	default:
		return errors.New("dc_eximconfig_configtype is " + kind + ": exim is not configured")
	}
	return nil
}

// eximList divides a list: by semicolons, of old by colons.
func eximList(s string) []string {
	s, semicolons := strings.CutPrefix(s, "<;")
	separator := ":"
	if semicolons || strings.Contains(s, ";") {
		separator = ";"
	}
	var list []string
	for item := range strings.SplitSeq(s, separator) {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}

// eximRelay reads dc_smarthost, a list of host::port, and the password of its hosts.
func eximRelay(in *Import, d *draft, set map[string]string) error {
	s := smarthost{from: "dc_smarthost", login: "/etc/exim4/passwd.client"}
	text := set["dc_smarthost"]
	separator := ";"
	if !strings.Contains(text, ";") && !strings.Contains(text, "::") {
		separator = ":" // the old form
	}
	for item := range strings.SplitSeq(strings.TrimPrefix(text, "<;"), separator) {
		host, service, _ := strings.Cut(strings.TrimSpace(item), "::")
		if host == "" {
			continue
		}
		port, err := servicePort(service)
		if err != nil {
			d.note("dc_smarthost: port %q: %v", service, err)
		}
		if len(s.hosts) > 0 && port != s.port {
			d.note("dc_smarthost: %s has another port than %s, and those that stand in for a smarthost share it", host, s.hosts[0])
			continue
		}
		s.hosts, s.port = append(s.hosts, strings.Trim(host, "[]")), port
	}
	if len(s.hosts) == 0 {
		d.note("dc_smarthost names no host: write [relay], or mail goes directly to the exchangers of its recipients")
		return nil
	}
	if s.port == 465 {
		s.tls = "implicit"
	}
	if s.port == 0 {
		s.port = 25
	}
	if in.exists(s.login) {
		text, err := in.read(s.login)
		if err != nil {
			return err
		}
		s.user, s.password = eximPassword(text, s.hosts[0])
	}
	d.relay("relay", s)
	if s.user != "" {
		d.note("passwd.client is looked up by the name that the address of %s has in the DNS, and by none here", s.hosts[0])
	}
	return nil
}

// eximPassword finds the first line host:user:password whose host, which may be a
// pattern, is that one.
func eximPassword(text, host string) (user, password string) {
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) < 3 {
			continue
		}
		if ok, err := path.Match(strings.ToLower(parts[0]), strings.ToLower(host)); ok && err == nil {
			// A colon is written twice, and a caret too (exim4_passwd_client(5)).
			return parts[1], strings.NewReplacer("::", ":", "^^", "^").Replace(parts[2])
		}
	}
	return "", ""
}

// eximListen says where mail was taken by SMTP.
func eximListen(d *draft, set map[string]string) {
	for _, addr := range eximList(set["dc_local_interfaces"]) {
		if addr == "127.0.0.1" || addr == "::1" {
			d.portOf("dc_local_interfaces")
		} else {
			d.note("dc_local_interfaces: %s: postino takes mail of this machine alone", addr)
		}
	}
}

// eximAddresses reads /etc/email-addresses: lines "user: address".
func eximAddresses(in *Import, d *draft) error {
	const name = "/etc/email-addresses"
	if !in.exists(name) {
		return nil
	}
	text, err := in.read(name)
	if err != nil {
		return err
	}
	generic := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		user, address, found := strings.Cut(line, ":")
		if user = strings.TrimSpace(user); found && user != "" && !strings.HasPrefix(user, "#") {
			generic[user] = strings.TrimSpace(address)
		}
	}
	if len(generic) > 0 {
		d.set("from", "generic", generic, name)
	}
	return nil
}
