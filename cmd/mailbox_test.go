package cmd_test

import (
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"postino/delivery/relay/servertest"
)

// helper starts "postino mailbox serve" for each connection to a socket, as a service
// manager does, and returns the socket. What they say is in the log of the box.
func (b *box) helper() string {
	b.t.Helper()
	return b.service("mailbox.sock", 0, "mailbox", "serve")
}

// service is helper for any command of postino, run by any user.
func (b *box) service(name string, uid int, args ...string) string {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	l, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o777) // for the test of who is refused
	}
	if err != nil {
		b.t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() { b.serveOn(conn.(*net.UnixConn), uid, args...) })
		}
	})
	b.t.Cleanup(func() {
		l.Close()
		served.Wait()
	})
	return path
}

func (b *box) serveOn(conn *net.UnixConn, uid int, args ...string) {
	defer conn.Close()
	file, err := conn.File()
	if err != nil {
		b.t.Error(err)
		return
	}
	defer file.Close()
	cmd := b.command("", program("postino"), args...)
	if uid != 0 {
		cmd = as(uid, cmd)
	}
	cmd.Stdin, cmd.Stderr = file, b.log
	_ = cmd.Run() // it says in the log what was wrong
}

// someUser is a user of the system that is not root and whose group is its own.
func someUser(t testing.TB) (name string, uid, gid int) {
	t.Helper()
	u, err := user.Lookup("games")
	if err != nil {
		servertest.Missing(t, "%v", err)
	}
	uid, err = strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	if gid, err = strconv.Atoi(u.Gid); err != nil {
		t.Fatal(err)
	}
	return u.Username, uid, gid
}

// A runner without rights has mailboxes made that belong to their users, by a helper
// that is each of them in turn; who is not the runner gets nothing from it.
func TestHelperMakesMailboxesTheUsersOwn(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	const mailGroup = 8
	name, uid, gid := someUser(t)
	b := newBox(t, "")
	spool, home := filepath.Join(b.dir, "mail"), filepath.Join(b.dir, "home")
	for dir, mode := range map[string]os.FileMode{spool: 0o775 | os.ModeSetgid, home: 0o755, filepath.Join(home, name): 0o700, filepath.Join(home, "root"): 0o700} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, 0, mailGroup); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(home, name), uid, gid); err != nil {
		t.Fatal(err)
	}
	b.giveTo(spoolUID)
	socket := b.helper()
	for _, tt := range []struct {
		deliver, file string
		mode          os.FileMode
		group         int
	}{
		{"mbox:" + spool + "/{user}", spool + "/" + name, 0o660, mailGroup},
		{"maildir:" + home + "/{user}/Maildir", home + "/" + name + "/Maildir/new/*", 0o600, gid},
	} {
		b.configure("[aliases]\nfile = \"/dev/null\"\n[local]\ndeliver = \"" + tt.deliver + "\"\nhelper = \"" + socket + "\"\n")
		r := b.start()
		before := b.log.count("msg=finished")
		b.sendmail("Subject: for you\n\nFrom the test\n", "-f", "<>", name, "root", "nosuchuser")
		b.log.awaitN(t, before+1, "msg=finished")
		r.stop()
		files, err := filepath.Glob(tt.file)
		if err != nil || len(files) != 1 {
			t.Fatalf("%s: %q, %v", tt.deliver, files, err)
		}
		text, err := os.ReadFile(files[0])
		info, statErr := os.Stat(files[0])
		if err != nil || statErr != nil || !strings.Contains(string(text), "Subject: for you\n") || !strings.HasSuffix(strings.TrimRight(string(text), "\n"), "From the test") {
			t.Fatalf("%v, %v: %q", err, statErr, text)
		}
		st := info.Sys().(*syscall.Stat_t)
		if int(st.Uid) != uid || int(st.Gid) != tt.group || info.Mode() != tt.mode {
			t.Errorf("%s: %d:%d %v, want %d:%d %v", files[0], st.Uid, st.Gid, info.Mode(), uid, tt.group, tt.mode)
		}
		if files, err := filepath.Glob(strings.Replace(tt.file, name, "root", 1)); err != nil || len(files) != 1 {
			t.Errorf("root: %q, %v", files, err)
		}
	}
	stranger := exec.Command(needs(t, "python3", "python3"), "-c", `import socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(180); s.connect(sys.argv[1])
s.sendall(b'{"id":"01","recipients":["root"]}\n\0\0\0\0')
try: print(s.recv(100))
except ConnectionResetError: print(b"")`, socket)
	if out, err := as(strayUID, stranger).CombinedOutput(); err != nil || string(out) != "b''\n" {
		t.Errorf("a stranger hears %q, %v", out, err)
	}
	b.log.await(t, "is not the runner's")
}

// While nobody answers at the helper's socket, or a mailbox is missing that the runner
// must not make, mail waits.
func TestMailWaitsForItsMailbox(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	name, _, _ := someUser(t)
	b := newBox(t, "")
	b.giveTo(spoolUID)
	boxes := filepath.Join(b.dir, "mail")
	if err := os.Mkdir(boxes, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(boxes, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, helper := range []string{"", "helper = \"" + b.dir + "/none.sock\"\n"} {
		b.configure("[aliases]\nfile = \"/dev/null\"\n[local]\ndeliver = \"mbox:" + boxes + "/{user}\"\n" + helper)
		r := b.start()
		before := b.log.count("status=deferred")
		b.sendmail("Subject: waits\n\nhello\n", name)
		b.log.awaitN(t, before+1, "status=deferred", "local.helper")
		r.stop()
	}
	if entries, err := os.ReadDir(boxes); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v", entries, err)
	}
}

// A .forward in a home that nobody else may enter is read by the helper, as the user; and
// without one, or with one that others may write, it is as the manual says.
func TestForwardIsReadAsTheUser(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	name, uid, gid := someUser(t)
	s, b := plainRelay(t)
	b.giveTo(spoolUID)
	home := filepath.Join(b.dir, "home", name)
	if err := os.MkdirAll(home, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(home, ".forward")
	if err := os.WriteFile(file, []byte("alice@example.org\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, home} {
		if err := os.Chown(path, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(home, 0o700); err != nil {
		t.Fatal(err)
	}
	homes := filepath.Dir(home)
	b.configure("[aliases]\nfile = \"/dev/null\"\nforward = \"" + homes + "/{user}/.forward\"\n[local]\ndeliver = \"maildir:" + homes + "/{user}/Maildir\"\nhelper = \"" +
		b.helper() + "\"\n" + relayTo(s.Port()))
	b.start()
	b.sendmail("Subject: forwarded\n\nhi\n", name)
	b.log.await(t, "msg=finished")
	if m := messageWith(t, s, "forwarded"); m == nil || strings.Join(m.To, " ") != "alice@example.org" {
		t.Errorf("%+v", m)
	}
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	b.sendmail("Subject: waits\n\nhi\n", name)
	b.log.await(t, "status=deferred", "may be written by others")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	b.sendmail("Subject: stays\n\nhi\n", name)
	b.log.await(t, "status=delivered")
	if files, err := filepath.Glob(home + "/Maildir/new/*"); err != nil || len(files) != 1 {
		t.Errorf("%q, %v", files, err)
	}
}
