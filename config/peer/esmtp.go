package peer

import (
	"regexp"
	"strings"
)

// readEsmtp reads esmtprc: keyword = value, in blocks that "identity" begins.
func readEsmtp(in *Import, d *draft, file string) error {
	path, text, err := in.first(usual(file, append(in.own(".esmtprc", ""), "/etc/esmtprc")...)...)
	if err != nil {
		return err
	}
	type identity struct {
		address string
		set     map[string]string
	}
	all := []identity{{set: map[string]string{}}}
	for line := range strings.SplitSeq(text, "\n") {
		key, value, found := esmtpLine(line)
		switch {
		case !found:
		case key == "identity":
			all = append(all, identity{strings.TrimSpace(strings.TrimSuffix(value, "[default]")), map[string]string{}})
		default:
			all[len(all)-1].set[key] = value
		}
	}
	main := all[0]
	if len(main.set) == 0 && len(all) > 1 {
		main = all[1]
	}
	esmtpRelay(d, "relay", main.set, "")
	d.set("", "domain", main.set["qualifydomain"], "qualifydomain")
	d.set("", "hostname", main.set["helo"], "helo")
	if from := main.set["force reverse_path"]; from != "" {
		d.set("from", "envelope", "force", "force reverse_path")
		d.set("from", "address", strings.NewReplacer("%u", "{user}", "%%", "%").Replace(from), "force reverse_path")
	}
	for _, other := range all[1:] {
		if other.address == "" {
			continue
		}
		name := d.route()
		d.set(name, "senders", []string{other.address}, "identity")
		esmtpRelay(d, name, other.set, "identity "+other.address+": ")
	}
	for _, key := range []string{"preconnect", "mda", "force_mda", "certificate_passphrase", "force sender", "message_id"} {
		if main.set[key] != "" {
			d.note("%s: %s", path, map[string]string{
				"preconnect":             "preconnect runs a program before each connection: make the tunnel a service",
				"mda":                    "mda delivers mail for this machine: see [local]",
				"force_mda":              "force_mda keeps all mail on this machine: a [[route]] with a transport does",
				"certificate_passphrase": "certificate_passphrase: the key file has to be one without",
				"force sender":           "force sender: see [from]",
				"message_id":             "message_id: postino completes a header that has none",
			}[key])
		}
	}
	return nil
}

// esmtpForm matches "key = value" and "key value"; a key may have two words.
var esmtpForm = regexp.MustCompile(`^\s*(force\s+sender|force\s+reverse_path|[a-z_]+)\s*(?:=|\s)\s*(.*?)\s*$`)

func esmtpLine(line string) (key, value string, found bool) {
	m := esmtpForm.FindStringSubmatch(line)
	if m == nil {
		return "", "", false
	}
	key, value = strings.Join(strings.Fields(m[1]), " "), m[2]
	if len(value) > 0 && (value[0] == '"' || value[0] == '\'') {
		rest := value[1:]
		var out strings.Builder
		for i := 0; i < len(rest) && rest[i] != value[0]; i++ {
			if rest[i] == '\\' && i+1 < len(rest) {
				i++
			}
			out.WriteByte(rest[i])
		}
		return key, out.String(), true
	}
	value, _, _ = strings.Cut(value, "#")
	return key, strings.TrimSpace(value), true
}

func esmtpRelay(d *draft, tableName string, set map[string]string, of string) {
	host, port, err := hostPort(first(set["hostname"], set["host"]))
	if err != nil {
		d.note("%shostname: %v", of, err)
	}
	if host == "" {
		d.note("%sno hostname: write the smarthost", of)
		return
	}
	if port == 0 {
		port = 587
	}
	s := smarthost{hosts: []string{host}, port: port, user: set["username"], password: set["password"], from: of + "hostname", login: of + "username", tls: "none"}
	switch set["starttls"] {
	case "required":
		s.tls = "starttls"
	case "enabled":
		s.tls = ""
		d.note("%sstarttls = enabled: with a password TLS is demanded, and its certificate verified", of)
	}
	d.relay(tableName, s)
}
