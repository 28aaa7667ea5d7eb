package peer

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postino/config"
)

// rewrite is for a person who has read what changes.
var rewrite = flag.Bool("rewrite", false, "write testdata/*/want.toml anew")

// Below testdata is a file system for each case, named PEER-CASE, and want.toml with
// what it has to become, the passwords below it.
func TestConfigurationsBecomeOurs(t *testing.T) {
	cases, err := filepath.Glob("testdata/*-*")
	if err != nil || len(cases) < len(Names()) {
		t.Fatalf("%q, %v", cases, err)
	}
	for _, dir := range cases {
		name, _, _ := strings.Cut(filepath.Base(dir), "-")
		in := Import{Root: dir, Secrets: "/etc/postino/secrets", Hostname: "kernel.example"}
		found, err := in.From(name, "")
		if err != nil {
			t.Errorf("%s: %v", dir, err)
			continue
		}
		if _, err := config.Parse("import", []byte(found.Text)); err != nil {
			t.Errorf("%s: %v in\n%s", dir, err, found.Text)
		}
		got := found.Text + "\n# Passwords:\n"
		for _, p := range found.Passwords {
			got += fmt.Sprintf("# %s %q\n", p.Path, p.Text)
			if strings.Contains(found.Text, p.Text) {
				t.Errorf("%s: %q stands in the text", dir, p.Text)
			}
		}
		file := filepath.Join(dir, "want.toml")
		if *rewrite {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil || string(want) != got {
			t.Errorf("%s: %v, got\n%s\nwant\n%s", dir, err, got, want)
		}
	}
}

// What is no configuration is refused, or what it has of one is taken over; either
// way in bounded time and memory.
func TestStrangeFilesDoNoHarm(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	bomb := "a0 = xxxxxxxxxxxxxxxx\n"
	for i := range 30 {
		bomb += fmt.Sprintf("a%d = $a%d$a%d$a%d$a%d\n", i+1, i, i, i, i)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var params strings.Builder
	for i := range 50_000 {
		fmt.Fprintf(&params, "p%d = x\n", i)
	}
	routes := write("routes", strings.ReplaceAll(strings.ReplaceAll(params.String(), "p", "p.example.p"), "=", "smtp:[h.example]"))
	wrong := write("wrong-routes", strings.ReplaceAll(params.String()[:2000], "=", "smtp:[-]"))
	for _, tt := range []struct{ peer, file, want string }{
		{"sendmail", "", "no mail program to take over from"},
		{"postfix", filepath.Join(dir, "none"), "no configuration at"},
		{"postfix", dir, "not a regular file"},
		{"postfix", fifo, "not a regular file"},
		{"postfix", loop, "too many levels of symbolic links"},
		{"ssmtp", "/dev/zero", "not a regular file"},
		{"msmtp", write("huge", strings.Repeat("# x\n", maxFile)), "more than 1 MiB"},
		{"dma", write("binary", "\x7fELF\x00\x01"), "not a text"},
		{"dma", write("latin1", "SMARTHOST m\xfcller.example"), "not a text"},
		{"exim", write("exim.conf", "begin acl\nx = y\n"), "has to be written anew"},
		{"postfix", write("bomb", bomb+"relayhost = $a30\n"), ""},
		{"postfix", write("host", "myhostname = $mydomain\nrelayhost = $mydomain\n"), ""},
		{"postfix", write("long", "mydestination = a\n"+strings.Repeat(" b\n", 300_000)), ""},
		{"postfix", write("many", "transport_maps = hash:"+routes+"\n"), ""},
		{"postfix", write("params", params.String()), ""},
		{"postfix", write("wrong", "transport_maps = hash:"+wrong+"\n"), "too much of it cannot be taken over"},
		{"postfix", write("circle", "relayhost = $relayhost\nmyorigin = ${mydomain}\nmydomain = ${myorigin}\n"), ""},
		{"postfix", write("braces", "relayhost = ${{{{(\nmyhostname = $$$\nmydestination = ${a?{b}:{c}} ${ $( $\n"), ""},
		{"msmtp", write("self", "account a : a\naccount a : b\naccount b : a\nhost \"\naccount\naccount default : default"), ""},
		{"esmtp", write("quotes", "hostname = \"a\\\nidentity\nidentity = '\\\n"), ""},
		{"nullmailer", write("remotes", "host smtp --pass='\n[::1 smtp\n\\\n# x\n'' '' ''\n"), ""},
		{"ssmtp", write("toml", "mailhub=a\"\"\" ]] # [x]:25\nhostname=\"\nrewriteDomain=]\nAuthUser='''\nAuthPass=\"\"\"\n"), ""},
	} {
		in := Import{Secrets: "/s", Hostname: "h.example"}
		found, err := in.From(tt.peer, tt.file)
		switch {
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s %s: got %v, want %q", tt.peer, tt.file, err, tt.want)
		case tt.want == "" && err != nil:
			t.Errorf("%s %s: %v", tt.peer, tt.file, err)
		case tt.want == "":
			checkText(t, found)
		}
	}
}

// checkText is the law: what comes out is a configuration.
func checkText(t *testing.T, found *Imported) {
	t.Helper()
	if _, err := config.Parse("import", []byte(found.Text)); err != nil {
		t.Errorf("%v in\n%s", err, found.Text)
	}
}

func FuzzImport(f *testing.F) {
	for i, name := range Names() {
		files, err := filepath.Glob("testdata/" + name + "-*/etc/*/*")
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			if text, err := os.ReadFile(file); err == nil {
				f.Add(i, string(text))
			}
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, peer int, text string) {
		file := filepath.Join(dir, fmt.Sprint(os.Getpid()))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		in := Import{Secrets: "/s", Hostname: "h.example"}
		found, err := in.From(Names()[uint(peer)%uint(len(Names()))], file)
		if err == nil {
			checkText(t, found)
		}
	})
}
