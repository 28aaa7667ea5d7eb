package config

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// A preset and what its hints ask for make a whole relay, under verified TLS.
func TestEveryPresetMakesARelay(t *testing.T) {
	manual, err := os.ReadFile("../man/postino.toml.5")
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range presets() {
		src := fmt.Sprintf("[relay]\npreset = %q\n", name)
		switch _, hasHost := values["host"]; {
		case hasHost == (values["host_form"] != nil):
			t.Errorf("%s: want host or host_form", name)
		case !hasHost:
			if _, err := Parse("", []byte(src)); err == nil || !strings.Contains(err.Error(), values["host_form"].(string)) {
				t.Errorf("%s without a host: %v", name, err)
			}
			src += "host = \"smtp.example.net\"\n"
		}
		if values["username"] == nil && values["auth"] != "none" {
			src += "username = \"u\"\n"
		}
		if values["auth"] != "none" {
			src += "password = \"p\"\n"
		}
		c, err := Parse("", []byte(src))
		if err != nil || c.Relay.TLS != StartTLS && c.Relay.TLS != Implicit || c.Relay.Preset != Preset(name) {
			t.Errorf("%s: %v, %v", name, c, err)
		}
		if values["login"] == nil || !strings.Contains(string(manual), ".It "+name+"\n") {
			t.Errorf("%s: no login, or not in postino.toml(5)", name)
		}
		known := map[string]bool{"host_form": true, "host_like": true, "login": true, "spf": true}
		for _, s := range defaultRelay().settings("") {
			known[s.key] = true
		}
		for key := range values {
			if !known[key] {
				t.Errorf("%s: unknown key %s", name, key)
			}
		}
	}
}

// What is written wins over the preset, wherever it stands, in a route too.
func TestWhatIsWrittenWinsOverThePreset(t *testing.T) {
	c, err := Parse("", []byte(`
[relay]
tls = "starttls"
preset = "sendgrid"
password = "p"
[[route]]
recipients = ["*"]
preset = "m365-direct"
host = "x.mail.protection.outlook.com"
`))
	if err != nil {
		t.Fatal(err)
	}
	if r := c.Relay; r.Host[0] != "smtp.sendgrid.net" || r.Port != 587 || r.Username != "apikey" || r.MessagesPerConnection != 5000 {
		t.Errorf("relay: %v", r)
	}
	if r := c.Routes[0].Relay; r.Port != 25 || r.Host[0] != "x.mail.protection.outlook.com" || r.Auth != AuthNone {
		t.Errorf("route: %v", r)
	}
}
