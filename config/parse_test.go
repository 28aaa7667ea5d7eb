package config

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Each bad file begins with the lines of its error, after "# want: ".
func TestBadFileGivesItsError(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no bad files: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for line := range strings.Lines(string(data)) {
			if line, found := strings.CutPrefix(line, "# want: "); found {
				want = append(want, strings.TrimSpace(line))
			}
		}
		c, err := Parse("postino.toml", data)
		if err == nil {
			t.Errorf("%s: accepted", file)
		} else if got := err.Error(); got != strings.Join(want, "\n") || c != nil {
			t.Errorf("%s: got config %v and error\n%s\nwant\n%s", file, c, got, strings.Join(want, "\n"))
		}
	}
}

func TestGoodFileComesBackFromWhatIsWritten(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no good files: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c, err := Parse(file, data)
		if err != nil {
			t.Error(err)
			continue
		}
		again, err := Parse(file, []byte(c.String()))
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%s: written as\n%s\nwhich gives %v, %v", file, c, again, err)
		}
	}
}

func TestFullFileSetsEveryKey(t *testing.T) {
	data, err := os.ReadFile("testdata/good/full.toml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse("full.toml", data)
	if err != nil {
		t.Fatal(err)
	}
	const m = Duration(time.Minute)
	want := &Config{
		Hostname:       "web1.example.com",
		Domain:         "example.com",
		LocalDomains:   []string{"web1.example.com", "web2.example.com"},
		MaxMessageSize: 25 << 20,
		Mode:           Hold,
		RedirectTo:     "dev@example.com",
		BounceTo:       "ops@example.com",
		Relay: &Relay{
			Preset: "sendgrid",
			Host:   Hosts{"smtp.example.net", "192.0.2.25"}, Port: 2465, TLS: Implicit,
			CAFile: "/etc/postino/ca.pem", TLSMin: tls.VersionTLS13,
			TLSPin:   Pin(strings.Repeat("deadbeef", 8)),
			CertFile: "/etc/postino/client.pem", KeyFile: "/etc/postino/client.key",
			Auth: AuthPlain, Username: "web1", PasswordFile: "/etc/postino/password",
			MaxConnections: 2, MessagesPerConnection: 50, Rate: Rate{14, time.Second}, SourceAddress: "192.0.2.7",
		},
		Routes: []Route{
			{Recipients: []string{"@partner.example", "bob@x.example"}, Senders: []string{"*"}, Relay: &Relay{
				Host: Hosts{"smtp.partner.example"}, Port: 587, TLS: StartTLS, TLSMin: tls.VersionTLS12, Auth: AuthOAuthBearer,
				MaxConnections: 4, MessagesPerConnection: 100, Username: "web1@partner.example", Proxy: Proxy{Address: "proxy.example.com:1080"},
				OAuth: OAuth{Microsoft, "https://login.partner.example/token", "https://login.partner.example/device", "https://login.partner.example/auth",
					"partner.example", "postino", "/etc/postino/client_secret", FlowClient, "mail send"},
			}},
			{Senders: []string{"@shop.example"}, From: "{user}@example.com", Transport: Transport{Kind: ViaLMTP, Path: "/run/lmtp"}},
		},
		MX:       MX{Port: 2525, TLS: MXVerify, Resolver: "127.0.0.1:5353", IP: OnlyV4, AllowLoopback: true},
		From:     From{Force, Force, "{user}@example.com", "{name} ({hostname})", map[string]string{"root": "ops@example.com", "@web1.example.com": "@example.com"}, KeepAsReplyTo},
		Aliases:  Aliases{"/etc/postino/aliases", true, "mailprog", "/run/postino/program.sock", "/home/{user}/.forward"},
		Local:    Local{LocalDelivery{Transport: Transport{Kind: ViaMaildir, Path: "/home/{user}/Maildir"}}, "/run/postino/mailbox.sock"},
		Retry:    Retry{10 * m, 24 * 60 * m, 7 * 24 * 60 * m, 6 * 60 * m},
		Timeouts: Timeouts{m / 6, m * 3 / 2, 2 * m, m, 5 * m},
		Limits:   Limits{Rate{200, time.Hour}, Rate{1000, time.Hour}, 50, map[string][]string{"33": {"@shop.example", "www-data"}, "*": {"*"}}, MailqAll},
		SMTP:     SMTP{Listen: []string{"127.0.0.1:25", "[::1]:25"}},
		DKIM:     []DKIM{{"example.com", "s1", "/etc/postino/dkim/s1.pem"}},
		Metrics:  Metrics{"127.0.0.1:9154", []string{"mail.metrics.example"}},
		History:  History{14 * 24 * 60 * m, 1 << 30, 2 * 24 * 60 * m, 64 << 20},
		Log:      Log{LogJSON, LogStderr},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// A key added later must be added to full.toml too.
	for _, key := range keyNames() {
		_, name := split(key)
		alternative := strings.HasPrefix(key, "route.") || key == "relay.password" || key == "relay.password_command" || key == "relay.credential"
		if !alternative && !strings.Contains("\n"+string(data), "\n"+name+" = ") {
			t.Errorf("full.toml does not set %s", key)
		}
	}
}

func TestEmptyFileIsTheDefaults(t *testing.T) {
	got, err := Parse("postino.toml", nil)
	if err != nil || !reflect.DeepEqual(got, Default()) {
		t.Errorf("got %v, %v; want %v", got, err, Default())
	}
	if got.Relay != nil {
		t.Errorf("a relay without a [relay] table: %+v", got.Relay)
	}
}

func TestRelayPortFollowsTLS(t *testing.T) {
	for _, tt := range []struct {
		keys string
		want int
	}{
		{``, 587},
		{`tls = "starttls"`, 587},
		{`tls = "implicit"`, 465},
		{`tls = "opportunistic"`, 587},
		{`tls = "none"`, 587},
		{"tls = \"implicit\"\nport = 0", 465},
		{"tls = \"implicit\"\nport = 25", 25},
	} {
		c, err := Parse("postino.toml", []byte("[relay]\nhost = \"mail.example.com\"\n"+tt.keys))
		if err != nil || c.Relay.Port != tt.want {
			t.Errorf("%q: got %v, %v; want port %d", tt.keys, c, err, tt.want)
		}
	}
}

func TestPlaintextCredentialsStayOnTheMachine(t *testing.T) {
	for _, tt := range []struct {
		host string
		ok   bool
	}{
		{"127.0.0.1", true},
		{"127.9.9.9", true},
		{"::1", true},
		{"localhost", true},
		{"LocalHost", true},
		{"localhost.example.com", false},
		{"128.0.0.1", false},
		{"::2", false},
		{"0.0.0.0", false},
		{"mail", false},
	} {
		for _, policy := range []TLSPolicy{NoTLS, Opportunistic} {
			src := "[relay]\nusername = \"u\"\npassword = \"p\"\nhost = \"" + tt.host + "\"\ntls = \"" + string(policy) + "\"\n"
			_, err := Parse("postino.toml", []byte(src))
			refused := err != nil && strings.Contains(err.Error(), "never credentials in plaintext")
			if refused == tt.ok || tt.ok && err != nil {
				t.Errorf("%s with tls %s: got %v; want accepted %v", tt.host, policy, err, tt.ok)
			}
		}
	}
}

func TestDomainNames(t *testing.T) {
	label := strings.Repeat("a", 63)
	long := strings.Join([]string{label, label, label, label[:61]}, ".")
	for _, tt := range []struct {
		in   string
		want bool
	}{
		{"example.com", true},
		{"mailhub", true},
		{"xn--bcher-kva.example", true},
		{"1.example", true},
		{long, true},
		{long + "a", false},
		{label + "a.example", false},
		{"", false},
		{".", false},
		{"example.com.", false},
		{"a..b", false},
		{"-a.example", false},
		{"a-.example", false},
		{"a_b.example", false},
		{"bücher.example", false},
		{"192.0.2.1", false},
		{"[192.0.2.1]", false},
		{"a b", false},
		{"a@b", false},
	} {
		if got := isDomain(tt.in); got != tt.want {
			t.Errorf("isDomain(%q) = %v; want %v", tt.in, got, tt.want)
		}
	}
}

func TestAtMostFiveProblemsInTheOrderOfTheFile(t *testing.T) {
	src := "a = 1\nb = 1\nmode = 3\nc = 1\nd = 1\ne = 1\nf = 1\n"
	for range 20 { // maps are walked in another order each time
		_, err := Parse("f", []byte(src))
		want := `f:1:1: unknown key "a"
f:2:1: unknown key "b"
f:3:8: mode: "3" is not a mode: write "deliver", "hold", "capture" or "redirect"
f:4:1: unknown key "c"
f:5:1: unknown key "d"`
		if err == nil || err.Error() != want {
			t.Fatalf("got\n%v\nwant\n%s", err, want)
		}
	}
}

func TestByteOrderMark(t *testing.T) {
	if c, err := Parse("f", []byte("\xef\xbb\xbfmode = \"hold\"")); err != nil || c.Mode != Hold {
		t.Errorf("UTF-8: got %v, %v", c, err)
	}
	for _, src := range []string{"\xff\xfem\x00o\x00", "\xfe\xff\x00m\x00o", "\xff\xfemode = \"hold\""} {
		if _, err := Parse("f", []byte(src)); err == nil {
			t.Errorf("%q: accepted", src)
		}
	}
}

func TestSuggestion(t *testing.T) {
	for _, tt := range []struct{ key, want string }{
		{"relya", "relay"},
		{"relay.hots", "relay.host"},
		{"relay.passwd_file", "relay.password_file"},
		{"relay.tls_mni", "relay.tls_min"},
		{"RELAY", "relay"},
		{"timeout", "timeouts"},
		{"host", "relay.host"},
		{"retry.keep", "history.keep"},
		{"log.x", ""},
		{"x", ""},
		{"", ""},
		{"xyz", ""},
	} {
		if got := suggest(tt.key); got != tt.want {
			t.Errorf("suggest(%q) = %q; want %q", tt.key, got, tt.want)
		}
	}
}

// The whole file by default: what is written must be what was read.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.toml", "testdata/bad/*.toml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if err != nil {
			if c != nil || strings.ContainsAny(strings.ReplaceAll(err.Error(), "\n", ""), "\x00\x1b\r") {
				t.Fatalf("Parse(%q) = %v, %q; want no config and an error fit to print", data, c, err)
			}
			return
		}
		for _, r := range c.relays() {
			if r.Port < 1 || r.Port > 65535 || len(r.Host) == 0 {
				t.Fatalf("Parse(%q): relay %+v", data, r)
			}
			if r.Password != "" {
				return // never written
			}
		}
		again, err := Parse("f", []byte(c.String()))
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Fatalf("Parse(%q) is written as\n%s\nwhich gives %v, %v", data, c, again, err)
		}
	})
}
