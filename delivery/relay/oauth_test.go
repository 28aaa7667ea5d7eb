package relay

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"postino/config"
	"postino/delivery/oauth"
	"postino/delivery/oauth/oauthtest"
	"postino/delivery/relay/relaytest"
	"postino/spool"
)

// provided is a relay that takes the access tokens of provider, and one for it in which
// somebody has logged in, or not.
func provided(t *testing.T, provider *oauthtest.Server, loggedIn bool) (*relaytest.Server, *Relay) {
	t.Helper()
	server := relaytest.New(t, relaytest.Options{TLS: relaytest.Implicit, Users: map[string]string{"u": ""}, Bearer: provider.Takes,
		Extensions: []string{"AUTH PLAIN XOAUTH2 OAUTHBEARER"}})
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(oauthtest.ClientSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	c := settings(server, withTLS(config.Implicit), func(c *config.Relay) {
		c.Username = "u"
		c.OAuth = config.OAuth{TokenURL: provider.URL + "/token", ClientID: oauthtest.ClientID, ClientSecretFile: secret, Flow: config.FlowClient}
		if !loggedIn {
			c.OAuth.Flow = config.FlowDevice
		}
	})
	r, err := New(c, patient(), "client.test", oauth.New(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return server, r
}

// Mail goes with an access token that was fetched, once for all connections; when it was
// taken back before its end another one is fetched, and the mail goes.
func TestAccessTokenIsFetchedAndReplaced(t *testing.T) {
	provider := oauthtest.New(t, "u")
	server, r := provided(t, provider, true)
	for range 2 {
		var sends sync.WaitGroup
		for range 8 {
			sends.Go(func() { want{"2", 250, "dot", ""}.check(t, r.Deliver(t.Context(), one())[0]) })
		}
		sends.Wait()
	}
	if n := provider.Grants("client_credentials"); n != 1 {
		t.Errorf("%d tokens were fetched, want 1", n)
	}
	provider.RevokeAccess()
	r.config.MaxConnections = 1
	again := newRelay(t, r.config, patient())
	again.tokens = r.tokens
	want{"2", 250, "dot", ""}.check(t, again.Deliver(t.Context(), one())[0])
	if n := provider.Grants("client_credentials"); n != 2 {
		t.Errorf("%d tokens were fetched, want 2", n)
	}
	for _, m := range server.Messages() {
		if m.User != "u" {
			t.Errorf("from %q", m.User)
		}
	}
}

// A relay that takes no token, a login that nobody made and a provider that says no are
// the operator's to mend; one that is out of reach may come back. Nothing is sent without
// a login, and no token is in what is told.
func TestWantOfATokenDefers(t *testing.T) {
	refuse := []relaytest.Rule{{At: "AUTH", Reply: "535 5.7.8 no"}}
	for _, tt := range []struct {
		name     string
		loggedIn bool
		rules    []relaytest.Rule
		answers  []oauthtest.Answer
		want     want
		auths    int
	}{
		{"nobody logged in", false, nil, nil, want{"4.7.8", 0, "AUTH", `nobody has logged in: run "postino auth login http.* --account u"`}, 0},
		{"the relay takes none", true, refuse, nil, want{"4.7.8", 535, "AUTH", "no"}, 2},
		{"the provider takes no secret", true, nil, []oauthtest.Answer{{Status: 401, Body: `{"error":"invalid_client"}`}}, want{"4.7.8", 0, "AUTH", "invalid_client"}, 0},
		{"the provider is ill", true, nil, []oauthtest.Answer{{Status: 500}}, want{"4.4.1", 0, "AUTH", "500"}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			provider := oauthtest.New(t, "u")
			server, r := provided(t, provider, tt.loggedIn)
			server.SetRules(tt.rules...)
			provider.Say(tt.answers...)
			reply := r.Deliver(t.Context(), one())[0]
			tt.want.check(t, reply)
			if kind := map[bool]spool.Fault{true: spool.FaultNetwork, false: spool.FaultRelay}[tt.want.status == "4.4.1"]; reply.Fault != kind {
				t.Errorf("the fault is %q, want %q", reply.Fault, kind)
			}
			if reply.Class() != spool.Temporary || strings.Contains(fmt.Sprintf("%+v", reply), "access-") {
				t.Errorf("%+v", reply)
			}
			never(t, server, "^MAIL")
			if n := strings.Count(authCommands(server), "XOAUTH2"); n != tt.auths {
				t.Errorf("said AUTH %d times, want %d", n, tt.auths)
			}
		})
	}
}
