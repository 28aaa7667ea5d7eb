package cmd_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postino/delivery/oauth/oauthtest"
	"postino/spool/standstill"
)

// Postfix and Dovecot take our logins by each mechanism that they have.
func TestPostfixAndDovecotTakeEachLogin(t *testing.T) {
	t.Parallel()
	standstill.Steady(t, postfixAndDovecotTakeEachLogin)
}

func postfixAndDovecotTakeEachLogin(t testing.TB) {
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
	standstill.Steady(t, mailGoesWithALoginByDevice)
}

func mailGoesWithALoginByDevice(t testing.TB) {
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
	b.tellsWhatTheRunnerUses(t, account)

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
	standstill.Steady(t, loginByCode)
}

func loginByCode(t testing.TB) {
	issuer := oauthtest.New(t, account)
	b := newBox(t, fmt.Sprintf("[relay]\nhost = \"127.0.0.1\"\nusername = %q\n[relay.oauth]\ntoken_url = %q\nauth_url = %q\nclient_id = %q\nflow = \"code\"\n",
		account, issuer.URL+"/token", issuer.URL+"/auth", oauthtest.ClientID))
	cmd := b.command("", program("postino"), "auth", "login")
	said := newLines()
	stdin, terminal := io.Pipe()
	cmd.Stdout, cmd.Stdin = said, stdin
	cmd.WaitDelay = patience
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := limited(t, cmd, patience)
	said.await(t, issuer.URL+"/auth?")
	said.await(t, "paste it here")
	_, page, _ := strings.Cut(said.String(), issuer.URL)
	page, _, _ = strings.Cut(page, "\n")
	browser := &http.Client{Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := browser.Get(issuer.URL + page)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	fmt.Fprintf(terminal, "what?\n%s\n", response.Header.Get("Location"))
	terminal.Close()
	err = cmd.Wait()
	stop()
	if err != nil || !strings.Contains(said.String(), account+" is logged in.") {
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

// tellsWhatTheRunnerUses has the configuration say something else, which nobody has told
// the runner.
func (b *box) tellsWhatTheRunnerUses(t testing.TB, account string) {
	t.Helper()
	text, err := os.ReadFile(b.config)
	if err != nil {
		t.Fatal(err)
	}
	other := strings.ReplaceAll(string(text), account, "other@x.test")
	if err := os.WriteFile(b.config, []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := b.postino("auth", "status"); !strings.Contains(out, account+"  relay ") || !strings.Contains(out, "logged in, refreshed ") {
		t.Errorf("auth status with a runner that has not read the configuration again: %s", out)
	}
	if err := os.WriteFile(b.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// tokensArePrivate checks who can read the tokens that rest.
func (b *box) tokensArePrivate(t testing.TB) {
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
