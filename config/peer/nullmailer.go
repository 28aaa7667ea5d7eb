package peer

import (
	"slices"
	"strconv"
	"strings"
)

// readNullmailer reads the files of /etc/nullmailer, one value each, and remotes. A
// file that is given is its remotes.
func readNullmailer(in *Import, d *draft, file string) error {
	path, text, err := in.first(usual(file, "/etc/nullmailer/remotes")...)
	if err != nil {
		return err
	}
	dir := path[:max(strings.LastIndexByte(path, '/'), 0)]
	control := func(name string) string { return in.word(dir + "/" + name) }
	var remotes []nullmailerRemote
	for line := range strings.SplitSeq(text, "\n") {
		words := shellWords(line)
		if len(words) > 0 && !strings.HasPrefix(words[0], "#") {
			remotes = append(remotes, newRemote(d, words))
		}
	}
	writeRemotes(d, remotes)

	me := first(control("me"), in.word("/etc/mailname"))
	d.set("", "hostname", first(control("helohost"), me), "helohost, me")
	domain := control("defaulthost")
	if suffix := control("defaultdomain"); suffix != "" {
		if domain == "" {
			domain = me
		}
		if domain != "" && !strings.Contains(domain, ".") {
			domain += "." + suffix
		}
	}
	d.set("", "domain", domain, "defaulthost")
	if to := control("adminaddr"); to != "" {
		if me != "" {
			d.set("", "local_domains", []string{me}, "me")
		}
		to, _, more := strings.Cut(to, ",")
		d.set("local", "deliver", "forward:"+strings.TrimSpace(to), "adminaddr")
		d.note("adminaddr: nullmailer had no aliases, and postino looks into /etc/aliases first")
		if more {
			d.note("adminaddr: of several addresses the first: make an alias of the others")
		}
	}
	if from := control("allmailfrom"); from != "" {
		d.set("from", "envelope", "force", "allmailfrom")
		d.set("from", "address", from, "allmailfrom")
	}
	d.set("", "bounce_to", control("doublebounceto"), "doublebounceto")
	for _, t := range []struct{ file, key string }{{"pausetime", "first"}, {"maxpause", "max"}, {"queuelifetime", "lifetime"}} {
		if n, err := strconv.ParseUint(control(t.file), 10, 31); err == nil && n > 0 {
			d.set("retry", t.key, strconv.FormatUint(n, 10)+"s", t.file)
		}
	}
	for _, name := range []string{"sendtimeout", "idhost"} {
		if v := control(name); v != "" {
			d.note("%s %s", name, v)
		}
	}
	return nil
}

// nullmailerRemote is a line of remotes: a host, and settings by which it may share a
// table with others.
type nullmailerRemote struct {
	smarthost
	auth, ca, cert, key, source string
}

func newRemote(d *draft, words []string) nullmailerRemote {
	r := nullmailerRemote{smarthost: smarthost{port: 25, tls: "none", from: "remotes", login: "remotes"}}
	host, port, err := hostPort(words[0])
	if err != nil {
		d.note("remotes: %v", err)
	}
	r.hosts = []string{host}
	port0 := port
	words = words[1:]
	if len(words) > 0 && !strings.ContainsAny(words[0], "=-") && words[0] != "tls" && words[0] != "ssl" && words[0] != "starttls" && words[0] != "insecure" {
		if words[0] != "smtp" {
			d.note("remotes: %s is reached by %s, which there is not", host, words[0])
			r.hosts = nil
		}
		words = words[1:]
	}
	for _, word := range words {
		name, value, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
		switch name {
		case "port":
			if port0, err = servicePort(value); err != nil {
				d.note("remotes: port %q: %v", value, err)
			}
		case "user":
			r.user = value
		case "pass":
			r.password = value
		case "source":
			r.source = value
		case "auth-login":
			r.auth = "login"
		case "tls", "ssl":
			if r.tls != "starttls" {
				r.tls, r.port = "implicit", 465
			}
		case "starttls":
			if r.tls == "implicit" {
				r.port = 25
			}
			r.tls = "starttls"
		case "x509certfile":
			r.cert = value
		case "x509keyfile":
			r.key = value
		case "x509cafile":
			if !strings.HasSuffix(value, "/ca-certificates.crt") {
				r.ca = value
			}
		case "insecure":
			d.note("remotes: insecure: postino verifies certificates wherever it demands TLS; for one that cannot be, name its CA in ca_file or its key in tls_pin")
		default:
			d.note("remotes: the option %s of %s", name, host)
		}
	}
	if port0 != 0 {
		r.port = port0
	}
	return r
}

// writeRemotes makes the first remote the smarthost, and those like it its substitutes.
func writeRemotes(d *draft, remotes []nullmailerRemote) {
	remotes = slices.DeleteFunc(remotes, func(r nullmailerRemote) bool { return len(r.hosts) == 0 })
	if len(remotes) == 0 {
		d.note("remotes names no host: write [relay], or mail goes directly to the exchangers of its recipients")
		return
	}
	main := remotes[0]
	for _, r := range remotes[1:] {
		like := r
		like.hosts = main.hosts
		if like.user == main.user && like.password == main.password && like.port == main.port && like.tls == main.tls {
			main.hosts = append(main.hosts, r.hosts...)
		} else {
			d.note("remotes: %s has settings of its own, and those that stand in for a smarthost share its settings", r.hosts[0])
		}
	}
	if main.user != "" && main.tls == "none" {
		d.note("remotes: nullmailer sent the password in plaintext")
	}
	d.relay("relay", main.smarthost)
	d.set("relay", "auth", main.auth, "remotes")
	d.set("relay", "ca_file", main.ca, "remotes")
	d.set("relay", "cert_file", main.cert, "remotes")
	if main.cert != "" {
		d.set("relay", "key_file", first(main.key, main.cert), "remotes")
	}
	d.set("relay", "source_address", main.source, "remotes")
}

// shellWords divides a line as a shell does: by blanks, with quotes and backslashes.
func shellWords(line string) []string {
	var words []string
	var word strings.Builder
	var quote byte
	in := false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == '\'':
			word.WriteByte(c)
		case c == '\\' && i+1 < len(line):
			i++
			word.WriteByte(line[i])
			in = true
		case quote != 0:
			word.WriteByte(c)
		case c == '\'' || c == '"':
			quote, in = c, true
		case c == ' ' || c == '\t' || c == '\r':
			if in {
				words = append(words, word.String())
				word.Reset()
			}
			in = false
		default:
			word.WriteByte(c)
			in = true
		}
	}
	if in {
		words = append(words, word.String())
	}
	return words
}
