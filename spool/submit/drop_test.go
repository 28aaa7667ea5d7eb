package submit_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"postino/spool"
	"postino/spool/standstill"
)

// One file must not fill the runner's memory.
func TestDropFileWithEndlessCommandsIsRejected(t *testing.T) {
	r := newRig(t)
	for name, commands := range map[string]string{
		strings.Repeat("c", 32): strings.Repeat("NOOP\r\n", 300_000),
		strings.Repeat("d", 32): func() string {
			var b strings.Builder
			for i := range 101_000 {
				fmt.Fprintf(&b, "RCPT TO:<%d@y.test>\r\n", i)
			}
			return b.String()
		}(),
	} {
		session := recorded(name, "a@b.test", []string{"x@y.test"}, hello)
		r.drop(name, strings.Replace(session, "BDAT", commands+"BDAT", 1))
	}
	r.scan()
	if n := len(r.messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
	for _, name := range r.dropped() {
		if !strings.HasPrefix(name, "rejected.") {
			t.Errorf("%s is left to be read again", name)
		}
	}
}

// What the runner would refuse, an owner of a drop file has been told is in our
// hands: it is taken with the refusal, of which the runner tells its sender.
func TestDropFileThatPolicyRefusesIsTakenWithTheRefusal(t *testing.T) {
	r := newRig(t)
	name := strings.Repeat("a", 32)
	r.drop(name, recorded(name, "a@b.test", []string{"1@y.test", "2@y.test", "3@y.test", "4@y.test", "5@y.test", "6@y.test"}, hello))
	name = strings.Repeat("b", 32)
	r.drop(name, recorded(name, "a@b.test", []string{"1@y.test"}, hello+strings.Repeat("x", 2<<20)))
	r.scan()
	list := r.messages()
	if len(list) != 2 || len(r.dropped()) != 0 {
		t.Fatalf("%d messages, %v left; log:\n%s", len(list), r.dropped(), r.log)
	}
	for _, m := range list {
		want := map[int]string{1: "5.3.4", 6: "5.5.3"}[len(m.Recipients)]
		if m.Held != "" || m.Refused == nil || m.Refused.Status != want || !strings.Contains(m.Refused.Text, "sets the limit") {
			t.Errorf("%d recipients: held %q, refused %+v, want %s", len(m.Recipients), m.Held, m.Refused, want)
		}
	}
	if n := len(list[0].Recipients) + len(list[1].Recipients); n != 7 {
		t.Errorf("%d recipients kept, want all 7", n)
	}
}

func TestDropDirectoryTakesFilesAlone(t *testing.T) {
	r := newRig(t)
	good := strings.Repeat("1", 32)
	session := recorded(good, "root@localhost", []string{"x@y.test"}, hello)
	r.drop(good, session)
	path := func(name string) string { return filepath.Join(r.dir, "drop", name) }
	outside, secret := filepath.Join(r.dir, "outside"), filepath.Join(r.dir, "secret")
	for _, path := range []string{outside, secret} {
		if err := os.WriteFile(path, []byte(session), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, make := range map[string]func(string) error{
		strings.Repeat("2", 32): func(p string) error { return os.Symlink(secret, p) },
		strings.Repeat("3", 32): func(p string) error { return os.Link(outside, p) },
		strings.Repeat("4", 32): func(p string) error { return os.Mkdir(p, 0o700) },
		strings.Repeat("5", 32): func(p string) error { return unix.Mkfifo(p, 0o600) },
		"README":                func(p string) error { return os.WriteFile(p, []byte(session), 0o600) },
	} {
		if err := make(path(name)); err != nil {
			t.Fatal(err)
		}
	}
	garbage := strings.Repeat("6", 32)
	r.drop(garbage, "#!/bin/sh\nrm -rf /\n")
	r.scan()
	list := r.messages()
	if len(list) != 1 || list[0].Origin.Via != spool.ViaDrop || list[0].Origin.UID != os.Getuid() || list[0].Sender.String() != "root@dom.test" {
		t.Fatalf("messages = %+v", list)
	}
	if _, err := os.Stat(path(good)); !os.IsNotExist(err) {
		t.Errorf("the file that was taken is still there: %v", err)
	}
	if _, err := os.Stat(path("rejected." + garbage)); err != nil {
		t.Errorf("garbage: %v", err)
	}
	if got := len(r.dropped()); got != 6 {
		t.Errorf("drop/ has %v", r.dropped())
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != session {
		t.Errorf("what the links point to was touched: %v", err)
	}
}

func TestDropFilesAreTakenAsTheyArrive(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.srv.Drops(ctx) }()
	for i := range 20 {
		name := fmt.Sprintf("%032x", i+1)
		r.drop(name, recorded(name, "a@b.test", []string{"x@y.test"}, hello))
	}
	standstill.Wait(t, patience, "all drop files are taken", func() bool { return len(r.dropped()) == 0 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := len(r.messages()); n != 20 {
		t.Errorf("%d messages, want 20", n)
	}
}
