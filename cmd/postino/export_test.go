package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"postino/delivery/control"
)

func TestQueueMovesToAnotherHost(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	one, two := from.store(t, 1500, "one").String(), from.store(t, 1600, "two").String()
	from.start(t, 0)
	to.start(t, 0)
	dir := filepath.Join(from.dir, "queue")
	expect := func(p *place, stdout, stderr string, status int, line ...string) {
		t.Helper()
		r := p.run(t, 0, append([]string{"postino"}, line...)...)
		if r.stdout != stdout || r.status != status || !strings.Contains(r.stderr, stderr) || stderr == "" && r.stderr != "" {
			t.Errorf("%v: %+v", line, r)
		}
	}
	expect(from, "1 message held\n", "", 0, "hold", one)
	expect(from, "2 messages exported\n", "", 0, "export", "--all", dir)
	for _, name := range []string{one + ".eml", one + ".json", two + ".eml", two + ".json"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	eml, err := os.ReadFile(filepath.Join(dir, one+".eml"))
	if err != nil || string(eml) != "Subject: one\r\n\r\nhello\r\n" {
		t.Errorf("%q, %v", eml, err)
	}
	expect(from, "0 messages exported\n", "exists", 74, "export", one, dir) // nothing is written over
	expect(to, "2 messages imported\n", "", 0, "import", dir)
	expect(to, "0 messages imported, 2 here already\n", "", 0, "import", dir)
	list := to.run(t, 0, "postino", "queue", "--json").stdout
	if !strings.Contains(list, `"id":"`+one+`","arrived":"2026-01-02T23:04:05.6Z","sender":"alice@example.net","uid":1500,"size":23,"status":"held","held":"held by uid 0"`) ||
		!strings.Contains(list, `"id":"`+two+`"`) || !strings.Contains(list, `"uid":1600`) {
		t.Errorf("queue there: %s", list)
	}

	again := filepath.Join(from.dir, "again")
	expect(from, "1 message exported\n1 message removed from the queue\n", "", 0, "export", "--uid", "1600", "--remove", again)
	if r := from.run(t, 0, "postino", "trace", two); !strings.Contains(r.stdout, "exported by uid 0") {
		t.Errorf("trace: %+v", r)
	}
	expect(from, "1 message imported\n", "", 0, "import", again)
	if r := from.run(t, 0, "postino", "queue", "--json", "--uid", "1600"); !strings.Contains(r.stdout, `"status":"queued"`) {
		t.Errorf("back in the queue: %+v", r)
	}
	for _, line := range [][]string{{"export", "--all", dir + "2"}, {"import", dir}} {
		if r := from.run(t, testStranger, append([]string{"postino"}, line...)...); r.status == 0 || strings.Contains(r.stdout, "1") {
			t.Errorf("%v as a stranger: %+v", line, r)
		}
	}
}

// Files to be imported may be anybody's work.
func TestImportRefusesHostileFiles(t *testing.T) {
	p := newPlace(t)
	id := p.store(t, 1500, "one").String()
	p.start(t, 0)
	good := filepath.Join(p.dir, "good")
	if r := p.run(t, 0, "postino", "export", "--all", "--remove", good); r.status != 0 {
		t.Fatalf("export: %+v", r)
	}
	eml, err1 := os.ReadFile(filepath.Join(good, id+".eml"))
	envelope, err2 := os.ReadFile(filepath.Join(good, id+".json"))
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	other := "0" + id[1:15] + "1"
	write := func(path string, content []byte) error { return os.WriteFile(path, content, 0o600) }
	for _, tt := range []struct {
		name string
		make func(eml, json string) error
		want string
	}{
		{"damaged content", func(e, j string) error {
			write(j, envelope)
			return write(e, []byte(strings.Replace(string(eml), "hello", "hullo", 1)))
		}, "damaged"},
		{"cut content", func(e, j string) error { write(j, envelope); return write(e, eml[:5]) }, "damaged"},
		{"longer content", func(e, j string) error { write(j, envelope); return write(e, append(eml, "\r\n"...)) }, "damaged"},
		{"lone LF", func(e, j string) error {
			write(j, envelope)
			return write(e, []byte(strings.ReplaceAll(string(eml), "\r\n", "\n")))
		}, "CRLF"},
		{"no content", func(_, j string) error { return write(j, envelope) }, "no such file"},
		{"no envelope", func(e, _ string) error { return write(e, eml) }, "no such file"},
		{"empty envelope", func(e, j string) error { write(e, eml); return write(j, nil) }, "EOF"},
		{"envelope of another", func(e, j string) error {
			write(e, eml)
			return write(j, []byte(strings.Replace(string(envelope), id, other, 1)))
		}, "it is the envelope of " + other},
		{"two lines", func(e, j string) error {
			write(e, eml)
			return write(j, []byte(strings.Replace(string(envelope), "{", "{\n", 1)))
		}, "one line"},
		{"link", func(e, j string) error { write(e, eml); return os.Symlink("/etc/shadow", j) }, ""},
		{"pipe", func(e, j string) error { write(j, envelope); return unix.Mkfifo(e, 0o600) }, "not a regular file"},
		{"directory", func(e, j string) error { write(e, eml); return os.Mkdir(j, 0o700) }, "not a regular file"},
	} {
		dir := t.TempDir()
		if err := tt.make(filepath.Join(dir, id+".eml"), filepath.Join(dir, id+".json")); err != nil {
			t.Fatal(err)
		}
		r := p.run(t, 0, "postino", "import", dir)
		if r.stdout != "0 messages imported\n" || r.status != 74 || r.stderr == "" || !strings.Contains(r.stderr, tt.want) || strings.Contains(r.stderr, "root:") {
			t.Errorf("%s: %+v", tt.name, r)
		}
		harmless(t, tt.name, []byte(r.stderr))
	}
	if err := os.WriteFile(filepath.Join(good, "\x1b[31m.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := p.run(t, 0, "postino", "import", good); r.stdout != "1 message imported\n" || r.status != 0 {
		t.Errorf("the good one: %+v", r)
	}
	// What the program looks at the runner looks at, too: others may speak to it.
	c := control.Dial(p.spool)
	defer c.Close()
	for _, text := range []string{"", "{}", strings.Replace(string(envelope), `"via":"socket"`, `"via":"x"`, 1)} {
		if _, err := c.Import(t.Context(), []byte(strings.TrimSpace(text)), strings.NewReader("x")); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
