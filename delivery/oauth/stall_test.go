package oauth

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postino/config"
	"postino/delivery/oauth/oauthtest"
	"postino/spool/standstill"
)

// What a process of TestStandstillSpendsNoLogin has in its environment: where the token
// is, and who gives the next one.
const (
	stalledDir = "OAUTH_TEST_DIR"
	stalledURL = "OAUTH_TEST_URL"
)

// A machine that stands still during a refresh, for longer than an answer is waited for,
// loses no login: the answer that came meanwhile is read when it goes on. The refresh
// token that it was asked for with is spent.
func TestStandstillSpendsNoLogin(t *testing.T) {
	t.Parallel()
	server := oauthtest.New(t, user)
	asked, answer := make(chan struct{}, 1), make(chan struct{})
	var stalling atomic.Bool
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if stalling.Load() {
			asked <- struct{}{}
			<-answer
		}
		server.Config.Handler.ServeHTTP(w, r)
	}))
	t.Cleanup(slow.Close)
	dir := t.TempDir()
	s, r := newStore(dir), relayFor(server, config.FlowDevice)
	r.OAuth.TokenURL = slow.URL + "/token"
	if _, err := s.Login(t.Context(), r, func(Prompt) error { return nil }, nil); err != nil {
		t.Fatal(err)
	}
	age(t, s, r, time.Hour)
	stalling.Store(true)

	cmd := standstill.Command(t, patience, "/proc/self/exe", "-test.run=^TestRefreshOfAnotherProcess$", "-test.v")
	cmd.Env = append(os.Environ(), stalledDir+"="+dir, stalledURL+"="+slow.URL)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-asked
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stat := filepath.Join("/proc", fmt.Sprint(cmd.Process.Pid), "stat")
	standstill.Wait(t, patience, "a process that stands still", func() bool {
		text, err := os.ReadFile(stat)
		return err == nil && strings.Contains(string(text), ") T ")
	}, cmd.Process.Pid)
	close(answer)
	time.Sleep(stalledLimit + stalledLimit/4)
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(said.String(), "--- PASS: TestRefreshOfAnotherProcess") {
		t.Errorf("%v\n%s", err, &said)
	}
	stalling.Store(false)
	if token, err := s.Token(t.Context(), r); err != nil || !server.Takes(token.Reveal()) {
		t.Errorf("the login is lost: %v", err)
	}
	if n := server.Grants("refresh_token"); n != 1 {
		t.Errorf("%d refreshes, want 1", n)
	}
}

// stalledLimit is how long the other process waits for an answer: what it does takes a
// hundredth of that on a busy machine.
const stalledLimit = 4 * time.Second

// TestRefreshOfAnotherProcess is run by TestStandstillSpendsNoLogin.
func TestRefreshOfAnotherProcess(t *testing.T) {
	dir := os.Getenv(stalledDir)
	if dir == "" {
		t.Skip("a part of another test")
	}
	s := newStore(dir)
	s.limit = stalledLimit
	r := &config.Relay{Username: user, OAuth: config.OAuth{TokenURL: os.Getenv(stalledURL) + "/token", ClientID: oauthtest.ClientID, Flow: config.FlowDevice, Scope: "mail offline_access"}}
	if _, err := s.Token(t.Context(), r); err != nil {
		t.Error(err)
	}
}
