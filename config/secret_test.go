package config

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
)

const password = "hunter2-correct-horse"

func TestNoFormatShowsASecret(t *testing.T) {
	relay := defaultRelay()
	relay.Host, relay.Port, relay.Username, relay.Password = Hosts{"mail.example.com"}, 587, "u", password
	c := Default()
	c.Relay = relay
	s := Secret(password)
	values := []any{s, &s, relay, *relay, c, *c, []Secret{s}, map[string]Secret{"k": s}, struct{ P any }{s}}

	check := func(how, text string) {
		t.Helper()
		hex := fmt.Sprintf("%x", password)
		for _, leak := range []string{password, hex, strings.ToUpper(hex), "hunter2"} {
			if strings.Contains(text, leak) {
				t.Errorf("%s shows the password: %s", how, text)
			}
		}
	}
	for _, v := range values {
		// Not %w and %p: fmt takes both as misuse before it asks the value, and
		// go vet refuses them.
		for verb := 'A'; verb <= 'z'; verb++ {
			if verb == 'w' || verb == 'p' {
				continue
			}
			for _, flag := range []string{"", "+", "#", "-20", "020", " ", ".3"} {
				format := "%" + flag + string(verb)
				check(fmt.Sprintf("%s of %T", format, v), fmt.Sprintf(format, v))
			}
		}
		check("Sprint", fmt.Sprint(v)+fmt.Sprintln(v))
		check("Errorf", fmt.Errorf("no: %v", v).Error())
		if data, err := json.Marshal(v); err == nil {
			check("json", string(data))
		}
		if data, err := xml.Marshal(v); err == nil {
			check("xml", string(data))
		}
		if data, err := toml.Marshal(map[string]any{"v": v}); err == nil {
			check("toml", string(data))
		}
		var out bytes.Buffer
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).With("a", v).WithGroup("g").Info("m", "v", v, slog.Group("h", "v", v))
		}
		check("slog", out.String())
	}
	text, err := s.MarshalText()
	check("MarshalText", fmt.Sprintf("%s %v", text, err))
	text, err = s.MarshalJSON()
	check("MarshalJSON", fmt.Sprintf("%s %v", text, err))
	check("LogValue", s.LogValue().String())
	check("String", c.String())
	if !strings.Contains(c.String(), `password = "…"`) {
		t.Errorf("WriteTo does not say that there is a password:\n%s", c)
	}
	if s.Reveal() != password {
		t.Errorf("Reveal() = %q; want %q", s.Reveal(), password)
	}
}

func TestNoErrorShowsAPassword(t *testing.T) {
	for _, value := range []string{
		password, `"` + password, `"` + password + `\q"`, `'` + password + `\u0000" # "`, "[\"" + password + "\"]",
		`"` + password + `\u0007"`, "'" + password + "' x", "0777" + password, "{ a = '" + password + "' }", "true" + password,
		"1979-05-27T" + password, `"` + password + `"`, "'''" + password,
	} {
		_, err := Parse("f", []byte("[relay]\nhost = \"a\"\npassword = "+value+"\n"))
		if err == nil || strings.Contains(err.Error(), "hunter") || strings.Contains(err.Error(), "0777") {
			t.Errorf("%s: got error %v", value, err)
		}
	}
}

func TestPasswordFile(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		content, want, err string
	}{
		{password, password, ""},
		{password + "\n", password, ""},
		{password + "\r\n", password, ""},
		{" a b \n", " a b ", ""},
		{strings.Repeat("x", maxSecret), strings.Repeat("x", maxSecret), ""},
		{strings.Repeat("hunter2", maxSecret), "", "is larger than 64KiB"},
		{"", "", "holds no password"},
		{"\n", "", "holds no password"},
		{password + "\n\n", "", "line end or control character"},
		{password + "\nmore\n", "", "line end or control character"},
		{"hunter2\x00", "", "line end or control character"},
	} {
		path := filepath.Join(dir, "password")
		if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := (&Relay{PasswordFile: path}).Secret(t.Context())
		if got.Reveal() != tt.want || !errContains(err, tt.err) {
			t.Errorf("%.40q: got %.40q, %v; want %.40q, error containing %q", tt.content, got.Reveal(), err, tt.want, tt.err)
		}
		if err != nil && (!strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%.40q: error %v; want the path and nothing of the content", tt.content, err)
		}
	}
	for path, want := range map[string]string{
		dir:                        "not a regular file",
		fifo:                       "not a regular file",
		"/dev/zero":                "not a regular file",
		filepath.Join(dir, "none"): "no such file",
	} {
		if got, err := (&Relay{PasswordFile: path}).Secret(t.Context()); got != "" || !errContains(err, want) {
			t.Errorf("%s: got %q, %v; want error containing %q", path, got.Reveal(), err, want)
		}
	}
}

func TestPasswordIsReadAtEachUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	relay := &Relay{PasswordFile: path}
	for _, want := range []string{"first", "second"} {
		if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := relay.Secret(t.Context()); got.Reveal() != want || err != nil {
			t.Errorf("got %q, %v; want %q", got.Reveal(), err, want)
		}
	}
}

func TestPasswordCommand(t *testing.T) {
	for _, tt := range []struct {
		argv      []string
		want, err string
	}{
		{[]string{"echo", password}, password, ""},
		{[]string{"printf", `a b\r\nsecond\n`}, "a b", ""},
		{[]string{"echo", "$HOME;`id`"}, "$HOME;`id`", ""}, // no shell
		{[]string{"sh", "-c", "echo warning >&2; echo " + password}, password, ""},
		{[]string{"true"}, "", "holds no password"},
		{[]string{"printf", `\nhunter2\n`}, "", "holds no password"},
		{[]string{"sh", "-c", "echo hunter2; echo hunter2 >&2; exit 3"}, "", "exit status 3"},
		{[]string{"head", "-c", "1000000", "/dev/zero"}, "", "more than 64KiB"},
		{[]string{"/nonexistent/hunter", "hunter2"}, "", "no such file"},
	} {
		got, err := (&Relay{PasswordCommand: tt.argv}).Secret(t.Context())
		if got.Reveal() != tt.want || !errContains(err, tt.err) {
			t.Errorf("%q: got %q, %v; want %q, error containing %q", tt.argv, got.Reveal(), err, tt.want, tt.err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error shows what was written: %v", tt.argv, err)
		}
	}
}

// A command may leave an agent behind, which keeps the pipe open: what it wrote before
// it ended is the password, if that is a whole line.
func TestPasswordCommandMayLeaveAnAgent(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "gone") // the agent's life: it ends with the test
	if err := syscall.Mkfifo(gone, 0o600); err != nil {
		t.Fatal(err)
	}
	end, err := os.OpenFile(gone, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	for script, want := range map[string]string{"echo ": password, "printf ": ""} {
		argv := []string{"sh", "-c", `read x <"$0" & ` + script + password, gone}
		got, err := (&Relay{PasswordCommand: argv}).Secret(t.Context())
		if got.Reveal() != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v; want %q", argv, got.Reveal(), err, want)
		}
	}
	if _, err := end.WriteString("\n\n"); err != nil {
		t.Error(err)
	}
}

// The time of a command ends with it: how long others hold its output is not counted.
func TestPasswordOfACommandThatEndedIsNotLate(t *testing.T) {
	dir := t.TempDir()
	gone, ended := filepath.Join(dir, "gone"), filepath.Join(dir, "ended")
	if err := syscall.Mkfifo(gone, 0o600); err != nil {
		t.Fatal(err)
	}
	end, err := os.OpenFile(gone, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { // the time is over when the command is
		for ctx.Err() == nil {
			if _, err := os.Stat(ended); err == nil {
				cancel()
			}
			time.Sleep(time.Millisecond)
		}
	}()
	const agent = `{ while kill -0 $$; do sleep 0.1; done; : >"$1"; read x <"$0"; } 2>&- & echo `
	got, err := (&Relay{PasswordCommand: []string{"sh", "-c", agent + password, gone, ended}}).Secret(ctx)
	if got.Reveal() != password || err != nil {
		t.Errorf("got %q, %v; want the password", got.Reveal(), err)
	}
	if _, err := end.WriteString("\n"); err != nil {
		t.Error(err)
	}
}

func TestPasswordCommandEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got, err := (&Relay{PasswordCommand: []string{"sleep", "3600"}}).Secret(ctx)
	if got != "" || !errContains(err, "no password in time") {
		t.Errorf("got %q, %v; want an error for want of time", got.Reveal(), err)
	}
}

func TestCredential(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "smtp"), []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	relay := &Relay{Credential: "smtp"}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if got, err := relay.Secret(t.Context()); got != "" || !errContains(err, "LoadCredential=smtp:FILE") {
		t.Errorf("without a directory: got %q, %v", got.Reveal(), err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if got, err := relay.Secret(t.Context()); got.Reveal() != password || err != nil {
		t.Errorf("got %q, %v; want %q", got.Reveal(), err, password)
	}
}

func TestCredentialsAreAnyPartOfThem(t *testing.T) {
	for _, tt := range []struct {
		relay Relay
		want  bool
	}{
		{Relay{}, false},
		{Relay{Auth: AuthPlain}, false},
		{Relay{Username: "u"}, true},
		{Relay{Password: "p"}, true},
		{Relay{PasswordFile: "/f"}, true},
		{Relay{PasswordCommand: []string{"c"}}, true},
		{Relay{Credential: "c"}, true},
	} {
		if got := tt.relay.Credentials(); got != tt.want {
			t.Errorf("%+v: got %v; want %v", tt.relay, got, tt.want)
		}
	}
	if got, err := (&Relay{Username: "u"}).Secret(t.Context()); got != "" || err != nil {
		t.Errorf("no source: got %q, %v; want nothing", got.Reveal(), err)
	}
}

// errContains reports whether err says want; "" means no error.
func errContains(err error, want string) bool {
	if err == nil || want == "" {
		return err == nil && want == ""
	}
	return strings.Contains(err.Error(), want)
}
