package cmd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"postino/delivery/oauth/oauthtest"
	"postino/delivery/relay/relaytest"
	"postino/delivery/relay/servertest"
)

// account is the one that the servers of these tests know.
const account, accountPassword = "box@x.test", "Zq7-secret"

// saslServers are Postfix, which asks Dovecot who somebody is, and Dovecot itself as a
// server of submissions, which hands on to backend. Dovecot asks the issuer about access
// tokens.
type saslServers struct {
	b                   *box
	postfix, submission int // ports
	issuer              *oauthtest.Server
	backend             *relaytest.Server
	ca, cert, key       string
}

func startSASL(t testing.TB, b *box) *saslServers {
	t.Helper()
	needsRoot(t)
	needsFile(t, servertest.PostfixMaster, "postfix")
	needsFile(t, "/usr/lib/dovecot/submission", "dovecot-submissiond")
	s := &saslServers{b: b, postfix: servertest.FreePort(t), submission: servertest.FreePort(t), issuer: oauthtest.New(t, account),
		backend: relaytest.New(t, relaytest.Options{})}
	cert, key := s.backend.ClientCert(t)
	for name, from := range map[string]string{"ca.pem": s.backend.CAFile(), "cert.pem": cert, "key.pem": key} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		b.write(name, string(text))
	}
	s.ca, s.cert, s.key = filepath.Join(b.dir, "ca.pem"), filepath.Join(b.dir, "cert.pem"), filepath.Join(b.dir, "key.pem")
	s.startDovecot(t)
	s.startPostfix(t)
	return s
}

// write makes a file in the box that everybody can read.
func (b *box) write(name, text string) string {
	b.t.Helper()
	return servertest.Write(b.t, b.dir, name, text)
}

func (s *saslServers) startDovecot(t testing.TB) {
	t.Helper()
	b := s.b
	b.write("users", account+":{PLAIN}"+accountPassword+"\n")
	b.write("oauth2.conf", "introspection_mode = auth\nintrospection_url = "+s.issuer.URL+"/introspect\nusername_attribute = email\nactive_attribute = active\nactive_value = true\n")
	b.write("dovecot.conf", fmt.Sprintf(`protocols = submission
listen = 127.0.0.1
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/dovecot.log
mail_location = maildir:%[1]s/none
first_valid_uid = 1
ssl = required
ssl_cert = <%[1]s/cert.pem
ssl_key = <%[1]s/key.pem
ssl_ca = <%[1]s/ca.pem
ssl_verify_client_cert = yes
ssl_require_crl = no
auth_ssl_username_from_cert = yes
auth_failure_delay = 0
auth_mechanisms = plain login cram-md5 scram-sha-256 xoauth2 oauthbearer external
passdb {
  driver = passwd-file
  args = %[1]s/users
  mechanisms = plain login cram-md5 scram-sha-256
}
passdb {
  driver = oauth2
  args = %[1]s/oauth2.conf
  mechanisms = xoauth2 oauthbearer
}
passdb {
  driver = static
  args = nopassword=y
  mechanisms = external
}
userdb {
  driver = static
  args = uid=%[2]d gid=%[2]d home=%[1]s/none
}
service auth {
  unix_listener %[1]s/auth {
    mode = 0666
  }
}
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service submission-login {
  inet_listener submission {
    port = 0
  }
  inet_listener submissions {
    port = %[3]d
    ssl = yes
  }
}
submission_relay_host = 127.0.0.1
submission_relay_port = %[4]d
submission_relay_trusted = yes
hostname = dovecot.test
`, b.dir, spoolUID, s.submission, s.backend.Port()))
	ready := func() bool {
		return servertest.Listens("unix", filepath.Join(b.dir, "auth")) && servertest.Listens("tcp", "127.0.0.1:"+strconv.Itoa(s.submission))
	}
	servertest.Daemon(t, filepath.Join(b.dir, "dovecot.log"), ready, needs(t, "dovecot", "dovecot-core"), "-F", "-c", filepath.Join(b.dir, "dovecot.conf"))
}

func (s *saslServers) startPostfix(t testing.TB) {
	t.Helper()
	dir := s.b.dir
	ready := func() bool { return servertest.Listens("tcp", "127.0.0.1:"+strconv.Itoa(s.postfix)) }
	servertest.Postfix(t, dir, fmt.Sprintf("127.0.0.1:%d inet n - n - - smtpd\n", s.postfix), fmt.Sprintf(`mynetworks = 192.0.2.0/24
smtpd_tls_security_level = encrypt
smtpd_tls_cert_file = %[1]s/cert.pem
smtpd_tls_key_file = %[1]s/key.pem
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = %[1]s/auth
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
virtual_mailbox_domains = x.test
virtual_mailbox_maps = static:box/
`, dir), ready)
}

// relay is the table of that name for a relay that is logged in to in a way.
func (s *saslServers) relay(table string, port int, tls, auth string, lines ...string) string {
	head := fmt.Sprintf("%s\nhost = \"127.0.0.1\"\nport = %d\ntls = %q\nca_file = %q\nauth = %q\nmessages_per_connection = 1\n", table, port, tls, s.ca, auth)
	return head + strings.Join(lines, "\n") + "\n"
}

// logins are the mechanism and the user of each message that Postfix took, in order.
func (s *saslServers) logins(t testing.TB) (list []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.b.dir, "postfix.log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if _, login, found := strings.Cut(line, "sasl_method="); found {
			list = append(list, strings.TrimSpace(login))
		}
	}
	return list
}
