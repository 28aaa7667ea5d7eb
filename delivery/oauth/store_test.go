package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postino/config"
	"postino/delivery/oauth/oauthtest"
)

const user = "box@x.test"

// relayFor is a relay with an account at server.
func relayFor(server *oauthtest.Server, flow config.Flow) *config.Relay {
	return &config.Relay{Username: user, OAuth: config.OAuth{
		TokenURL: server.URL + "/token", DeviceURL: server.URL + "/device", AuthURL: server.URL + "/auth",
		ClientID: oauthtest.ClientID, Flow: flow, Scope: "mail offline_access",
	}}
}

// patience is how long a test waits for what has to come, so that a broken program ends
// it instead of hanging it. No stall of the machine comes near it.
const patience = 2 * time.Minute

// newStore is a Store for which a second of an interval is a millisecond, and that waits
// for any answer.
func newStore(dir string) *Store {
	s := New(filepath.Join(dir, Dir))
	s.unit, s.limit = time.Millisecond, patience
	return s
}

// loggedIn is a Store in which somebody has logged in at server.
func loggedIn(t *testing.T, server *oauthtest.Server) (*Store, *config.Relay) {
	t.Helper()
	s, r := newStore(t.TempDir()), relayFor(server, config.FlowDevice)
	if _, err := s.Login(t.Context(), r, func(Prompt) error { return nil }, nil); err != nil {
		t.Fatal(err)
	}
	return s, r
}

// age makes the stored token older, so that it has ended or is due.
func age(t *testing.T, s *Store, r *config.Relay, by time.Duration) {
	t.Helper()
	token, err := s.Stored(r)
	if err != nil {
		t.Fatal(err)
	}
	token.Issued, token.Expires = token.Issued.Add(-by), token.Expires.Add(-by)
	if err := s.keep(t.Context(), r, token); err != nil {
		t.Fatal(err)
	}
}

// A token that is good is shown as it is, by this process and by the next; one that has
// ended is refreshed, each time with the refresh token that came last.
func TestTokenIsRefreshedWithTheNewestRefreshToken(t *testing.T) {
	t.Parallel()
	server := oauthtest.New(t, user)
	s, r := loggedIn(t, server)
	seen := map[config.Secret]bool{}
	for n := range 4 {
		token, err := s.Token(t.Context(), r)
		if err != nil || !server.Takes(token.Reveal()) || seen[token] {
			t.Fatalf("token %d: %v", n, err)
		}
		seen[token] = true
		again, err := newStore(filepath.Dir(s.dir)).Token(t.Context(), r) // after a crash
		if err != nil || again != token {
			t.Errorf("token %d, of another process: %v", n, err)
		}
		age(t, s, r, time.Hour)
	}
	if n := server.Grants("refresh_token"); n != 3 {
		t.Errorf("%d refreshes, want 3", n)
	}
	// A provider that gives no new refresh token means the old one.
	before, _ := s.Stored(r)
	server.Say(oauthtest.Answer{Status: 200, Body: `{"access_token":"a"}`})
	if token, err := s.Token(t.Context(), r); token != "a" {
		t.Error(err)
	}
	if after, err := s.Stored(r); err != nil || after.Refresh != before.Refresh || after.Refresh == "" {
		t.Errorf("the refresh token is lost: %v", err)
	}
}

// What the provider does not refresh is tried again less and less often while there is
// no mail.
func TestVainRefreshesBecomeRare(t *testing.T) {
	t.Parallel()
	server := oauthtest.New(t, user)
	s, r := loggedIn(t, server)
	age(t, s, r, time.Hour)
	a := s.account(r)
	wait := refreshPause
	for range 4 {
		server.Say(oauthtest.Answer{Status: 503})
		a.tried = time.Time{}
		if _, err := s.Token(t.Context(), r); err == nil {
			t.Fatal("no error")
		}
		for since, want := range map[time.Duration]bool{wait: false, 2*wait + time.Second: true} {
			a.tried = time.Now().Add(-since)
			if s.worthAsking(r) != want {
				t.Errorf("%v after a refresh in vain: want %v", since, want)
			}
		}
		wait *= 2
	}
	a.tried = time.Time{}
	if token, err := s.Token(t.Context(), r); err != nil || !server.Takes(token.Reveal()) || a.vain != 0 {
		t.Errorf("when the provider is back: %v", err)
	}
}

// Of many connections that find the token ended one refreshes it, in whatever process:
// who used a refresh token twice would lose the login.
func TestManyRefreshOnce(t *testing.T) {
	t.Parallel()
	server := oauthtest.New(t, user)
	s, r := loggedIn(t, server)
	age(t, s, r, time.Hour)
	other := newStore(filepath.Dir(s.dir))
	var all sync.WaitGroup
	for n := range 40 {
		all.Go(func() {
			store := s
			if n%2 == 0 {
				store = other
			}
			if token, err := store.Token(t.Context(), r); err != nil || !server.Takes(token.Reveal()) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := server.Grants("refresh_token"); n != 1 {
		t.Errorf("%d refreshes, want 1", n)
	}
}

// While a token is good it is given, whatever the provider says about the next one, and
// that is not asked for all the time; when it ends, mail waits.
func TestGoodTokenOutlivesFailedRefresh(t *testing.T) {
	t.Parallel()
	server := oauthtest.New(t, user)
	s, r := loggedIn(t, server)
	first, _ := s.Stored(r)
	age(t, s, r, 55*time.Minute)
	warned := 0
	s.Warn = func(string, error) { warned++ }
	server.Say(oauthtest.Answer{Status: 503, Type: "text/html", Body: "<h1>later</h1>"})
	for range 5 {
		if token, err := s.Token(t.Context(), r); err != nil || token != first.Access {
			t.Errorf("%v", err)
		}
	}
	if n := server.Grants("refresh_token"); n != 1 || warned != 1 {
		t.Errorf("%d refreshes and %d warnings, want one each", n, warned)
	}
	age(t, s, r, 10*time.Minute)
	server.Say(oauthtest.Answer{}, oauthtest.Answer{}) // Go's client tries a lost request again
	if token, err := s.Token(t.Context(), r); err == nil || token != "" || Lasting(err) {
		t.Errorf("ended, and no provider: %v", err)
	}
}

// When the provider has taken the login back, the operator is told to log in again, and
// that is enough, without a restart.
func TestNewLoginMendsARevokedOne(t *testing.T) {
	t.Parallel()
	server := oauthtest.New(t, user)
	s, r := loggedIn(t, server)
	server.Revoke()
	age(t, s, r, time.Hour)
	for range 3 {
		_, err := s.Token(t.Context(), r)
		if err == nil || !Lasting(err) || !strings.Contains(err.Error(), "postino auth login "+server.URL+"/token --account "+user) {
			t.Errorf("got %v", err)
		}
		if err != nil && strings.Contains(err.Error(), "refresh-") {
			t.Errorf("the provider quotes the refresh token, and so do we: %v", err)
		}
	}
	if n := server.Grants("refresh_token"); n != 1 {
		t.Errorf("asked %d times with a token that is no good, want 1", n)
	}
	if _, err := newStore(filepath.Dir(s.dir)).Login(t.Context(), r, func(Prompt) error { return nil }, nil); err != nil {
		t.Fatal(err)
	}
	if token, err := s.Token(t.Context(), r); err != nil || !server.Takes(token.Reveal()) {
		t.Errorf("after a new login: %v", err)
	}
	if found, err := s.Logout(t.Context(), r); !found || err != nil {
		t.Errorf("logout: %v, %v", found, err)
	}
	if _, err := s.Token(t.Context(), r); !errors.Is(err, ErrLogin) || !Lasting(err) {
		t.Errorf("after logout: %v", err)
	}
}

// A token that a relay refuses is replaced once, by all who had it together.
func TestRefusedTokenIsReplacedOnce(t *testing.T) {
	t.Parallel()
	server := oauthtest.New(t, user)
	s, r := loggedIn(t, server)
	refused, err := s.Token(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	server.RevokeAccess()
	var next config.Secret
	for range 3 {
		if next, err = s.Renew(t.Context(), r, refused); err != nil || !server.Takes(next.Reveal()) {
			t.Fatal(err)
		}
	}
	if _, err := s.Renew(t.Context(), r, next); err == nil {
		t.Error("a relay that takes no token at all has us ask again and again")
	}
	if n := server.Grants("refresh_token"); n != 1 {
		t.Errorf("%d refreshes, want 1", n)
	}
}

// Client credentials need no login; nothing of them is stored, and a wrong secret is the
// operator's to mend.
func TestClientCredentialsAreNotStored(t *testing.T) {
	t.Parallel()
	server := oauthtest.New(t, user)
	s, r := newStore(t.TempDir()), relayFor(server, config.FlowClient)
	r.OAuth.ClientSecretFile = filepath.Join(t.TempDir(), "secret")
	if _, err := s.Token(t.Context(), r); !Lasting(err) {
		t.Errorf("without the file: %v", err)
	}
	s = newStore(t.TempDir())
	write(t, r.OAuth.ClientSecretFile, "wrong\n")
	if _, err := s.Login(t.Context(), r, nil, nil); !Lasting(err) || strings.Contains(err.Error(), "wrong secret wrong") {
		t.Errorf("with a wrong secret: %v", err)
	}
	write(t, r.OAuth.ClientSecretFile, oauthtest.ClientSecret+"\n")
	for range 3 {
		if token, err := s.Token(t.Context(), r); err != nil || !server.Takes(token.Reveal()) {
			t.Error(err)
		}
	}
	if n := server.Grants("client_credentials"); n != 2 {
		t.Errorf("%d grants, want the login's and one", n)
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something is stored: %v", err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Tokens rest where only the runner's user can read them, and accounts do not meet.
func TestTokensArePrivateAndApart(t *testing.T) {
	t.Parallel()
	server := oauthtest.New(t, user)
	s, r := loggedIn(t, server)
	other := relayFor(server, config.FlowDevice)
	other.Username = "other@x.test"
	more := relayFor(server, config.FlowDevice)
	more.OAuth.Scope += " read"
	for name, r := range map[string]*config.Relay{"the other user": other, "another scope": more} {
		if _, err := s.Token(t.Context(), r); !errors.Is(err, ErrLogin) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for path, mode := range map[string]os.FileMode{s.dir: 0o700 | os.ModeDir, s.path(r): 0o600, s.path(r) + ".lock": 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	if _, err := os.Stat(s.path(r) + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a draft is left: %v", err)
	}
}

// A refresh token is not used while there is no room for its successor; one that could
// not be stored in the end is used all the same, and stored when that is possible.
func TestRefreshTokenIsNotSpentWithoutRoom(t *testing.T) {
	t.Parallel()
	server := oauthtest.New(t, user)
	s, r := loggedIn(t, server)
	age(t, s, r, time.Hour)
	if err := os.Mkdir(s.path(r)+".new", 0o700); err != nil { // where the draft should be
		t.Fatal(err)
	}
	if _, err := s.Token(t.Context(), r); err == nil || !Lasting(err) {
		t.Errorf("got %v", err)
	}
	if n := server.Grants("refresh_token"); n != 0 {
		t.Errorf("the refresh token was used %d times", n)
	}
}

// What is no token file is a missing login, and no crash.
func TestDamagedFileIsNoLogin(t *testing.T) {
	t.Parallel()
	server := oauthtest.New(t, user)
	s, r := loggedIn(t, server)
	for _, text := range []string{"", "{}", `{"access_token":"a\u0001b"}`, strings.Repeat("x", 2*maxFile)} {
		write(t, s.path(r), text)
		if _, err := newStore(filepath.Dir(s.dir)).Token(t.Context(), r); !errors.Is(err, ErrLogin) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

// Whatever an endpoint answers, there is a token or an error, soon, and nothing that was
// sent or received is in the error.
func TestHostileEndpoints(t *testing.T) {
	t.Parallel()
	for name, a := range map[string]oauthtest.Answer{
		"endless":           {Status: 200, Body: `{"access_token":"geheim","x":"` + strings.Repeat("a", 1<<20) + `"}`},
		"no JSON":           {Status: 200, Body: "access_token=geheim"},
		"another type":      {Status: 200, Body: `{"access_token":"geheim","token_type":"mac"}`},
		"a line end":        {Status: 200, Body: `{"access_token":"geheim\r\nMAIL FROM:<>","token_type":"bearer"}`},
		"a field of SASL":   {Status: 200, Body: `{"access_token":"geheim\u0001\u0001","token_type":"bearer"}`},
		"a long token":      {Status: 200, Body: `{"access_token":"` + strings.Repeat("a", maxToken+1) + `"}`},
		"no token":          {Status: 200, Body: `{"token_type":"bearer"}`},
		"a list":            {Status: 200, Body: `[]`},
		"a negative life":   {Status: 200, Body: `{"access_token":"geheim","expires_in":-1}`},
		"a redirection":     {Status: 307, Body: "/token"},
		"an error with 200": {Status: 200, Body: `{"error":"invalid_grant","error_description":"geheim` + `"}`},
		"a page":            {Status: 500, Type: "text/html", Body: "<b>geheim</b>"},
		"a wild code":       {Status: 400, Body: `{"error":"a\r\nb","error_description":"geheim"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := oauthtest.New(t, user)
			s, r := loggedIn(t, server)
			age(t, s, r, time.Hour)
			before, _ := s.Stored(r)
			server.Say(a)
			token, err := s.Token(t.Context(), r)
			if err == nil || token != "" {
				t.Fatalf("got %v", err)
			}
			if text := err.Error(); strings.Contains(text, "geheim") && a.Status != 200 || strings.ContainsAny(text, "\r\n\x01") || len(text) > 1000 ||
				strings.Contains(text, before.Refresh.Reveal()) {
				t.Errorf("got %q", text)
			}
			if after, _ := s.Stored(r); after != before {
				t.Error("the token that was stored is another")
			}
		})
	}
}

// An endpoint that TLS does not prove gets nothing.
func TestEndpointMustBeWhoItSays(t *testing.T) {
	t.Parallel()
	server := oauthtest.New(t, user)
	s, r := loggedIn(t, server)
	age(t, s, r, time.Hour)
	r2 := *r
	r2.OAuth.TokenURL = "https://" + strings.TrimPrefix(server.URL, "http://") + "/token"
	token, _ := s.Stored(r)
	if err := s.keep(t.Context(), &r2, token); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Token(t.Context(), &r2); err == nil || len(server.Requests()) != 2 {
		t.Errorf("got %v after %d requests", err, len(server.Requests()))
	}
}

// A time is a number or text, and bounded.
func TestSeconds(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"3600": "1h0m0s", `"3600"`: "1h0m0s", "1e300": "8760h0m0s", "59.9": "59s", "null": "0s"} {
		var got struct{ S seconds }
		if err := json.Unmarshal(fmt.Appendf(nil, `{"s":%s}`, text), &got); err != nil || (time.Duration(got.S)*time.Second).String() != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}

// Who waits for somebody else's refresh gives up when he is told to.
func TestWaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	server := oauthtest.New(t, user)
	s, r := loggedIn(t, server)
	a := s.account(r)
	<-a.turn
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Token(ctx, r); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// An answer is a token that can be shown, or nothing.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"access_token":"a","token_type":"Bearer","expires_in":"3600","refresh_token":"r"}`))
	f.Add([]byte(`{"device_code":"a","user_code":"B C","verification_uri":"https://x/y","interval":"7","expires_in":1e99}`))
	f.Add([]byte(`{"error":"slow_down"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		now := time.Now()
		if token, err := parseToken(body, now); err == nil && (!isToken(token.Access.Reveal()) || !token.Expires.IsZero() && (token.Expires.Before(now) || token.life() > maxLifetime)) {
			t.Errorf("%q: %v", body, token)
		}
		if d, err := parseDevice(body, now); err == nil && (d.interval < 1 || d.interval > maxInterval || d.Expires.After(now.Add(codeTime)) || !isPage(d.URL) || len(d.Code) > maxCode) {
			t.Errorf("%q: %+v", body, d)
		}
		if e := refusal(400, body, nil); e == nil || strings.ContainsAny(e.Error(), "\r\n\x00\x1b") {
			t.Errorf("%q: %v", body, e)
		}
	})
}
