package relay

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postino/config"
	"postino/delivery/relay/relaytest"
	"postino/spool"
)

// These are servers that others wrote, started by hand on this machine's loopback
// with a configuration of the test's own. Only root can do that.

// unavailable skips a test for want of something; with CI=true that is a failure.
func unavailable(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// needs are the conditions of these tests: to be root, and the program.
func needs(t *testing.T, program, pkg string) {
	t.Helper()
	if os.Geteuid() != 0 {
		unavailable(t, "only root can start %s", program)
	}
	if _, err := os.Stat(program); err != nil {
		unavailable(t, "%v: apt-get install %s", err, pkg)
	}
}

// openDir is a directory that other users may enter.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "postino-interop")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// write makes a file below dir, and the directories to it.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// daemon runs a server in the foreground, in a process group of its own that ends
// with the test, and waits until it listens.
func daemon(t *testing.T, network, address string, program string, args ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is told to end
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // it may be gone
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
		log.Close()
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial(network, address)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("%s does not listen: %v\n%s", program, err, text)
		}
	}
}

// letters are contents that say which they are, small and large ones, with all that
// may go wrong with dots, octets above 127, lines and their ends.
func letters(n int) (list []string) {
	for i, body := range []string{
		"", "\r\n", "\r\n\r\n\r\n", ".\r\n", "..\r\n.\r\n", strings.Repeat("x", 5000) + "\r\n", strings.Repeat("\xfc", 998) + "\r\n",
		" \r\n\t\r\n", "From here\r\n>From there\r\n", strings.Repeat(strings.Repeat("y", 62)+"\r\n", 1<<14), // 1 MiB
	} {
		list = append(list, fmt.Sprintf("Subject: odd %d\r\nMessage-ID: <odd%d@sender.test>\r\nDate: Wed, 25 Nov 2026 09:14:23 +0000\r\n\r\n", i, i)+body)
	}
	for i := range n {
		size := 10
		if i%10 == 9 {
			size = 5000
		}
		list = append(list, fmt.Sprintf("Subject: letter %d\r\nMessage-ID: <%d@sender.test>\r\nDate: Wed, 25 Nov 2026 09:14:23 +0000\r\n\r\n.\r\n..x\r\ngr\xc3\xbcn\r\n", i, i)+
			strings.Repeat(fmt.Sprintf(".%d 0123456789abcdef\r\n", i), size))
	}
	return list
}

// post sends letters over p, many at a time, each also to somebody who is not
// there when refused says who, and checks the replies.
func post(t *testing.T, p *pool, list []string, refused string) {
	t.Helper()
	var sends sync.WaitGroup
	for _, content := range list {
		sends.Go(func() {
			to := []string{"box@x.test"}
			if refused != "" {
				to = append(to, refused)
			}
			b := batch(content, to...)
			b.Message.EightBit = true
			replies := send(t, p, b)
			want{"2", 250, "dot", ""}.check(t, replies[0])
			if refused != "" {
				if r := replies[1]; r.Class() != spool.Permanent || r.Code/100 != 5 || r.Command != "RCPT" {
					t.Errorf("%s: %+v", refused, r)
				}
			}
		})
	}
	sends.Wait()
}

// arrived checks that the files that match pattern are the letters, once each, as
// they stood below the server's own header lines.
func arrived(t *testing.T, pattern string, list []string) {
	t.Helper()
	var files []string
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		files, _ = filepath.Glob(pattern)
		if len(files) >= len(list) || time.Now().After(end) {
			break
		}
	}
	got := map[string]int{}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, letter, _ := strings.Cut(strings.ReplaceAll(string(text), "\r\n", "\n"), "Subject: ")
		got["Subject: "+letter]++
	}
	for i, content := range list {
		if n := got[strings.ReplaceAll(content, "\r\n", "\n")]; n != 1 {
			t.Errorf("letter %d arrived %d times, of %d files", i, n, len(files))
		}
	}
}

// to is a pool for a server on a port of the loopback.
func to(t *testing.T, port int, change ...func(*peer)) *pool {
	t.Helper()
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	peer := &peer{network: "tcp", address: address, host: "127.0.0.1", policy: config.NoTLS, hello: "client.test", time: patient()}
	for _, f := range change {
		f(peer)
	}
	p := newPool(peer, 2, 1000, config.Rate{})
	t.Cleanup(p.close)
	return p
}

// Postfix takes what is sent ahead, by BDAT and by DATA, and a command at a time.
func TestInteropWithPostfix(t *testing.T) {
	t.Parallel()
	needs(t, "/usr/lib/postfix/sbin/master", "postfix")
	ca := relaytest.New(t, relaytest.Options{})
	cert, key := ca.ClientCert(t)
	for name, hidden := range map[string]string{"all": "", "DATA": "chunking", "neither": "chunking, pipelining", "TLS": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := openDir(t)
			port := freePort(t)
			write(t, dir, "etc/master.cf", fmt.Sprintf(`127.0.0.1:%d inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
proxymap unix - - n - - proxymap
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
error unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
`, port))
			write(t, dir, "etc/main.cf", fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file_prefixes = %[1]s
maillog_file = %[1]s/log
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.test
mydestination =
mynetworks = 127.0.0.0/8
local_header_rewrite_clients =
virtual_mailbox_domains = x.test
virtual_mailbox_base = %[1]s/mail
virtual_mailbox_maps = inline:{box@x.test=box/}
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
smtpd_discard_ehlo_keywords = %[2]s
smtpd_reject_unlisted_recipient = yes
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 10000
smtpd_hard_error_limit = 10000
smtpd_tls_security_level = may
smtpd_tls_cert_file = %[3]s
smtpd_tls_key_file = %[4]s
`, dir, hidden, cert, key))
			for _, sub := range []string{"queue/pid", "data", "mail"} {
				if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chown(filepath.Join(dir, "mail"), 65534, 65534); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(filepath.Join(dir, "data"), uid(t, "postfix"), 0); err != nil {
				t.Fatal(err)
			}
			etc := filepath.Join(dir, "etc")
			if out, err := exec.Command("postfix", "-c", etc, "check").CombinedOutput(); err != nil {
				t.Fatalf("postfix check: %v\n%s", err, out)
			}
			daemon(t, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), "/usr/lib/postfix/sbin/master", "-c", etc, "-d")
			list := letters(60)
			p := to(t, port)
			if name == "TLS" {
				p = to(t, port, func(p *peer) { p.policy, p.caFile = config.StartTLS, ca.CAFile() })
			}
			post(t, p, list, "nobody@x.test")
			arrived(t, filepath.Join(dir, "mail/box/new/*"), list)
		})
	}
}

// uid is that of a user of the system.
func uid(t *testing.T, name string) int {
	t.Helper()
	out, err := exec.Command("id", "-u", name).Output()
	if err != nil {
		unavailable(t, "there is no user %s", name)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Dovecot's LMTP answers for each recipient.
func TestInteropWithDovecotLMTP(t *testing.T) {
	t.Parallel()
	needs(t, "/usr/lib/dovecot/lmtp", "dovecot-lmtpd")
	dir := openDir(t)
	socket := filepath.Join(dir, "lmtp")
	write(t, dir, "users", "box@x.test:::::"+dir+"/mail/box\nother@x.test:::::"+dir+"/mail/other\n")
	conf := write(t, dir, "dovecot.conf", fmt.Sprintf(`protocols = lmtp
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = /dev/stderr
ssl = no
mail_location = maildir:~/Maildir
first_valid_uid = 1
mail_uid = 65534
mail_gid = 65534
postmaster_address = postmaster@x.test
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = passwd-file
  args = %[1]s/users
}
service lmtp {
  unix_listener %[1]s/lmtp {
    mode = 0666
  }
}
`, dir))
	if err := os.MkdirAll(filepath.Join(dir, "mail"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(dir, "mail"), 65534, 65534); err != nil {
		t.Fatal(err)
	}
	daemon(t, "unix", socket, "/usr/sbin/dovecot", "-F", "-c", conf)
	p := to(t, 0, func(p *peer) { p.network, p.address, p.host, p.lmtp = "unix", socket, socket, true })
	list := letters(40)
	post(t, p, list, "nobody@x.test")
	arrived(t, filepath.Join(dir, "mail/box/Maildir/new/*"), list)
	// Two that are there, and one whose place is not: two replies to the end.
	for i, reply := range send(t, p, batch(list[0], "other@x.test", "nobody@x.test", "box@x.test")) {
		if (reply.Class() == spool.Success) != (i != 1) {
			t.Errorf("recipient %d: %+v", i, reply)
		}
	}
}
