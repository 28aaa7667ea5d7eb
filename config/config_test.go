package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMissingFileIsTheDefaults(t *testing.T) {
	c, err := Load(filepath.Join(t.TempDir(), "postino.toml"))
	if err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if full := fullName(hostsFile, host); full != "" {
		host = full
	}
	if c.Hostname != host || c.Domain == "" || c.Relay != nil || c.Mode != Deliver {
		t.Errorf("got\n%s\nwant the defaults, hostname %q and a domain", c, host)
	}
}

func TestLoadKeepsTheNamesThatAreWritten(t *testing.T) {
	c, err := Load("testdata/good/full.toml")
	if err != nil || c.Hostname != "web1.example.com" || c.Domain != "example.com" {
		t.Errorf("got %v, %v", c, err)
	}
}

func TestLoadNamesTheFileAsGiven(t *testing.T) {
	_, err := Load("testdata/bad/unknown_table.toml")
	if !errContains(err, "testdata/bad/unknown_table.toml:3:1: unknown key") {
		t.Errorf("got %v", err)
	}
}

func TestUnreadableFileIsNotTheDefaults(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big.toml")
	for _, tt := range []struct {
		path, content, err string
	}{
		{dir, "", "is a directory"},
		{filepath.Join(big, "postino.toml"), "", "not a directory"},
		{big, strings.Repeat("#", maxFile+1), "is larger than 1MiB"},
		{big, strings.Repeat("#", maxFile), ""},
	} {
		if err := os.WriteFile(big, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(tt.path); !errContains(err, tt.err) {
			t.Errorf("%s: got %v; want error containing %q", tt.path, err, tt.err)
		}
	}
}

// A name without a dot is made full as hosts(5) has it, and by nothing else there.
func TestFullNameStandsOnTheLineOfTheName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	if got := fullName(path, "web1"); got != "" {
		t.Errorf("no file: got %q", got)
	}
	for _, tt := range []struct{ content, name, want string }{
		{"127.0.0.1 localhost\n127.0.1.1\tweb1.example.com web1\n", "web1", "web1.example.com"},
		{"192.0.2.1 web1 web1.example.com", "web1", "web1.example.com"},
		{"127.0.0.1 localhost.localdomain localhost web1\n192.0.2.1 web1.example.com web1 # ours\n", "web1", "web1.example.com"},
		{"192.0.2.1 web2.example.com web2\n", "web1", ""},
		{"192.0.2.1 web1\n# 192.0.2.1 web1.example.com web1\n", "web1", ""},
		{"192.0.2.1 not_a.domain web1\n", "web1", ""},
		{"192.0.2.1 other.example.com web1.example.net\n", "web1.example.net", ""},
		{strings.Repeat("#\n", maxHosts/2) + "192.0.2.1 web1.example.com web1\n", "web1", ""},
	} {
		if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := fullName(path, tt.name); got != tt.want {
			t.Errorf("%.60q: got %q; want %q", tt.content, got, tt.want)
		}
	}
}

func TestMailnameIsAFirstWordThatIsADomain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mailname")
	if got := mailname(path); got != "" {
		t.Errorf("no file: got %q", got)
	}
	for _, tt := range []struct{ content, want string }{
		{"example.com\n", "example.com"},
		{"\n  example.com other\n", "example.com"},
		{"", ""},
		{"# example.com\n", ""},
		{"not_a_domain\n", ""},
		{strings.Repeat(" ", maxMailname) + "example.com", ""},
	} {
		if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := mailname(path); got != tt.want {
			t.Errorf("%.30q: got %q; want %q", tt.content, got, tt.want)
		}
	}
}
