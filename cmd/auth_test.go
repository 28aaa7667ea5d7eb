package cmd_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postino/delivery/oauth/oauthtest"
	"postino/delivery/relay/relaytest"
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

func startSASL(t *testing.T, b *box) *saslServers {
	t.Helper()
	needsRoot(t)
	needsFile(t, "/usr/lib/postfix/sbin/master", "postfix")
	needsFile(t, "/usr/lib/dovecot/submission", "dovecot-submissiond")
	s := &saslServers{b: b, postfix: freePort(t), submission: freePort(t), issuer: oauthtest.New(t, account),
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
	path := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
	return path
}

// daemon runs a server in the foreground, in a process group of its own, until the test
// ends. What it says is in log then.
func daemon(t *testing.T, log string, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may be gone
		_ = cmd.Wait()
		if text, err := os.ReadFile(log); err == nil && t.Failed() {
			t.Logf("%s says:\n%s", program, text)
		}
	})
}

func (s *saslServers) startDovecot(t *testing.T) {
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
	daemon(t, filepath.Join(b.dir, "dovecot.log"), needs(t, "dovecot", "dovecot-core"), "-F", "-c", filepath.Join(b.dir, "dovecot.conf"))
	poll(t, "Dovecot", func() bool {
		return listens("unix", filepath.Join(b.dir, "auth")) && listens("tcp", "127.0.0.1:"+strconv.Itoa(s.submission))
	})
}

func (s *saslServers) startPostfix(t *testing.T) {
	t.Helper()
	b := s.b
	b.write("etc/master.cf", fmt.Sprintf(`127.0.0.1:%d inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
proxymap unix - - n - - proxymap
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
error unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`, s.postfix))
	b.write("etc/main.cf", fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file_prefixes = %[1]s
maillog_file = %[1]s/postfix.log
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.test
mydestination =
mynetworks = 192.0.2.0/24
smtpd_tls_security_level = encrypt
smtpd_tls_cert_file = %[1]s/cert.pem
smtpd_tls_key_file = %[1]s/key.pem
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = %[1]s/auth
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
virtual_mailbox_domains = x.test
virtual_mailbox_base = %[1]s/mail
virtual_mailbox_maps = static:box/
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
smtpd_error_sleep_time = 0
`, b.dir))
	owners := map[string]int{"queue/pid": 0, "data": userID(t, "postfix"), "mail": 65534}
	for dir, uid := range owners {
		path := filepath.Join(b.dir, dir)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, uid, 0); err != nil {
			t.Fatal(err)
		}
	}
	etc := filepath.Join(b.dir, "etc")
	if out, err := exec.Command("postfix", "-c", etc, "check").CombinedOutput(); err != nil {
		t.Fatalf("postfix check: %v\n%s", err, out)
	}
	daemon(t, filepath.Join(b.dir, "postfix.log"), "/usr/lib/postfix/sbin/master", "-c", etc, "-d")
	poll(t, "Postfix", func() bool { return listens("tcp", "127.0.0.1:"+strconv.Itoa(s.postfix)) })
}

// relay is the table of that name for a relay that is logged in to in a way.
func (s *saslServers) relay(table string, port int, tls, auth string, lines ...string) string {
	head := fmt.Sprintf("%s\nhost = \"127.0.0.1\"\nport = %d\ntls = %q\nca_file = %q\nauth = %q\nmessages_per_connection = 1\n", table, port, tls, s.ca, auth)
	return head + strings.Join(lines, "\n") + "\n"
}

// logins are the mechanism and the user of each message that Postfix took, in order.
func (s *saslServers) logins(t *testing.T) (list []string) {
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

// Postfix and Dovecot take our logins by each mechanism that they have.
func TestPostfixAndDovecotTakeEachLogin(t *testing.T) {
	t.Parallel()
	b := newBox(t, "")
	b.giveTo(spoolUID)
	s := startSASL(t, b)
	secret := b.write("secret", oauthtest.ClientSecret+"\n")
	token := fmt.Sprintf("[route.oauth]\ntoken_url = %q\nclient_id = %q\nclient_secret_file = %q\nflow = \"client_credentials\"", s.issuer.URL+"/token", oauthtest.ClientID, secret)
	name, password := fmt.Sprintf("username = %q", account), fmt.Sprintf("password = %q", accountPassword)
	var config strings.Builder
	mechanisms := []string{"plain", "login", "cram-md5", "scram-sha-256", "xoauth2", "oauthbearer", "auto"}
	for _, m := range mechanisms {
		lines := []string{fmt.Sprintf("recipients = [\"%s@x.test\"]", m), name, password}
		if strings.Contains(m, "oauth") {
			lines[2] = token
		}
		config.WriteString(s.relay("[[route]]", s.postfix, "starttls", m, lines...))
	}
	config.WriteString(s.relay("[[route]]", s.submission, "implicit", "external", `recipients = ["external@x.test"]`,
		fmt.Sprintf("cert_file = %q\nkey_file = %q", s.cert, s.key)))
	b.configure(config.String())
	if err := os.Chmod(s.key, 0o644); err != nil { // the runner is another user
		t.Fatal(err)
	}
	b.start()
	for i, m := range append(mechanisms, "external") {
		b.sendmail("Subject: by "+m+"\n\nhi\n", "-i", m+"@x.test")
		b.log.awaitN(t, i+1, "msg=finished")
		b.log.awaitN(t, i+1, "status=relayed")
	}
	want := map[string]string{"auto": "SCRAM-SHA-256"}
	got := s.logins(t)
	if len(got) != len(mechanisms) {
		t.Fatalf("logins: %q", got)
	}
	for i, m := range mechanisms {
		method := strings.ToUpper(m)
		if want[m] != "" {
			method = want[m]
		}
		if got[i] != method+", sasl_username="+account {
			t.Errorf("%s: %s", m, got[i])
		}
	}
	if n := len(s.backend.Messages()); n != 1 {
		t.Errorf("%d messages came by EXTERNAL, want 1", n)
	}
	if n := s.issuer.Grants("client_credentials"); n != 1 {
		t.Errorf("%d tokens were fetched for two routes with one account, want 1", n)
	}
	if strings.Contains(b.log.String(), "access-") {
		t.Error("a token is in the log")
	}
}

// A person logs in once; from then on mail goes with tokens that the runner refreshes.
// When the provider has taken everything back, mail waits and says what to do, and a new
// login lets it go.
func TestMailGoesWithALoginByDevice(t *testing.T) {
	t.Parallel()
	b := newBox(t, "")
	b.giveTo(spoolUID)
	s := startSASL(t, b)
	s.issuer.Pending = 1
	b.configure(s.relay("[relay]", s.postfix, "starttls", "auto", fmt.Sprintf("username = %q\n[relay.oauth]\ntoken_url = %q\ndevice_url = %q\nclient_id = %q\nscope = \"mail\"",
		account, s.issuer.URL+"/token", s.issuer.URL+"/device", oauthtest.ClientID)))
	b.start()
	send := func(n int) {
		b.sendmail("Subject: hi\n\nhi\n", "-i", "alice@x.test")
		b.log.awaitN(t, n, "status=relayed")
	}

	b.sendmail("Subject: early\n\nhi\n", "-i", "alice@x.test")
	b.log.await(t, "status=deferred", "postino auth login "+s.issuer.URL+"/token --account "+account)
	b.log.await(t, "route shut", "remedy=\"run postino auth login")
	if r := b.run(b.command("", program("postino"), "auth", "status")); r.code != 1 || !strings.Contains(r.out, "not logged in") {
		t.Errorf("auth status before: %+v", r)
	}
	out := b.postino("auth", "login", s.issuer.URL)
	for _, want := range []string{s.issuer.URL + "/enter", oauthtest.UserCode, account + " is logged in."} {
		if !strings.Contains(out, want) {
			t.Errorf("auth login says nothing of %q:\n%s", want, out)
		}
	}
	b.log.awaitN(t, 1, "status=relayed") // what waited for it
	send(2)
	s.issuer.RevokeAccess() // before its end: refused, refreshed, taken
	send(3)
	if n := s.issuer.Grants("refresh_token"); n != 1 {
		t.Errorf("%d refreshes, want 1", n)
	}
	status := b.postino("auth", "status", "--json")
	var said struct {
		Account, Login string
		Refreshing     bool
	}
	if err := json.Unmarshal([]byte(status), &said); err != nil || said.Account != account || said.Login != "ok" || !said.Refreshing {
		t.Errorf("auth status: %s, %v", status, err)
	}
	b.tokensArePrivate(t)

	before := b.log.count("status=deferred")
	s.issuer.Revoke()
	b.postino("auth", "logout")
	b.sendmail("Subject: late\n\nhi\n", "-i", "alice@x.test")
	b.log.awaitN(t, before+1, "status=deferred")
	b.postino("auth", "login", s.issuer.URL+"/token", "--account", account)
	b.log.awaitN(t, 4, "status=relayed")
	for _, login := range s.logins(t) {
		if login != "XOAUTH2, sasl_username="+account {
			t.Errorf("logged in by %s", login)
		}
	}
	shown := b.log.String() + b.postino("queue", "--json") + b.postino("trace", "--json", "alice@x.test") + b.postino("config", "show") + status
	for _, secret := range []string{"access-", "refresh-"} {
		if strings.Contains(shown, secret) {
			t.Errorf("%s… is shown", secret)
		}
	}
}

// By code a login in a terminal ends when the browser comes to this machine, or with the
// address that somebody pastes.
func TestLoginByCode(t *testing.T) {
	t.Parallel()
	issuer := oauthtest.New(t, account)
	b := newBox(t, fmt.Sprintf("[relay]\nhost = \"127.0.0.1\"\nusername = %q\n[relay.oauth]\ntoken_url = %q\nauth_url = %q\nclient_id = %q\nflow = \"code\"\n",
		account, issuer.URL+"/token", issuer.URL+"/auth", oauthtest.ClientID))
	cmd := b.command("", program("postino"), "auth", "login")
	said := newLines()
	stdin, terminal := io.Pipe()
	cmd.Stdout, cmd.Stdin = said, stdin
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said.await(t, issuer.URL+"/auth?")
	said.await(t, "paste it here")
	_, page, _ := strings.Cut(said.String(), issuer.URL)
	page, _, _ = strings.Cut(page, "\n")
	browser := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := browser.Get(issuer.URL + page)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	fmt.Fprintf(terminal, "what?\n%s\n", response.Header.Get("Location"))
	terminal.Close()
	if err := cmd.Wait(); err != nil || !strings.Contains(said.String(), account+" is logged in.") {
		t.Errorf("%v:\n%s", err, said)
	}
	if out := b.postino("auth", "status"); !strings.Contains(out, "code  logged in") {
		t.Errorf("auth status: %s", out)
	}
	if out := b.postino("auth", "logout"); !strings.Contains(out, account) {
		t.Errorf("auth logout: %s", out)
	}
	if r := b.run(b.command("", program("postino"), "auth", "logout")); r.code != 1 {
		t.Errorf("a second logout: %+v", r)
	}
}

// tokensArePrivate checks who can read the tokens that rest.
func (b *box) tokensArePrivate(t *testing.T) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(b.spool, "oauth", "*")) // the pattern is good
	if len(files) == 0 {
		t.Error("no tokens rest")
	}
	for _, file := range append(files, filepath.Join(b.spool, "oauth")) {
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm()&0o077 != 0 || info.Sys().(*syscall.Stat_t).Uid != spoolUID {
			t.Errorf("%s: %v, %v; want it for the runner's user alone", file, info, err)
		}
	}
}

func listens(network, address string) bool {
	conn, err := net.Dial(network, address)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// userID is that of a user of the system.
func userID(t *testing.T, name string) int {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		skip(t, "%v", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	return uid
}
