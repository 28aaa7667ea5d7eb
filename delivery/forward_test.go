package delivery

import (
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postino/config"
	"postino/delivery/local"
	"postino/spool"
	"postino/spool/address"
)

// A user's own file counts, unless others may have written it or it is no file of the
// user's.
func TestForwardIsTheUsersOwn(t *testing.T) {
	t.Parallel()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	base := t.TempDir()
	home := filepath.Join(base, me.Username)
	file := filepath.Join(home, ".forward")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		make func() error
		want string // the addresses, or a part of the error
	}{
		"no file":      {func() error { return os.Remove(file) }, ""},
		"good":         {func() error { return nil }, `a@a.test b`},
		"empty":        {func() error { write("# nobody\n"); return nil }, ""},
		"mistake":      {func() error { write("a@@b\n"); return nil }, ".forward:1: "},
		"group":        {func() error { return os.Chmod(file, 0o664) }, "may be written by others"},
		"directory":    {func() error { return os.Chmod(home, 0o777) }, "may be written by others"},
		"link":         {func() error { return os.Symlink("/etc/hostname", file+"x") }, `a@a.test b`},
		"link outside": {func() error { _ = os.Remove(file); return os.Symlink("/etc/passwd", file) }, "escapes"},
		"pipe":         {func() error { _ = os.Remove(file); return syscall.Mkfifo(file, 0o644) }, "is not a file"},
		"large":        {func() error { write(strings.Repeat("a@a.test\n", 64<<10)); return nil }, "larger than"},
		"of another":   {func() error { return os.Chown(file, 54321, 54321) }, "may be written by others"},
	} {
		if err := os.RemoveAll(home); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(home, 0o755); err != nil {
			t.Fatal(err)
		}
		write("a@a.test, b\n")
		if err := tt.make(); err != nil {
			if os.IsPermission(err) {
				continue // only root can
			}
			t.Fatal(err)
		}
		list, err := forward(local.ReadForward, filepath.Join(base, "{user}", ".forward"), strings.ToUpper(me.Username))
		var words []string
		for _, target := range list {
			words = append(words, target.Address.String())
		}
		got := strings.Join(words, " ")
		if err != nil {
			got = err.Error()
		}
		if got != tt.want && (err == nil || tt.want == "" || !strings.Contains(got, tt.want)) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
	for _, name := range []string{"nosuchuser", "..", ".", "", "a/../" + me.Username} {
		if list, err := forward(local.ReadForward, filepath.Join(base, "{user}", ".forward"), name); len(list) > 0 || err != nil {
			t.Errorf("%q: %v, %v", name, list, err)
		}
	}
}

// Mail for a user goes where the user says, a copy into the mailbox where that is named,
// and no program is run for it.
func TestMailIsForwarded(t *testing.T) {
	t.Parallel()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, tt := range []struct{ text, want string }{
		{"a@a.test", "expanded 2.0.0 [a@a.test]"},
		{`\` + me.Username + "\na@a.test", "queued  final [a@a.test]; goes on"},
		{me.Username + "@host.test, a@a.test", "queued  final [a@a.test]; goes on"},
		{"|/bin/x", "failed 5.7.1 []"},
		{":include:/etc/passwd", "deferred 4.3.5 []"},
		{"", "goes on"},
	} {
		c := config.Default()
		c.Hostname, c.Domain, c.Aliases.Programs = "host.test", "host.test", true
		c.Aliases.Forward = filepath.Join(dir, "{user}")
		if err := os.WriteFile(filepath.Join(dir, me.Username), []byte(tt.text), 0o644); err != nil {
			t.Fatal(err)
		}
		p := &plan{config: c, aliases: &aliasFile{path: "/nonexistent/aliases"}}
		m := &spool.Message{Arrived: time.Now(), Sender: address.Address{Local: "s", Domain: "x.test"}, Recipients: []spool.Recipient{recipient(t, me.Username+"@host.test")}}
		if got := describe(p.expand(m, []int{0}, time.Now())); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.text, got, tt.want)
		}
	}
}
