package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What is printed passes the check and shows no password; that goes into a file of the
// runner's user, and whatever is there already is never written over.
func TestConfigImportKeepsPasswordsToThemselves(t *testing.T) {
	p := newPlace(t)
	theirs, secrets := filepath.Join(p.dir, "msmtprc"), filepath.Join(p.dir, "secrets")
	write := func(password string) {
		t.Helper()
		text := "account default\nhost smtp.example.net\ntls on\nauth on\nuser u\npassword " + password + "\nfrom u@example.net\n"
		if err := os.WriteFile(theirs, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("geheim")
	r := p.run(t, 0, "postino", "config", "import", "msmtp", theirs)
	if r.status != 0 || !strings.Contains(r.stderr, "/secrets/msmtp-relay.password is not written: --secrets") {
		t.Errorf("without --secrets: %+v", r)
	}
	for range 2 { // again is no error
		r = p.run(t, 0, "postino", "config", "import", "msmtp", theirs, "--secrets", secrets)
		if r.status != 0 || strings.Contains(r.stdout+r.stderr, "geheim") {
			t.Fatalf("got %+v", r)
		}
	}
	file := filepath.Join(secrets, "msmtp-relay.password")
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	st, _ := info.Sys().(*syscall.Stat_t)
	if text, err := os.ReadFile(file); err != nil || string(text) != "geheim\n" || info.Mode().Perm() != 0o600 || st.Uid != testOwner {
		t.Errorf("%q, %v, mode %v, uid %d: want the password for uid %d alone", text, err, info.Mode(), st.Uid, testOwner)
	}
	if err := errors.Join(os.WriteFile(p.config, []byte(r.stdout), 0o644)); err != nil {
		t.Fatal(err)
	}
	p.lines(t, []cliLine{
		{0, "postino config check", 0, "ok", ""},
		{0, "postino config show", 0, `password_file = "` + file + `"`, ""},
	})
	elsewhere := filepath.Join(p.dir, "elsewhere")
	if r := p.run(t, 0, "postino", "config", "import", "msmtp", theirs, "--secrets", elsewhere, "--spool", filepath.Join(p.dir, "none")); r.status != 0 ||
		!strings.Contains(r.stderr, "the passwords are root's") {
		t.Errorf("without a spool: %+v", r)
	}
	write("another")
	p.lines(t, []cliLine{
		{0, "postino config import msmtp " + theirs + " --secrets " + secrets, exCantCreate, "-", "there is such a file with something else in it"},
		{0, "postino config import msmtp " + theirs + " --secrets secrets", exUsage, "-", "want an absolute path"},
		{0, "postino config import qmail", exConfig, "-", "there are postfix, exim, msmtp"},
		{0, "postino config import", exUsage, "-", "takes the name of a mail program"},
		{65534, "postino setup --config " + defaultConfig, exNoPerm, "-", "postino --user setup"},
		{65534, "postino config import msmtp " + theirs, exConfig, "-", "permission denied"},
	})
}
