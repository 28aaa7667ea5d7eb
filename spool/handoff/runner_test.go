package handoff

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postino/spool/address"
	"postino/spool/standstill"
)

// TestMain is also the program that submits as somebody else; see submitAs.
func TestMain(m *testing.M) {
	if dir := os.Getenv("HANDOFF_SUBMIT_TO"); dir != "" {
		_, dropped, err := Submit(dir, small())
		fmt.Printf("dropped=%v err=%v", dropped, err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var testID = [16]byte{0x06, 0x60, 0xe7, 0x78, 0x22, 0xb0, 0xeb, 0x7a, 0x3d, 0x73, 0xaa, 0xea, 0xef, 0x8e, 0x52, 0x40}

const testHex = "0660e77822b0eb7a3d73aaeaef8e5240"

// small is a submission with every parameter.
func small() *Submission {
	return &Submission{
		ID:     testID,
		Sender: address.Address{Local: "root"},
		Recipients: []Recipient{
			{Address: address.Address{Local: "bob", Domain: "example.net"}, Notify: []string{"SUCCESS", "DELAY"}},
			{Address: address.Address{Local: "a b", Domain: "example.com"}, Notify: []string{"SUCCESS", "DELAY"},
				OriginalType: "rfc822", Original: "a+b@c"},
			{Address: address.Address{Local: "é", Domain: "example.com"}, OriginalType: "utf-8", Original: "é=\\@c"},
		},
		Return:     "HDRS",
		EnvelopeID: "q+1 =",
		EightBit:   true,
		UTF8:       true,
		RequireTLS: true,
		Head:       []byte("Subject: t\r\n\r\n"),
		Body:       bufferOf("hello\r\n"),
	}
}

const smallWire = "EHLO " + testHex + ".submission.invalid\r\n" +
	"MAIL FROM:<root@localhost> SIZE=21 BODY=8BITMIME SMTPUTF8 REQUIRETLS RET=HDRS ENVID=q+2B1+20+3D\r\n" +
	"RCPT TO:<bob@example.net> NOTIFY=SUCCESS,DELAY\r\n" +
	"RCPT TO:<\"a b\"@example.com> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@c\r\n" +
	"RCPT TO:<é@example.com> ORCPT=utf-8;\\x{E9}\\x{3D}\\x{5C}@c\r\n" +
	"BDAT 21 LAST\r\nSubject: t\r\n\r\nhello\r\n"

func bufferOf(text string) *Buffer {
	b := NewBuffer("/nonexistent")
	if _, err := b.ReadFrom(strings.NewReader(text)); err != nil {
		panic(err)
	}
	return b
}

// newSpool is a spool directory as "postino run" makes it.
func newSpool(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "handoff") // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	newDrop(t, dir)
	return dir
}

func newDrop(t *testing.T, dir string) {
	t.Helper()
	drop := filepath.Join(dir, "drop")
	if err := os.Mkdir(drop, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(drop, dropMode); err != nil {
		t.Fatal(err)
	}
}

// dropFiles returns the names in drop/.
func dropFiles(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "drop"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// wantDrop checks that drop/ holds the one file with that content.
func wantDrop(t *testing.T, dir, content string) {
	t.Helper()
	if names := dropFiles(t, dir); len(names) != 1 || names[0] != testHex {
		t.Fatalf("drop/ holds %q; want %q alone", names, testHex)
	}
	got, err := os.ReadFile(filepath.Join(dir, "drop", testHex))
	if err != nil || string(got) != content {
		t.Errorf("drop file = %q, %v; want %q", got, err, content)
	}
}

// runner is a server on submit.sock that answers as a test tells it to.
type runner struct {
	// answer returns the reply to a command; "" closes the connection and
	// silence says nothing more. The command "" is the connection itself.
	answer func(command string) string
	// got is all that a connection brought, sent when it ends.
	got chan string
}

const silence = "silence"

// polite accepts everything.
func polite(command string) string {
	switch word, _, _ := strings.Cut(command, " "); word {
	case "":
		return "220 localhost ESMTP postino\r\n"
	case "EHLO":
		return "250-localhost\r\n250-SIZE\r\n250 CHUNKING\r\n"
	case "BDAT":
		return "250 Ok: queued as 0660E77822B0EB7A\r\n"
	}
	return "250 2.1.0 Ok\r\n"
}

// but is polite except to commands that begin with prefix.
func but(prefix, reply string) func(string) string {
	return func(command string) string {
		if prefix == "" && command == "" || prefix != "" && strings.HasPrefix(command, prefix) {
			return reply
		}
		return polite(command)
	}
}

// startRunner serves answer in the spool directory dir until the test ends.
func startRunner(t *testing.T, dir string, answer func(string) string) *runner {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(dir, socketName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, socketName), 0o666); err != nil {
		t.Fatal(err)
	}
	return serve(t, l, answer)
}

func serve(t *testing.T, l net.Listener, answer func(string) string) *runner {
	r := &runner{answer: answer, got: make(chan string, 10)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var got bytes.Buffer
			r.session(c, &got)
			c.Close()
			r.got <- got.String()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return r
}

// patience is how long a test waits before it fails, which is longer than a machine
// may stand still. Only a broken program has it waited for.
const patience = 3 * time.Minute

// heard is all that the next connection brought.
func (r *runner) heard(t *testing.T) string {
	t.Helper()
	select {
	case got := <-r.got:
		return got
	case <-time.After(patience):
		t.Fatalf("no session within %v:\n%s", patience, standstill.Here())
		return ""
	}
}

// session answers one connection and records it in got.
func (r *runner) session(c net.Conn, got *bytes.Buffer) {
	c.SetDeadline(time.Now().Add(patience))
	in := bufio.NewReader(io.TeeReader(c, got))
	command := ""
	for {
		reply := r.answer(command)
		if reply == silence {
			io.Copy(io.Discard, in)
			return
		}
		io.WriteString(c, reply)
		if reply == "" {
			return
		}
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		command = strings.TrimSuffix(line, "\r\n")
		var size int64
		if n, _ := fmt.Sscanf(command, "BDAT %d LAST", &size); n == 1 {
			if _, err := io.CopyN(io.Discard, in, size); err != nil {
				return
			}
		}
	}
}

// listenAs listens in dir as another user would, which needs root.
func listenAs(t *testing.T, dir string, uid int) net.Listener {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, socketName)}); err != nil {
		t.Fatal(err)
	}
	// The kernel notes who calls listen. The bare system call changes this thread
	// alone, unlike syscall.Setresuid.
	const keep = ^uintptr(0)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_, _, e1 := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep)
	err = unix.Listen(fd, 10)
	_, _, e2 := unix.RawSyscall(unix.SYS_SETRESUID, keep, 0, keep)
	if e1 != 0 || e2 != 0 || err != nil {
		t.Fatal(e1, e2, err)
	}
	f := os.NewFile(uintptr(fd), socketName)
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
}

const nobody = 65534

// submitAs submits small() to dir in a process of another user, and returns what
// TestMain prints.
func submitAs(t *testing.T, dir string, uid uint32) string {
	t.Helper()
	needRoot(t)
	// The test binary is in a directory closed to others; /proc leads there still.
	cmd := standstill.Command(t, patience, "/proc/self/exe")
	cmd.Dir = "/"
	cmd.Env = []string{"HANDOFF_SUBMIT_TO=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return string(text)
}
