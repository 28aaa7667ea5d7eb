package cmd_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"postino/delivery/relay/servertest"

	"golang.org/x/sys/unix"
)

// What the runner makes has the same modes whatever umask it was started with: only
// what callers need is open to them.
func TestModesDoNotDependOnTheUmask(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		".": "drwxr-xr-x", "drop": "dgtrwx-wx-wx", "submit.sock": "Srw-rw-rw-", "control.sock": "Srw-rw-rw-",
		"spool.db": "-rw-------", "content": "drwx------", "reserve": "drwx------",
	}
	for _, umask := range []string{"000", "077", "777"} {
		_, b := plainRelay(t)
		b.spool = filepath.Join(b.dir, "new") // the runner makes it itself
		r := b.launchBy("/bin/sh", "-c", `umask "$1"; exec "$2" run`, "sh", umask, program("postino"))
		poll(t, "a runner", func() bool { return b.accepts("submit.sock") && b.accepts("control.sock") })
		b.sendmail("Subject: large\n\n"+strings.Repeat("0123456789abcdef\n", 10_000), "alice@example.org")
		b.log.await(t, "msg=finished")
		err := filepath.WalkDir(b.spool, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name, err := filepath.Rel(b.spool, path)
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			mode, known := info.Mode().String(), want[name]
			if known == "" {
				known = "-rw-------" // what only the runner knows
			}
			if mode != known {
				t.Errorf("umask %s: %s is %s, want %s", umask, name, mode, known)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		r.stop()
	}
}

// Neither a crash nor another process of the same user shows what the runner has in
// memory, and its command line and environment have nothing to hide.
func TestMemoryOfTheRunnerIsPrivate(t *testing.T) {
	t.Parallel()
	s, b := plainRelay(t)
	const password = "hunter2-canary"
	if err := os.WriteFile(filepath.Join(b.dir, "password"), []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.configure(relayTo(s.Port()) + fmt.Sprintf("username = \"u\"\npassword_file = %q\n", filepath.Join(b.dir, "password")))
	var r *runner
	if os.Geteuid() != 0 {
		r = b.launch()
	} else {
		// As an ordinary user from the start: who gives up root is not dumpable anyway.
		b.giveTo(spoolUID)
		if err := os.Chown(filepath.Join(b.dir, "password"), spoolUID, spoolUID); err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprint(spoolUID)
		r = b.launchBy(needs(t, "setpriv", "util-linux"), "--reuid", id, "--regid", id, "--clear-groups", program("postino"), "run")
	}
	poll(t, "a runner", func() bool { return b.accepts("submit.sock") })
	b.sendmail("Subject: private-canary\n\nbody-canary\n", "alice@example.org")
	poll(t, "an attempt", func() bool { return b.log.count("msg=attempt") > 0 })
	proc := fmt.Sprintf("/proc/%d/", r.cmd.Process.Pid)
	limits, err := os.ReadFile(proc + "limits")
	if err != nil || !regexp.MustCompile(`Max core file size +0 +0 `).Match(limits) {
		t.Errorf("core files: %v\n%s", err, limits)
	}
	var st unix.Stat_t
	if err := unix.Stat(proc+"environ", &st); err != nil || st.Uid != 0 {
		t.Errorf("the memory is uid %d's to read, %v; want root's", st.Uid, err)
	}
	for _, name := range []string{"cmdline", "environ", "comm"} {
		text, err := os.ReadFile(proc + name)
		if err == nil && bytes.Contains(text, []byte("canary")) {
			t.Errorf("in %s: %q", name, text)
		}
	}
	for _, text := range []string{b.log.String(), b.postino("queue"), b.postino("trace", "alice@example.org")} {
		if strings.Contains(text, password) || strings.Contains(text, "body-canary") {
			t.Errorf("it is told:\n%s", text)
		}
	}
	err = filepath.WalkDir(b.spool, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte(password)) {
			t.Errorf("%s has the password", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// Nobody listens on a network without being told to.
func TestRunnerListensOnNothingElse(t *testing.T) {
	t.Parallel()
	_, b := plainRelay(t)
	r := b.start()
	sockets := make(map[string]bool)
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", r.cmd.Process.Pid))
	if err != nil || len(fds) == 0 {
		servertest.Missing(t, "descriptors of a process of ours are not to be seen: %v", err)
	}
	for _, fd := range fds {
		if link, err := os.Readlink(fd); err == nil && strings.HasPrefix(link, "socket:[") {
			sockets[strings.Trim(link, "socket:[]")] = true
		}
	}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6", "raw"} {
		text, err := os.ReadFile("/proc/net/" + table)
		if err != nil {
			continue // a kernel without that protocol
		}
		for line := range strings.Lines(string(text)) {
			const inode = 9 // proc_net_tcp(5)
			if fields := strings.Fields(line); len(fields) > inode && sockets[fields[inode]] {
				t.Errorf("%s: %s", table, line)
			}
		}
	}
}

// An ID is good for its own uid alone: nobody claims or blocks the submission of another.
func TestSubmissionIDsOfOthersAreNobodys(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	b := newBox(t, "mode = \"hold\"\n")
	b.giveTo(spoolUID)
	b.start()
	const id = "0123456789abcdef0123456789abcdef"
	for _, uid := range []int{nobodyUID, strayUID, nobodyUID, 0} {
		conn, err := b.dialAs(uid, "submit.sock")
		if err != nil {
			t.Fatal(err)
		}
		says := fmt.Sprintf("EHLO %s.submission.invalid\r\nMAIL FROM:<u%d@web.test>\r\nRCPT TO:<a@b.test>\r\nBDAT 2 LAST\r\n\r\n", id, uid)
		if got := converse(t, conn, says); !strings.Contains(got, "queued as") {
			t.Errorf("uid %d was told %q", uid, got)
		}
	}
	senders := make(map[string]int)
	for _, m := range b.queue() {
		senders[m.Sender]++
		if m.Sender != fmt.Sprintf("u%d@web.test", m.UID) {
			t.Errorf("%s has the message of %s", m.Sender, m.ID)
		}
	}
	if len(senders) != 3 || len(b.queue()) != 3 {
		t.Errorf("%v, want one of each uid", senders)
	}
}

// converse says all of something and returns all of the answer.
func converse(t testing.TB, conn net.Conn, says string) string {
	t.Helper()
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(says)); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := got.ReadFrom(conn); err != nil {
		t.Errorf("%v after %q", err, got.String())
	}
	return got.String()
}
