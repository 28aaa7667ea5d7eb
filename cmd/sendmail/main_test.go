package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postino/spool/standstill"
)

// TestMain is also the program postino that stands beside the sendmail under
// test: it writes down how it was started.
func TestMain(m *testing.M) {
	if !strings.HasSuffix(os.Args[0], ".test") {
		os.Exit(standIn())
	}
	code := m.Run()
	if dir, err := built(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// recordVariable names the file that standIn writes.
const recordVariable = "SENDMAIL_TEST_RECORD"

func standIn() int {
	name := os.Getenv(recordVariable)
	if name == "" {
		return 0
	}
	cwd, _ := os.Getwd()
	sid, _ := unix.Getsid(0)
	text := fmt.Sprintf("args=%q cwd=%s leader=%v spool=%s", os.Args, cwd, sid == os.Getpid(), os.Getenv(spoolVariable))
	for fd := range 100 {
		if to, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil && (fd < 3 || strings.HasSuffix(to, "inherited")) {
			text += fmt.Sprintf(" %d=%s", fd, to)
		}
	}
	if os.WriteFile(name+".part", []byte(text), 0o600) != nil || os.Rename(name+".part", name) != nil {
		return 1
	}
	return 3 // a status that sendmail itself never has
}

// built returns a directory with sendmail as it is built for users, under all of
// its names, and postino.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sendmail")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // some tests run it as somebody else
		return dir, err
	}
	cmd := exec.Command("go", "build", "-o", dir+"/sendmail", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("go build: %v: %s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		return dir, err
	}
	err = os.Symlink(self, dir+"/postino")
	for _, name := range []string{"send-mail", "mailq", "newaliases", "hoststat", "purgestat", "runq", "smtpd", "sendmail.postino", "rmail", "rsmtp"} {
		err = errors.Join(err, os.Symlink("sendmail", dir+"/"+name))
	}
	return dir, err
})

func program(t *testing.T, name string) string {
	t.Helper()
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// newSpool is a spool directory without a runner.
func newSpool(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "spool") // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	err = errors.Join(os.Chmod(dir, 0o755), os.Mkdir(dir+"/drop", 0o700), unix.Chmod(dir+"/drop", 0o3733))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// call is one call of sendmail.
type call struct {
	name  string // "" is sendmail
	args  []string
	stdin string
	// in replaces stdin; with it the test feeds the program itself.
	in  *os.File
	env []string // beside POSTINO_SPOOL
	// shell is a command line in which $0 and $@ are the program and its args.
	shell string
	uid   uint32 // 0 is ourselves
	spool string
}

// result is what came of it.
type result struct {
	code           int // -1 when a signal ended it
	signal         syscall.Signal
	stdout, stderr string
	mail           *mail // nil when drop/ is empty
}

// patience is how long a program may take before the test fails; it is never
// waited for when all is well, and outlasts a machine that stands still.
const patience = 3 * time.Minute

// command makes c ready to start.
func (c *call) command(t *testing.T) *exec.Cmd {
	t.Helper()
	if c.name == "" {
		c.name = "sendmail"
	}
	if c.spool == "" {
		c.spool = newSpool(t)
	}
	path, args := program(t, c.name), c.args
	if c.shell != "" {
		path, args = "/bin/sh", append([]string{"-c", c.shell, path}, args...)
	}
	cmd := standstill.Command(t, patience, path, args...)
	cmd.Env = append([]string{spoolVariable + "=" + c.spool}, c.env...)
	cmd.Stdin = strings.NewReader(c.stdin)
	if c.in != nil {
		cmd.Stdin = c.in
	}
	if c.uid != 0 {
		if os.Geteuid() != 0 {
			if os.Getenv("CI") == "true" {
				t.Fatal("CI has to run as root")
			}
			t.Skip("needs root, to be somebody else")
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.uid, Gid: c.uid}}
	}
	return cmd
}

// run calls sendmail and looks at what it left.
func (c call) run(t *testing.T) result {
	t.Helper()
	cmd := c.command(t)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, syscall.EPIPE) {
		t.Fatal(err)
	}
	return result{
		code:   cmd.ProcessState.ExitCode(),
		signal: cmd.ProcessState.Sys().(syscall.WaitStatus).Signal(),
		stdout: stdout.String(),
		stderr: stderr.String(),
		mail:   readDrop(t, c.spool),
	}
}

// mail is a drop file taken apart.
type mail struct {
	sender, senderParams string
	rcpts                []string
	rcptParams           string // of the last recipient
	header               []string
	body                 string
	noAliases            bool
}

// readDrop takes the one file in drop/ apart, if there is one, and checks what
// must hold for every one of them.
func readDrop(t *testing.T, spool string) *mail {
	t.Helper()
	files, err := filepath.Glob(spool + "/drop/*")
	if err != nil || len(files) == 0 {
		return nil
	}
	if len(files) > 1 {
		t.Fatalf("drop/ holds %q; want one file", files)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	m := new(mail)
	want := "EHLO " + filepath.Base(files[0]) + ".submission.invalid"
	rest := string(text)
	size := -1
	for n := 0; size < 0; n++ {
		line, tail, ok := strings.Cut(rest, "\r\n")
		switch {
		case !ok, n == 0 && line != want, strings.ContainsAny(line, "\r\n"):
			t.Fatalf("drop file: line %q of %.500q", line, text)
		case strings.HasPrefix(line, "MAIL FROM:<"):
			m.sender, m.senderParams = cutPath(line[len("MAIL FROM:<"):])
		case strings.HasPrefix(line, "RCPT TO:<"):
			var r string
			r, m.rcptParams = cutPath(line[len("RCPT TO:<"):])
			m.rcpts = append(m.rcpts, r)
		case n == 1 && line == "NOOP no-aliases":
			m.noAliases = true
		case n > 0:
			if _, err := fmt.Sscanf(line, "BDAT %d LAST", &size); err != nil {
				t.Fatalf("drop file: line %q", line)
			}
		}
		rest = tail
	}
	if size != len(rest) || !strings.Contains(m.senderParams+" ", fmt.Sprintf("SIZE=%d ", size)) {
		t.Fatalf("drop file: BDAT %d and %q for %d octets", size, m.senderParams, len(rest))
	}
	plain := strings.ReplaceAll(rest, "\r\n", "\n")
	if strings.ContainsAny(plain, "\r\x00") || strings.Contains(strings.ReplaceAll(rest, "\r\n", ""), "\n") {
		t.Fatalf("drop file: line ends in %.500q", rest)
	}
	head, body, ok := strings.Cut(plain, "\n\n")
	if !ok {
		t.Fatalf("drop file: no blank line in %.500q", rest)
	}
	m.header, m.body = strings.Split(strings.ReplaceAll(head, "\n ", "\x00 "), "\n"), body
	return m
}

// cutPath cuts a path from the parameters behind it.
func cutPath(s string) (path, params string) {
	i := strings.LastIndexByte(s, '>')
	return s[:i], strings.TrimPrefix(s[i+1:], " ")
}

// has reports whether the header has that field, folded lines marked by NUL.
func (m *mail) has(field string) bool {
	for _, f := range m.header {
		if f == field {
			return true
		}
	}
	return false
}

// login is the envelope sender of who runs the tests.
func login(t *testing.T) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}
