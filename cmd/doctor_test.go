package cmd_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"postino/delivery/dns/dnstest"
	"postino/delivery/relay/relaytest"
	"postino/delivery/relay/servertest"
	"postino/spool/standstill"
)

type finding struct{ Check, Status, Found, Remedy string }

// examine runs the doctor and returns what it found, by check.
func (b *box) examine(code int) map[string]finding {
	b.t.Helper()
	r := b.run(b.command("", program("postino"), "doctor", "--json"))
	if r.code != code {
		b.t.Errorf("doctor ended with %d, want %d\n%s%s", r.code, code, r.out, r.err)
	}
	found := map[string]finding{}
	for line := range strings.Lines(r.out) {
		var f finding
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			b.t.Fatalf("%v in %s", err, line)
		}
		if old := found[f.Check]; old.Status != "fail" { // of several the worst
			found[f.Check] = f
		}
	}
	return found
}

func (b *box) wantFound(got map[string]finding, check, status, text string) {
	b.t.Helper()
	f := got[check]
	if f.Status != status || !strings.Contains(f.Found+" -> "+f.Remedy, text) {
		b.t.Errorf("%s: got %+v, want %s with %q", check, f, status, text)
	}
}

func row(name, kind, value string) (string, []string) {
	if kind == "TXT" {
		value = fmt.Sprintf("%q", value)
	}
	return name + ". " + kind, []string{name + ". 60 " + kind + " " + value}
}

func zone(rows ...[3]string) dnstest.Zone {
	z := dnstest.Zone{}
	for _, r := range rows {
		k, v := row(r[0], r[1], r[2])
		z[k] = append(z[k], v...)
	}
	return z
}

var recordValue = regexp.MustCompile(`"value":"([^"]*)"`)

// With everything in order all is well, and no mail is sent to find that out; then one
// thing after the other breaks, and is told.
func TestDoctorFindsWhatIsWrongWithASmarthost(t *testing.T) {
	t.Parallel()
	standstill.Steady(t, doctorFindsWhatIsWrongWithASmarthost)
}

func doctorFindsWhatIsWrongWithASmarthost(t testing.TB) {
	s := relaytest.New(t, relaytest.Options{TLS: relaytest.StartTLS, Users: map[string]string{"u": "geheim"}})
	names := dnstest.Serve(t, nil)
	b := newBox(t, "")
	key := filepath.Join(b.dir, "s1.pem")
	record := recordValue.FindStringSubmatch(b.postino("dkim", "keygen", "--json", "--type", "ed25519", "web.test", "s1", key))[1]
	secret := filepath.Join(b.dir, "secret")
	write := func(password string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(secret, []byte(password+"\n"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(secret, mode); err != nil {
			t.Fatal(err)
		}
	}
	configure := func(port int) {
		b.configure(fmt.Sprintf("[relay]\npreset = \"sendgrid\"\nhost = \"127.0.0.1\"\nport = %d\ntls = \"starttls\"\nca_file = %q\nusername = \"u\"\npassword_file = %q\n"+
			"[mx]\nresolver = %q\n[[dkim]]\ndomain = \"web.test\"\nselector = \"s1\"\nkey_file = %q\n", port, s.CAFile(), secret, names.Addr, key))
	}
	good := func(change ...[3]string) dnstest.Zone {
		rows := [][3]string{
			{"web.test", "A", "192.0.2.1"}, {"web.test", "MX", "10 mx.web.test."}, {"mx.web.test", "A", "192.0.2.2"},
			{"sendgrid.net", "TXT", "v=spf1 ip4:192.0.2.0/24 ~all"}, {"_dmarc.web.test", "TXT", "v=DMARC1; p=reject"},
			{"s1._domainkey.web.test", "TXT", record}, {"web.test", "TXT", "v=spf1 include:sendgrid.net ~all"},
		}
		z := zone(rows...)
		for _, c := range change {
			k, v := row(c[0], c[1], c[2])
			z[k] = v
			if c[2] == "" {
				delete(z, k)
			}
		}
		return z
	}
	write("geheim", 0o600)
	configure(s.Port())
	names.Set(good())
	b.start()
	got := b.examine(0)
	for check, text := range map[string]string{
		"conf.file": b.config, "conf.secret": "there is a password", "spool.dir": b.spool, "runner": "pending", "spool.room": "free",
		"relay": "ready for mail after AUTH as u (TLS1.3 verified)", "dom.mx": "mx.web.test", "dom.spf": "includes sendgrid.net, 1 of 10",
		"dom.dkim": "is of the key that signs", "dom.dmarc": "our signature is aligned", "host.name": "192.0.2.1", "host.clock": time.Now().UTC().Format("2006-"),
	} {
		b.wantFound(got, check, "ok", text)
	}
	if len(s.Messages()) > 0 {
		t.Error("it sent mail")
	}

	names.Set(good([3]string{"web.test", "TXT", "v=spf1 mx -all"}, [3]string{"s1._domainkey.web.test", "TXT", "v=DKIM1; k=rsa; p=MIIBAAAA"}, [3]string{"web.test", "MX", "0 ."}, [3]string{"web.test", "A", ""}))
	got = b.examine(1)
	b.wantFound(got, "dom.spf", "warn", "add include:sendgrid.net")
	b.wantFound(got, "dom.dkim", "fail", "another key")
	b.wantFound(got, "dom.mx", "fail", "null MX")
	b.wantFound(got, "dom.dmarc", "warn", "neither SPF nor a signature")

	names.Set(good([3]string{"web.test", "TXT", "v=spf1 +all"}, [3]string{"s1._domainkey.web.test", "TXT", ""}, [3]string{"_dmarc.web.test", "TXT", ""}))
	got = b.examine(1)
	b.wantFound(got, "dom.spf", "fail", "everybody may send")
	b.wantFound(got, "dom.dkim", "fail", "publish TXT: "+record)
	b.wantFound(got, "dom.dmarc", "warn", "v=DMARC1; p=none")

	z := good()
	z["web.test. TXT"], z["web.test. MX"] = []string{"SERVFAIL"}, []string{"SERVFAIL"}
	names.Set(z)
	write("wrong", 0o644)
	got = b.examine(1)
	b.wantFound(got, "dom.spf", "skip", "resolver answers")
	b.wantFound(got, "dom.mx", "skip", "resolver answers")
	b.wantFound(got, "conf.secret", "fail", "everybody can read the password")
	b.wantFound(got, "relay", "fail", "535 ")

	closed := servertest.FreePort(t)
	configure(closed)
	b.wantFound(b.examine(1), "relay", "fail", "cannot connect")
	b.configure(fmt.Sprintf("[relay]\nhost = \"127.0.0.1\"\nport = %d\nca_file = %q\nusername = \"u\"\n[relay.oauth]\nprovider = \"google\"\nclient_id = \"x\"\n[mx]\nresolver = %q\n", s.Port(), s.CAFile(), names.Addr))
	got = b.examine(1)
	b.wantFound(got, "conf.secret", "fail", "postino auth login google --account u")
	b.wantFound(got, "relay", "fail", "")
	tomorrow := time.Now().Add(24 * time.Hour)
	if err := os.Chtimes(filepath.Join(b.spool, "spool.db"), tomorrow, tomorrow); err != nil {
		t.Fatal(err)
	}
	b.wantFound(b.examine(1), "host.clock", "fail", "spool.db was written at "+tomorrow.UTC().Format("2006-01-02T"))
	b.configure("mode = \"nonsense\"\n")
	b.wantFound(b.examine(1), "conf.file", "fail", "is not a mode")
}

// Without a smarthost the name and the address of the machine count as well.
func TestDoctorLooksAtDirectMail(t *testing.T) {
	t.Parallel()
	standstill.Steady(t, doctorLooksAtDirectMail)
}

func doctorLooksAtDirectMail(t testing.TB) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	names := dnstest.Serve(t, zone([3]string{"web.test", "A", "127.0.0.1"}, [3]string{"web.test", "TXT", "v=spf1 ip4:127.0.0.0/8 -all"},
		[3]string{"1.0.0.127.in-addr.arpa", "PTR", "web.test."}, [3]string{"_dmarc.web.test", "TXT", "v=DMARC1; p=reject"}))
	b := newBox(t, fmt.Sprintf("[mx]\nport = %d\nresolver = %q\n", port, names.Addr))
	got := b.examine(1)
	b.wantFound(got, "mx.port", "ok", "an exchanger of web.test answers")
	b.wantFound(got, "ip.ptr", "ok", "lead to web.test and back")
	b.wantFound(got, "dom.spf", "ok", "-all")
	b.wantFound(got, "dom.dmarc", "ok", "envelope sender is aligned")
	b.wantFound(got, "spool.dir", "fail", "start the runner once")

	l.Close()
	names.Set(zone([3]string{"web.test", "A", "127.0.0.1"}, [3]string{"web.test", "TXT", "v=spf1 ip4:192.0.2.0/24 -all"},
		[3]string{"1.0.0.127.in-addr.arpa", "PTR", "other.test."}, [3]string{"_dmarc.web.test", "TXT", "v=DMARC1; p=reject"}))
	b.start()
	got = b.examine(1)
	b.wantFound(got, "mx.port", "fail", "many networks close port 25")
	b.wantFound(got, "ip.ptr", "warn", "is called other.test, and we say web.test")
	b.wantFound(got, "dom.spf", "fail", "is not in it")
	b.wantFound(got, "dom.dmarc", "fail", "our mail is refused")
}
