package oauth

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"postino/config"
	"postino/delivery/oauth/oauthtest"
)

// State is what the store would use: the token it has or the one that somebody has
// stored since, and what came of the last refresh; and no token is in it.
func TestStateIsWhatIsUsed(t *testing.T) {
	t.Parallel()
	server := oauthtest.New(t, user)
	s, r := newStore(t.TempDir()), relayFor(server, config.FlowDevice)
	r.Host, r.Port = config.Hosts{"smtp.x.test"}, 587
	want := func(login string, problem bool) {
		t.Helper()
		st, err := s.State(t.Context(), r, time.Now())
		if err != nil || st.Login != login || (st.Problem != "") != problem || st.Good() != (st.Remedy == "") || st.Account != user || st.Hop != "relay smtp.x.test:587" {
			t.Errorf("%+v, %v; want %s", st, err, login)
		}
		text, err := json.Marshal(st)
		token, stored := s.Stored(r)
		if err != nil || stored == nil && strings.Contains(string(text), token.Access.Reveal()) {
			t.Errorf("%s, %v", text, err)
		}
	}
	want(LoginMissing, false)
	if _, err := s.Login(t.Context(), r, func(Prompt) error { return nil }, nil); err != nil {
		t.Fatal(err)
	}
	want(LoginOK, false)
	if _, err := s.Token(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	age(t, s, r, time.Hour) // as another process would store it
	want(LoginExpired, false)
	server.Say(oauthtest.Answer{Status: 503})
	if _, err := s.Token(t.Context(), r); err == nil {
		t.Fatal("no error")
	}
	want(LoginExpired, true)
	for range 2 { // the second time the store knows the file
		write(t, s.path(r), "{")
		want(LoginDamaged, false)
	}
	if err := os.Remove(s.path(r)); err != nil {
		t.Fatal(err)
	}
	want(LoginMissing, false)

	r.OAuth.Flow = config.FlowClient
	want(LoginNone, false)
}

// A refresh that takes long keeps nobody waiting who asks.
func TestStateWaitsForNoRefresh(t *testing.T) {
	t.Parallel()
	server := oauthtest.New(t, user)
	s, r := loggedIn(t, server)
	r.Host = config.Hosts{"smtp.x.test"}
	a := s.account(r)
	<-a.turn // somebody is at it
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if st, err := s.State(ctx, r, time.Now()); err != nil || st.Login != LoginOK || ctx.Err() != nil {
		t.Errorf("%+v, %v", st, err)
	}
}
