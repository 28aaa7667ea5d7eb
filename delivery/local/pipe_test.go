package local

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"postino/spool"
	"postino/spool/address"
)

// script is a program of these lines.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// A program has the message whole on its standard input, and is told for whom it is by
// words that no shell sees.
func TestProgramHasTheMessage(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "out")
	program := script(t, `{ for a; do echo "<$a>"; done; echo "$SENDER $RECIPIENT $USER $HOME"; cat; } >`+out)
	s := store(t, "pipe:"+program+" -d {user}  -f {sender} to={recipient} $(id) ;")
	if got := statuses(s.Deliver(context.Background(), batch(t, 1, me(t)+"@host.test"))); got != "2.0.0" {
		t.Errorf("%s", got)
	}
	text, err := os.ReadFile(out)
	to := me(t) + "@host.test"
	want := "<-d>\n<" + me(t) + ">\n<-f>\n<ann@example.org>\n<to=" + to + ">\n<$(id)>\n<;>\nann@example.org " + to + " " + me(t) + " \n" +
		"Return-Path: <ann@example.org>\nDelivered-To: " + to + "\n" + letterText
	if err != nil || string(text) != want {
		t.Errorf("%q, %v\nwant %q", text, err, want)
	}
}

// A status that says that a message can never be taken fails it, every other one makes
// it wait, and what the program said is in the reply.
func TestStatusOfAProgramDecides(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ script, status, says string }{
		{"cat >/dev/null; exit 0", "2.0.0", "taken"},
		{"cat >/dev/null; sleep 3 & exit 0", "2.0.0", "taken"}, // whatever it leaves behind
		{"cat >/dev/null; sleep 3 & exit 67", "5.1.1", "exit status 67"},
		{"cat >/dev/null; echo no such list; exit 67", "5.1.1", "no such list"},
		{"cat >/dev/null; exit 69", "5.3.0", "exit status 69"},
		{"exit 65", "5.6.0", ""},
		{"exit 77", "5.7.1", ""},
		{"cat >/dev/null; echo busy >&2; exit 75", "4.3.0", "busy"},
		{"exit 1", "4.3.0", ""},
		{"kill -9 $$", "4.3.0", "killed"},
		{"cat >/dev/null; head -c 100000 /dev/zero | tr '\\0' x; exit 75", "4.3.0", "xxx"},
	} {
		s := store(t, "pipe:"+script(t, tt.script)+" {recipient}")
		r := s.Deliver(context.Background(), batch(t, 1, "x@host.test"))[0]
		if r.Status != tt.status || !strings.Contains(r.Text, tt.says) || len(r.Text) > 2*maxSaid {
			t.Errorf("%s: %+v", tt.script, r)
		}
		if r.Command != "pipe" {
			t.Errorf("%s: %+v", tt.script, r)
		}
	}
	if r := store(t, "pipe:/nonexistent").Deliver(context.Background(), batch(t, 1, "x@host.test"))[0]; r.Class() != spool.Temporary {
		t.Errorf("a program that is missing: %+v", r)
	}
}

// An address is never an option: there is none of that kind.
func TestAddressIsNoOption(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"-oQ/tmp@host.test", `"-oQ"@host.test`, "--@host.test"} {
		if a, err := address.Parse(text); err == nil {
			t.Errorf("%s: %+v", text, a)
		}
	}
}

// A message that cannot be read to its end is never a shorter one to the program.
func TestProgramNeverHasAPart(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "out")
	s := store(t, "pipe:"+script(t, "cat >/dev/null && echo whole >"+out))
	b := batch(t, 1, "x@host.test")
	b.Open = func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader("Subject: half\r\n"), iotest.ErrReader(errors.New("checksum")))), nil
	}
	if r := s.Deliver(context.Background(), b)[0]; r.Class() != spool.Temporary || !strings.Contains(r.Text, "checksum") {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("it was taken for whole")
	}
}
