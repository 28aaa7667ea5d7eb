package config

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const (
	// maxSecret bounds a password or access token, in octets: tokens of OAuth have
	// a few KiB, and a wrong path should not fill memory.
	maxSecret = 64 << 10
	// commandTimeout bounds a run of password_command: time for a key store to
	// answer, not for a person.
	commandTimeout = 30 * time.Second
	// commandWaitDelay is how long the output of a password_command that ended may
	// still be held open by its children, such as an agent that it started. It is waited
	// for in turns: on a machine that stood still one wait of that length is over before
	// we could read.
	commandWaitDelay = 2 * time.Second
	commandWaitTurns = 20

	hidden = "…"
)

// Secret is text that no log, error or listing shows: whatever formats it writes
// "…". Only Reveal has the value.
type Secret string

// Reveal is the value, for the one place that sends it.
func (s Secret) Reveal() string { return string(s) }

func (Secret) String() string   { return hidden }
func (Secret) GoString() string { return hidden }

// Format covers the verbs that String does not: of %d, fmt would complain with
// the value in the complaint.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, hidden) }

func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }
func (Secret) LogValue() slog.Value         { return slog.StringValue(hidden) }

// Credentials reports whether a user name or a source of a password is set.
func (r *Relay) Credentials() bool { return r.Username != "" || len(r.passwordSources()) > 0 }

// passwordSources are the keys that are set and name a password, without their
// table, in the order of the manual.
func (r *Relay) passwordSources() []string {
	var keys []string
	for _, source := range []struct {
		key string
		set bool
	}{
		{"password", r.Password != ""},
		{"password_file", r.PasswordFile != ""},
		{"password_command", len(r.PasswordCommand) > 0},
		{"credential", r.Credential != ""},
		{"oauth", r.OAuth.IsSet()},
	} {
		if source.set {
			keys = append(keys, source.key)
		}
	}
	return keys
}

// Secret fetches the password from its source, anew at each call so that a
// changed one needs no restart. It is "" without an error when no source is set.
// Errors name the file or program and never what it holds. A password_command
// has 30 s, or less when ctx ends before.
func (r *Relay) Secret(ctx context.Context) (Secret, error) {
	var s Secret
	var err error
	key := "password_file"
	switch {
	case r.PasswordFile != "":
		s, err = secretFile(r.PasswordFile)
	case len(r.PasswordCommand) > 0:
		key = "password_command"
		s, err = secretCommand(ctx, r.PasswordCommand)
	case r.Credential != "":
		key = "credential"
		s, err = secretCredential(r.Credential)
	default:
		return r.Password, nil
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", key, err)
	}
	return s, nil
}

// secretFile reads a regular file, one line end at its end cut off. O_NONBLOCK
// because opening a FIFO would wait for its writer before we can see what it is.
func secretFile(path string) (Secret, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file: write the password in one", path)
	}
	data, err := readAtMost(f, maxSecret)
	if err != nil {
		return "", err
	}
	return secretText(path, data)
}

// secretCommand runs argv without a shell and takes the first line it writes.
// What it says on standard error is dropped: it may quote what it read.
func secretCommand(ctx context.Context, argv []string) (Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	var out limitedBuffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	held, err := runInto(&out, cmd)
	line, _, whole := bytes.Cut(out.data, []byte("\n"))
	switch {
	case err != nil && ctx.Err() != nil: // the wait for its output is none of its time
		return "", fmt.Errorf("%s gave no password in time: %w", argv[0], ctx.Err())
	case out.tooLong: // err is how the program took it
		return "", fmt.Errorf("%s wrote more than %v", argv[0], Size(maxSecret))
	case err != nil:
		return "", fmt.Errorf("%s: %w: run it as the runner's user to see why", argv[0], err)
	case held && !whole:
		return "", fmt.Errorf("%s wrote no whole line, and a child of it keeps its output open: have it end the line", argv[0])
	}
	return secretText(argv[0], line)
}

// runInto runs a command and takes its output to the end, or until the command has
// ended and somebody holds the output still.
func runInto(out io.Writer, cmd *exec.Cmd) (held bool, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return false, err
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer r.Close() // who writes more than we take is told
		_, _ = io.Copy(out, r)
	}()
	cmd.Stdout = w
	err = cmd.Run()
	w.Close()
	for range commandWaitTurns {
		select {
		case <-read:
			return false, err
		case <-time.After(commandWaitDelay / commandWaitTurns):
		}
	}
	_ = r.SetReadDeadline(time.Now())
	<-read
	return true, err
}

// serviceCredentials is where systemd keeps those of postino.service while it runs, for
// its user and root alone: commands that they call beside it have no variable.
const serviceCredentials = "/run/credentials/postino.service"

// secretCredential reads what systemd's LoadCredential= left for the service.
func secretCredential(name string) (Secret, error) {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir != "" {
		return secretFile(filepath.Join(dir, name))
	}
	s, err := secretFile(filepath.Join(serviceCredentials, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("neither in CREDENTIALS_DIRECTORY nor in %s is a %s: give the service LoadCredential=%s:FILE, and start it", serviceCredentials, quote(name), name)
	}
	return s, err
}

// secretText makes a Secret of the data that came from source. An empty one would
// only be refused by the relay, and a second line is a wrong file.
func secretText(source string, data []byte) (Secret, error) {
	data = bytes.TrimSuffix(data, []byte("\n"))
	data = bytes.TrimSuffix(data, []byte("\r"))
	if len(data) == 0 {
		return "", fmt.Errorf("%s holds no password", source)
	}
	if hasControl(string(data)) {
		return "", fmt.Errorf("%s holds a line end or control character inside the password: leave the password alone in it", source)
	}
	return Secret(data), nil
}

// limitedBuffer keeps up to maxSecret octets and refuses more.
type limitedBuffer struct {
	data    []byte
	tooLong bool
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if len(b.data)+len(p) > maxSecret {
		b.tooLong = true
		return 0, errors.New("too long")
	}
	b.data = append(b.data, p...)
	return len(p), nil
}
