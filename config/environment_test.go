package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// environ is a configuration written as variables.
func environ(t *testing.T, c *Config) []string {
	t.Helper()
	var vars []string
	for _, s := range c.settings() {
		v := reflect.ValueOf(s.dst).Elem()
		if v.IsZero() {
			continue
		}
		text := fmt.Sprint(plain(v))
		switch value := plain(v).(type) {
		case []string:
			text = strings.Join(value, ", ")
			if strings.Contains(s.key, "command") { // an argument may have a comma in it
				line, err := toml.Marshal(map[string]any{"v": value})
				if err != nil {
					t.Fatal(err)
				}
				text = strings.TrimPrefix(strings.TrimSpace(string(line)), "v = ")
			}
		}
		switch plain(v).(type) {
		case map[string]string, map[string][]string:
			text = strings.TrimPrefix(Line("v", plain(v)), "v = ")
		}
		if secret, ok := s.dst.(*Secret); ok {
			text = secret.Reveal()
		}
		vars = append(vars, variablePrefix+strings.ToUpper(strings.ReplaceAll(s.key, ".", "_"))+"="+text)
	}
	return vars
}

// The law: whatever a file sets, variables set too, and by the same rules.
func TestVariablesSetWhatTheFileSets(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no good files: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want, err := Parse(file, data)
		if err != nil {
			t.Fatal(err)
		}
		r, err := parse("empty", nil, environ(t, want))
		if err != nil || !reflect.DeepEqual(r.config, want) {
			t.Errorf("%s as variables %q: got %v, %v", file, environ(t, want), r, err)
		}
	}
}

func TestNoTwoKeysHaveOneVariable(t *testing.T) {
	if vars := variables(); len(vars) != len(keyNames()) {
		t.Errorf("%d variables for %d keys", len(vars), len(keyNames()))
	}
	for word := range variables() {
		if name := variablePrefix + word; isOtherVariable(name) || isServiceLink(name, "587") {
			t.Errorf("%s sets nothing: it means something else", name)
		}
	}
}

const overridden = `mode = "hold"
relay = { host = "a.example", port = 26, username = "u", password = "geheim" }
[[route]]
recipients = ["@x.example"]
host = "b.example"
[[route]]
recipients = ["@y.example"]
transport = "mx"
`

func TestVariableHoldsBeforeTheFile(t *testing.T) {
	for _, tt := range []struct {
		environ []string
		want    string // lines of the listing, or the error
	}{
		{nil, "mode = \"hold\"|f.toml:1;host = [\"a.example\"]|f.toml:2;port = 26|f.toml:2;port = 587|default"},
		{[]string{"POSTINO_MODE=deliver"}, "mode = \"deliver\"|environment POSTINO_MODE"},
		{[]string{"POSTINO_MODE="}, "mode = \"hold\"|f.toml:1"},
		{[]string{"POSTINO_RELAY_HOST=c.example,, d.example ", "POSTINO_RELAY_PORT=27"},
			"host = [\"c.example\", \"d.example\"]|environment POSTINO_RELAY_HOST;port = 27|environment POSTINO_RELAY_PORT"},
		{[]string{"POSTINO_RELAY_PASSWORD_FILE=/p"}, "password_file = \"/p\"|environment POSTINO_RELAY_PASSWORD_FILE"},
		{[]string{"POSTINO_RELAY_PASSWORD=g2"}, "password = \"…\"|environment POSTINO_RELAY_PASSWORD"},
		{[]string{"POSTINO_RELAY_PASSWORD=g2", "POSTINO_RELAY_CREDENTIAL=c"},
			"POSTINO_RELAY_CREDENTIAL: relay.credential: a second password, besides relay.password: keep one of them"},
		{[]string{`POSTINO_RELAY_PASSWORD_COMMAND=["pass", "a,b"]`}, "password_command = [\"pass\", \"a,b\"]|environment POSTINO_RELAY_PASSWORD_COMMAND"},
		{[]string{"POSTINO_ROUTE_1_RECIPIENTS=@z.example"}, "recipients = [\"@z.example\"]|environment POSTINO_ROUTE_1_RECIPIENTS"},
		{[]string{"POSTINO_ROUTE_2_SENDERS=*", "POSTINO_ROUTE_2_HOST=e.example"}, "senders = [\"*\"]|environment POSTINO_ROUTE_2_SENDERS"},
		{[]string{"POSTINO_RELAY_PRESET=sendgrid", "POSTINO_RELAY_AUTH=plain"}, "tls = \"implicit\"|preset sendgrid"},
		{[]string{"POSTINO_MX_ALLOW_LOOPBACK=true"}, "allow_loopback = true|environment POSTINO_MX_ALLOW_LOOPBACK"},
		// What is said of services is no slip; nor what belongs to somebody else.
		{[]string{"POSTINO_SERVICE_HOST=10.0.0.1", "POSTINO_SERVICE_PORT_SMTP=25", "POSTINO_PORT=tcp://10.0.0.1:25",
			"POSTINO_PORT_25_TCP_ADDR=10.0.0.1", "POSTINO_RELAY_PORT=tcp://10.0.0.1:25", "POSTINO_SPOOL=/s", "POSTINO_TEST_X=1", "POSTIN=1"},
			"port = 26|f.toml:2"},

		{[]string{"POSTINO_RELAY_HSOT=geheim"}, "POSTINO_RELAY_HSOT: there is no key for it: did you mean POSTINO_RELAY_HOST?"},
		{[]string{"POSTINO_ROUTE_0_HOTS=x"}, "POSTINO_ROUTE_0_HOTS: there is no key for it: did you mean POSTINO_ROUTE_0_HOST?"},
		{[]string{"POSTINO_ROUTE_HOST=x"}, "POSTINO_ROUTE_HOST: there is no key for it: did you mean POSTINO_ROUTE_0_HOST?"},
		{[]string{"POSTINO_ROUTE_01_HOST=x"}, "POSTINO_ROUTE_01_HOST: there is no key for it: did you mean POSTINO_ROUTE_0_HOST?"},
		{[]string{"POSTINO_relay_host=x"}, "POSTINO_relay_host: there is no key for it: remove it"},
		{[]string{"POSTINO_WHATEVER=geheim"}, "POSTINO_WHATEVER: there is no key for it: remove it"},
		{[]string{"POSTINO_ROUTE_3_HOST=x"}, "POSTINO_ROUTE_3_HOST: there is no route number 2 before it: they count from 0 without a gap"},
		{[]string{"POSTINO_RELAY_PORT=smtp"}, "POSTINO_RELAY_PORT: relay.port: want a whole number from 0 to 65535"},
		{[]string{"POSTINO_RELAY_TLS=yes"}, `POSTINO_RELAY_TLS: relay.tls: "yes" is not a TLS policy: write "starttls", "implicit", "opportunistic" or "none"`},
		{[]string{"POSTINO_RELAY_TLS=none"}, `POSTINO_RELAY_TLS: relay.tls: "none" with credentials: never credentials in plaintext: write "starttls" or "implicit"`},
		{[]string{"POSTINO_RELAY_HOST=[geheim"}, "POSTINO_RELAY_HOST: relay.host: not a value as in TOML: write it as behind the = of the file"},
		{[]string{"POSTINO_RELAY_PASSWORD=ge\nheim"}, "POSTINO_RELAY_PASSWORD: relay.password: a control character in it: remove it"},
		{[]string{"POSTINO_RELAY_PASSWORD=\xff"}, "POSTINO_RELAY_PASSWORD: not UTF-8"},
	} {
		r, err := parse("f.toml", []byte(overridden), tt.environ)
		if err != nil {
			if err.Error() != tt.want {
				t.Errorf("%q: got error\n%v\nwant\n%s", tt.environ, err, tt.want)
			}
			continue
		}
		text := list(r.config.settings(), r.origin).text()
		for line := range strings.SplitSeq(tt.want, ";") {
			value, origin, found := strings.Cut(line, "|")
			if !found || !strings.Contains(text, fmt.Sprintf("%-*s # %s\n", originColumn, value, origin)) {
				t.Errorf("%q: want %q in\n%s", tt.environ, line, text)
			}
		}
		if strings.Contains(text, "geheim") || strings.Contains(text, "g2") {
			t.Errorf("%q: a password in\n%s", tt.environ, text)
		}
	}
}

func TestListingSaysWhatTheSystemNamed(t *testing.T) {
	l, err := List(filepath.Join(t.TempDir(), "none"))
	if err != nil || l[0].Key != "hostname" || l[0].Origin != FromSystem || l[0].Where != "the kernel" && l[0].Where != hostsFile || l[1].Origin != FromSystem {
		t.Errorf("got %v, %v", l, err)
	}
}
