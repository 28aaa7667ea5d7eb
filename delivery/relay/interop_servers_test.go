package relay

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"postino/config"
	"postino/delivery/relay/relaytest"
	"postino/delivery/relay/servertest"
	"postino/spool"
)

// These are servers that others wrote, started by hand on this machine's loopback
// with a configuration of the test's own. Only root can do that.

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
	eventually(t, fmt.Sprint(len(list), " files that match ", pattern), func() (any, bool) {
		files, _ = filepath.Glob(pattern)
		return fmt.Sprint(len(files), " of them"), len(files) >= len(list)
	})
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

// listening reports whether somebody listens on a port of the loopback.
func listening(port int) func() bool {
	return func() bool { return servertest.Listens("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))) }
}

// Postfix takes what is sent ahead, by BDAT and by DATA, and a command at a time.
func TestInteropWithPostfix(t *testing.T) {
	t.Parallel()
	servertest.Needs(t, servertest.PostfixMaster, "postfix")
	ca := relaytest.New(t, relaytest.Options{})
	cert, key := ca.ClientCert(t)
	for name, hidden := range map[string]string{"all": "", "DATA": "chunking", "neither": "chunking, pipelining", "TLS": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := openDir(t)
			port := servertest.FreePort(t)
			servertest.Postfix(t, dir, fmt.Sprintf("127.0.0.1:%d inet n - n - - smtpd\n", port), fmt.Sprintf(`mynetworks = 127.0.0.0/8
virtual_mailbox_domains = x.test
virtual_mailbox_maps = inline:{box@x.test=box/}
smtpd_discard_ehlo_keywords = %s
smtpd_reject_unlisted_recipient = yes
smtpd_soft_error_limit = 10000
smtpd_hard_error_limit = 10000
smtpd_tls_security_level = may
smtpd_tls_cert_file = %s
smtpd_tls_key_file = %s
`, hidden, cert, key), listening(port))
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

// Dovecot's LMTP answers for each recipient.
func TestInteropWithDovecotLMTP(t *testing.T) {
	t.Parallel()
	servertest.Needs(t, "/usr/lib/dovecot/lmtp", "dovecot-lmtpd")
	dir := openDir(t)
	socket := filepath.Join(dir, "lmtp")
	servertest.Write(t, dir, "users", "box@x.test:::::"+dir+"/mail/box\nother@x.test:::::"+dir+"/mail/other\n")
	conf := servertest.Write(t, dir, "dovecot.conf", fmt.Sprintf(`protocols = lmtp
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
	servertest.Mkdir(t, dir, "mail", 65534)
	servertest.Daemon(t, filepath.Join(dir, "log"), func() bool { return servertest.Listens("unix", socket) }, "/usr/sbin/dovecot", "-F", "-c", conf)
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
