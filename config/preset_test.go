package config

import (
	"fmt"
	"os"
	"slices"
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
		known := map[string]bool{"host_form": true, "host_like": true, "login": true, "spf": true, "oauth": true}
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

// What to click is told for each provider that can be chosen.
func TestEachProviderHasItsPlaceInTheManual(t *testing.T) {
	page, err := os.ReadFile("../man/postino-providers.7")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(page)) {
		if item, found := strings.CutPrefix(line, ".It "); found {
			names = append(names, strings.Fields(strings.ReplaceAll(item, ",", ""))...)
		}
	}
	for _, p := range Providers() {
		if !slices.Contains(names, p.Name) {
			t.Errorf("%s is not in postino-providers(7)", p.Name)
		}
		if p.Host == "" && p.HostForm == "" || p.Login == "" {
			t.Errorf("%+v: no host or no login", p)
		}
	}
}
