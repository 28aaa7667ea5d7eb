package local

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postino/spool"
)

// targets is a batch for these targets of one alias, and who is to have it.
func targets(t *testing.T, list ...string) (*Targets, *spool.Batch) {
	t.Helper()
	var to []string
	for range list {
		to = append(to, "list@host.test")
	}
	b := batch(t, 1, to...)
	for i, target := range list {
		b.Message.Recipients[i].Target = target
	}
	as := me(t)
	if os.Geteuid() == 0 {
		as = "nobody"
	}
	return NewTargets(as, "", "host.test"), b
}

// shared is a directory that everybody may write to.
func shared(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "postino-target")
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// A program of an alias is run by a shell as the user it is to be, with an environment
// of its own, and reads a file of mail; a shell finds nothing in what strangers chose.
func TestProgramOfAnAlias(t *testing.T) {
	t.Setenv("SECRET", "x")
	out := filepath.Join(shared(t), "out")
	to, b := targets(t, `|exec >`+out+`; id -un; env | sort; cat`)
	b.Message.Sender.Local = "$(id)`;x'y"
	if got := statuses(to.Deliver(context.Background(), b)); got != "2.0.0" {
		t.Fatalf("%s", got)
	}
	text, err := os.ReadFile(out)
	sender := `"$(id)` + "`" + `;x'y"@example.org`
	want := to.as + "\nDOMAIN=host.test\nHOME=/\nLC_ALL=C.UTF-8\nLOCAL=list\nLOGNAME=" + to.as + "\nPATH=/usr/local/bin:/usr/bin:/bin\nPWD=/\n" +
		"RECIPIENT=list@host.test\nSENDER=___id___x_y_@example.org\nSHELL=/bin/sh\nUSER=" + to.as + "\n" +
		"From " + sender + " Mon Nov  2 10:00:00 2026\nReturn-Path: <" + sender + ">\nDelivered-To: list@host.test\n" + letterText
	got := strings.ReplaceAll(string(text), "_=/usr/bin/env\n", "")
	if err != nil || got != want {
		t.Errorf("%q, %v\nwant %q", got, err, want)
	}
}

// What a program ends with decides, for each recipient alone.
func TestProgramsOfAliasesDecideForThemselves(t *testing.T) {
	t.Parallel()
	to, b := targets(t, "|cat >/dev/null", "|echo no such list; exit 67", "|exit 75", "|exit 1", "|exit 77", "|/nonexistent")
	replies := to.Deliver(context.Background(), b)
	if got := statuses(replies); got != "2.0.0 5.1.1 4.3.0 4.3.0 5.7.1 4.3.0" || !strings.Contains(replies[1].Text, "no such list") {
		t.Errorf("%+v", replies)
	}
}

// Nobody runs a program as root, or as somebody that the runner cannot become.
func TestWhoRunsPrograms(t *testing.T) {
	t.Parallel()
	out := filepath.Join(shared(t), "out")
	_, b := targets(t, "|touch "+out, out)
	for as, want := range map[string]string{"root": "root", "nosuchuser": "nosuchuser"} {
		for _, r := range NewTargets(as, "", "host.test").Deliver(context.Background(), b) {
			if r.Class() != spool.Temporary || !strings.Contains(r.Text, want) {
				t.Errorf("%s: %+v", as, r)
			}
		}
	}
	if os.Geteuid() == 0 {
		to, b := targets(t, out)
		if r := to.Deliver(context.Background(), b)[0]; r.Class() != spool.Temporary || !strings.Contains(r.Text, "aliases.helper") {
			t.Errorf("a file as another user: %+v", r)
		}
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("something was written")
	}
}

// A file of an alias is an mbox, or a Maildir if its name ends in a slash, which nothing
// leads out of.
func TestFilesOfAliases(t *testing.T) {
	t.Parallel()
	dir := shared(t)
	to, b := targets(t, filepath.Join(dir, "mbox"), filepath.Join(dir, "maildir")+"/", dir, filepath.Join(dir, "none", "x"), filepath.Join(dir, "link"))
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := range b.Message.Recipients {
		l := &letter{message: b.Message, to: b.Message.Recipients[i].Address, open: b.Open}
		got = append(got, fmt.Sprint(to.write(context.Background(), b.Message.Recipients[i].Target, l) == nil))
	}
	if strings.Join(got, " ") != "true true false false false" {
		t.Errorf("%q", got)
	}
	mbox, err := os.ReadFile(filepath.Join(dir, "mbox"))
	if err != nil || !strings.HasPrefix(string(mbox), "From ann@example.org ") || !strings.Contains(string(mbox), "\n>From here on\n") {
		t.Errorf("%q, %v", mbox, err)
	}
	if files, err := filepath.Glob(filepath.Join(dir, "maildir/new/*")); err != nil || len(files) != 1 {
		t.Errorf("%q, %v", files, err)
	}
	if _, err := os.Stat(outside); err == nil {
		t.Error("a link was followed")
	}
}
