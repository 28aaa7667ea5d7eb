package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postino/spool/standstill"
)

// pipe is a pipe whose ends are closed when the test ends. A write that nobody reads
// fails.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	if err := w.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return r, w
}

func TestDotEndsInputThoughThePipeIsHeld(t *testing.T) {
	in, w := pipe(t)
	if _, err := io.WriteString(w, "From: a@example.org\n\na\n.\n"); err != nil {
		t.Fatal(err)
	}
	r := call{args: []string{"bob@example.net"}, in: in}.run(t)
	if r.code != 0 || r.mail == nil || r.mail.body != "a\n" {
		t.Errorf("status %d, %s, %+v; want the body up to the dot", r.code, r.stderr, r.mail)
	}
}

func TestUsageErrorComesAfterTheInput(t *testing.T) {
	for _, args := range []string{"-Z", "-i", "-f|a, b|bob@example.net"} {
		in, w := pipe(t)
		done := make(chan error)
		go func() {
			_, err := w.Write([]byte(strings.Repeat("x", 1<<20)))
			done <- errors.Join(err, w.Close())
		}()
		// The call's own copy must be the last reader, or none is missed.
		c := call{args: words(args), in: in}
		cmd := c.command(t)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		in.Close()
		if err := <-done; err != nil {
			t.Errorf("sendmail %q: the caller's write: %v; want it read", args, err)
		}
		if err := cmd.Wait(); err == nil {
			t.Errorf("sendmail %q: status 0", args)
		}
	}
}

func TestUsageErrorDoesNotWaitForEver(t *testing.T) {
	in, _ := pipe(t)
	if r := (call{args: []string{"-Z"}, in: in}).run(t); r.code != exitUsage {
		t.Errorf("status %d, %s; want %d though the pipe is held", r.code, r.stderr, exitUsage)
	}
}

func TestSignalWhileReadingLeavesNothing(t *testing.T) {
	// Tests that a shell runs in the background are to ignore SIGINT, and so would their
	// children; what is caught here is not ignored there.
	signal.Notify(make(chan os.Signal, 1), unix.SIGINT)
	defer signal.Reset(unix.SIGINT)
	for _, sig := range []syscall.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGKILL} {
		for _, size := range []int{10, 3 << 20} { // in memory; in a file
			in, w := pipe(t)
			c := call{args: []string{"-i", "bob@example.net"}, in: in}
			cmd := c.command(t)
			var stderr strings.Builder
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, "From: a@example.org\n\n"+strings.Repeat("x", size)); err != nil {
				t.Fatal(err)
			}
			waitUntilRead(t, in, cmd.Process.Pid)
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			status := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !status.Signaled() || status.Signal() != sig || stderr.Len() > 0 {
				t.Errorf("%v after %d octets: %v, said %.100q; want death by it in silence", sig, size, cmd.ProcessState, stderr.String())
			}
			if files, _ := filepath.Glob(c.spool + "/drop/*"); len(files) > 0 {
				t.Errorf("%v after %d octets: drop/ holds %q", sig, size, files)
			}
		}
	}
}

// waitUntilRead waits until the process pid has left nothing in a pipe.
func waitUntilRead(t *testing.T, r *os.File, pid int) {
	t.Helper()
	standstill.Wait(t, patience, "all of the input is read", func() bool {
		n, err := unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ)
		if err != nil {
			t.Fatal(err)
		}
		return n == 0
	}, pid)
}

func TestReadErrorIsNotAnEmptyMessage(t *testing.T) {
	dir, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	r := call{args: []string{"bob@example.net"}, in: dir}.run(t)
	if r.code != exitIO || r.mail != nil || r.stderr != "sendmail: standard input: is a directory\n" {
		t.Errorf("status %d, said %q, left %v; want %d", r.code, r.stderr, r.mail, exitIO)
	}
}

// What the caller's surroundings may be like, without any effect on the mail.
func TestOddSurroundings(t *testing.T) {
	for name, shell := range map[string]string{
		"no descriptors":    `exec "$0" "$@" <&- >&- 2>&-`,
		"empty input":       `exec "$0" "$@" </dev/null`,
		"full output":       `exec "$0" "$@" </dev/null >/dev/full 2>&1`,
		"deleted directory": `d=$(mktemp -d) && cd "$d" && rmdir "$d" && exec "$0" "$@" </dev/null`,
		"umask":             `umask 777; exec "$0" "$@" </dev/null`,
		"few descriptors":   `ulimit -n 20; exec "$0" "$@" </dev/null`,
		"ignored signals":   `trap '' INT HUP QUIT TERM PIPE; exec "$0" "$@" </dev/null`,
	} {
		r := call{args: []string{"-FX", "bob@example.net"}, shell: shell, env: []string{"PATH=/usr/bin:/bin"}}.run(t)
		if r.code != 0 || r.mail == nil || r.mail.body != "" || len(r.mail.header) != 1 {
			t.Errorf("%s: status %d, %q, %+v; want an empty message", name, r.code, r.stderr, r.mail)
		}
	}
}

func TestUserWithoutPasswordEntry(t *testing.T) {
	const uid = 54321
	r := call{args: []string{"bob@example.net"}, stdin: "Subject: t\n\nx\n", uid: uid}.run(t)
	if r.code != 0 || r.mail == nil || r.mail.sender != "uid54321@localhost" || !r.mail.has("From: uid54321") {
		t.Errorf("status %d, %s, %+v; want the sender uid54321@localhost", r.code, r.stderr, r.mail)
	}
}

func TestNotStoredIsNotZero(t *testing.T) {
	closed := newSpool(t)
	if err := os.Chmod(closed+"/drop", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		call call
		code int
		says string
	}{
		"no spool":       {call{spool: "/nonexistent/spool"}, exitCreate, "postino run"},
		"relative spool": {call{spool: "spool"}, exitCreate, "absolute"},
		"closed drop":    {call{spool: closed, uid: 54321}, exitCreate, "permission denied"},
		"file size":      {call{shell: `ulimit -f 0; exec "$0" "$@"`}, exitIO, "ulimit"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.call.args, tt.call.stdin = []string{"-i", "bob@example.net"}, plain
			r := tt.call.run(t)
			if r.code != tt.code || r.stdout != "" || r.mail != nil || !strings.Contains(r.stderr, tt.says) || strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("status %d, %q and %q, left %v; want %d and %q", r.code, r.stdout, r.stderr, r.mail, tt.code, tt.says)
			}
		})
	}
}

// Where the Go runtime gets no address space or no thread it ends the program with a
// status of its own, 2. Nothing has been taken then. 1 GiB and twenty threads are enough.
func TestWithoutRoomForTheRuntimeNothingIsTaken(t *testing.T) {
	const processes = `{ ulimit -p %d 2>/dev/null || ulimit -u %[1]d; } && exec "$0" "$@"` // dash has -p, bash has -u
	var shells []string
	for kib := 696 << 10; kib > 680<<10; kib -= 512 { // around where it begins
		shells = append(shells, fmt.Sprintf(`ulimit -v %d; exec "$0" "$@"`, kib))
	}
	for n := 1; n < 9; n++ {
		shells = append(shells, fmt.Sprintf(processes, n))
	}
	enough := []string{`ulimit -v 1048576; exec "$0" "$@"`, fmt.Sprintf(processes, 20)}
	for _, shell := range append(shells, enough...) {
		r := call{uid: 54329, shell: shell, args: []string{"-i", "bob@example.net"}, stdin: plain}.run(t)
		switch stored := r.mail != nil; {
		case stored != (r.code == 0):
			t.Errorf("%s: status %d, stored is %v: %.300q", shell, r.code, stored, r.stderr)
		case !stored && slices.Contains(enough, shell):
			t.Errorf("%s: status %d: %.300q", shell, r.code, r.stderr)
		}
	}
}

func TestNobodyReadsTheError(t *testing.T) {
	r, w := pipe(t)
	r.Close()
	c := call{args: []string{"-Z"}}
	cmd := c.command(t)
	cmd.Stderr = w
	cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != exitUsage {
		t.Errorf("%v; want status %d", cmd.ProcessState, exitUsage)
	}
}

func TestRunnersAnswerIsTheStatus(t *testing.T) {
	for _, tt := range []struct {
		replies string
		code    int
		says    string
	}{
		{"220 a\r\n250 b\r\n250 c\r\n250 d\r\n250 Ok: queued as 1A\r\n", exitOK, ""},
		{"220 a\r\n250 b\r\n250 c\r\n550 5.7.1 You may not\r\n", exitPolicy, "sendmail: refused: 550 5.7.1 You may not\n"},
		{"220 a\r\n250 b\r\n552 5.3.4 Too large\r\n", exitData, "sendmail: refused: 552 5.3.4 Too large\n"},
		{"220 a\r\n250 b\r\n250 c\r\n550 5.1.1 Nobody\r\n", exitData, "sendmail: refused: 550 5.1.1 Nobody\n"},
		{"220 a\r\n250 b\r\n250 c\r\n250 d\r\n554 No\r\n", exitData, "sendmail: refused: 554 No\n"},
	} {
		spool := newSpool(t)
		l, err := net.Listen("unix", spool+"/submit.sock")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			io.WriteString(c, tt.replies)
			io.Copy(io.Discard, c)
		}()
		r := call{args: []string{"bob@example.net"}, stdin: plain, spool: spool}.run(t)
		l.Close()
		if r.code != tt.code || r.stderr != tt.says || r.mail != nil {
			t.Errorf("%q: status %d, said %q, left %v; want %d and %q", tt.replies, r.code, r.stderr, r.mail, tt.code, tt.says)
		}
	}
}

func TestHelpAndVersionReadNoInput(t *testing.T) {
	for args, says := range map[string]string{
		"--help": "usage: sendmail", "--version": "postino sendmail ",
		"-d0.1": "postino sendmail ", "-d0.1|-bv|root": "postino sendmail ", "-bt|-d0": "postino sendmail ",
	} {
		in, _ := pipe(t)
		r := call{args: words(args), in: in}.run(t)
		if r.code != 0 || !strings.HasPrefix(r.stdout, says) || r.stderr != "" || r.mail != nil {
			t.Errorf("sendmail %q: status %d, said %q and %q; want %q", args, r.code, r.stdout, r.stderr, says)
		}
	}
}

func TestOtherModesAreLeftToPostino(t *testing.T) {
	for _, line := range []string{
		"mailq", "mailq|-Z", "newaliases", "hoststat", "purgestat", "runq|-x", "smtpd",
		"sendmail|-bs", "sendmail|-bs|-i|-C/etc/shadow", "sendmail|-bp", "sendmail|-b|p", "sendmail|-q", "sendmail|-q30m",
		"sendmail|-bd|-q15m", "sendmail|-bi", "sendmail|-I", "sendmail|-bv|bob", "sendmail|-bt", "sendmail|-bS", "sendmail|-be|${run{/bin/id}}",
		"sendmail|-tbz", "sendmail|-bm|-qf",
	} {
		in, _ := pipe(t)
		argv := words(line)
		record := filepath.Join(t.TempDir(), "record")
		r := call{name: argv[0], args: argv[1:], in: in, env: []string{recordVariable + "=" + record}}.run(t)
		got, err := os.ReadFile(record)
		if err != nil || !strings.HasPrefix(string(got), fmt.Sprintf("args=%q ", argv)) || r.code != 3 || r.mail != nil {
			t.Errorf("%q: status %d, %v, %s; want postino executed as that", argv, r.code, err, got)
		}
	}
}

// A link of any name is sendmail, also to postino, which knows only some names.
func TestOtherNamesAreSendmail(t *testing.T) {
	for _, name := range []string{"send-mail", "sendmail.postino", "rmail"} {
		record := filepath.Join(t.TempDir(), "record")
		r := call{name: name, args: []string{"-bp"}, env: []string{recordVariable + "=" + record}}.run(t)
		got, err := os.ReadFile(record)
		if err != nil || !strings.HasPrefix(string(got), `args=["sendmail" "-bp"] `) || r.code != 3 {
			t.Errorf("%s -bp: status %d, %v, %s; want postino executed as sendmail", name, r.code, err, got)
		}
		r = call{name: name, args: []string{"bob@example.net"}, stdin: "Subject: t\n\na\n.\nb\n"}.run(t)
		want := "a\n"
		if name == "rmail" {
			want = "a\n.\nb\n" // UUCP has no such end
		}
		if r.code != 0 || r.mail == nil || r.mail.body != want {
			t.Errorf("%s: status %d, %s, %+v; want the body %q", name, r.code, r.stderr, r.mail, want)
		}
	}
	if r := (call{name: "rsmtp", args: []string{"bob@example.net"}, stdin: plain}).run(t); r.code != exitUsage || r.mail != nil {
		t.Errorf("rsmtp: status %d, %s, %+v; want %d", r.code, r.stderr, r.mail, exitUsage)
	}
}

func TestOwnSpoolGetsARunner(t *testing.T) {
	dir := t.TempDir()
	inherited, err := os.Create(filepath.Join(dir, "inherited"))
	if err != nil {
		t.Fatal(err)
	}
	inherited.Close()
	record := filepath.Join(dir, "record")
	c := call{
		args:  []string{"bob@example.net"},
		stdin: plain,
		shell: `exec "$0" "$@" 7>` + inherited.Name(),
		env:   []string{recordVariable + "=" + record},
		spool: newSpool(t),
	}
	if r := c.run(t); r.code != 0 || r.mail == nil {
		t.Fatalf("status %d, %s", r.code, r.stderr)
	}
	want := fmt.Sprintf(`args=["postino" "run" "--until-empty"] cwd=/ leader=true spool=%s 0=/dev/null 1=/dev/null 2=/dev/null`, c.spool)
	var got []byte
	standstill.Wait(t, patience, "a runner is started", func() bool {
		got, err = os.ReadFile(record)
		return err == nil
	})
	if string(got) != want {
		t.Errorf("the runner was started as\n%s\nwant\n%s", got, want)
	}
}
