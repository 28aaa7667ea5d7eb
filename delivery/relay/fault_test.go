package relay

import (
	"testing"

	"postino/config"
	"postino/delivery/relay/relaytest"
	"postino/spool"
)

// Whatever keeps a relay from taking mail at all, or a mail store from being reached, is a
// fault of ours with a remedy; what is said about the mail is not.
func TestFaultsAreToldFromRefusals(t *testing.T) {
	t.Parallel()
	login := func(c *config.Relay) { c.Username, c.Password = "u", "p" }
	for _, tt := range []struct {
		name    string
		options relaytest.Options
		change  func(*config.Relay)
		fault   spool.Fault
		status  string
	}{
		{"password", relaytest.Options{Users: map[string]string{"u": "q"}}, login, spool.FaultRelay, "4.7.8"},
		{"no AUTH", relaytest.Options{}, login, spool.FaultRelay, "4.7.9"},
		{"downgrade", relaytest.Options{}, withTLS(config.StartTLS), spool.FaultRelay, "4.7.4"},
		{"certificate", relaytest.Options{TLS: relaytest.StartTLS, Cert: relaytest.Expired}, withTLS(config.StartTLS), spool.FaultRelay, "4.7.5"},
		{"roots", relaytest.Options{}, func(c *config.Relay) { c.CAFile = "/nonexistent" }, spool.FaultRelay, "4.7.5"},
		{"nobody listens", relaytest.Options{}, func(c *config.Relay) { c.Host = config.Hosts{"127.12.9.9"} }, spool.FaultNetwork, "4.4.1"},
		{"not now", relaytest.Options{Rules: []relaytest.Rule{{At: "greeting", Reply: "421 4.3.2 later"}}}, nil, spool.FaultNetwork, "4.3.2"},
		{"silence", relaytest.Options{Rules: []relaytest.Rule{{At: "greeting", Do: relaytest.Close}}}, nil, spool.FaultNetwork, "4.4.2"},
		{"who are you", relaytest.Options{Rules: []relaytest.Rule{{At: "MAIL", Reply: "530 5.7.0 Authentication required"}}}, nil, spool.FaultRelay, "4.7.0"},
		{"quota", relaytest.Options{Rules: []relaytest.Rule{{At: "dot", Reply: "550 5.4.5 Daily user sending limit exceeded"}}}, func(c *config.Relay) { c.Preset = "gmail" }, spool.FaultRelay, "4.4.5"},
		{"sender", relaytest.Options{Rules: []relaytest.Rule{{At: "dot", Reply: "554 Message rejected: Email address is not verified."}}}, func(c *config.Relay) { c.Preset = "ses" }, spool.FaultSender, "4.0.0"},
		{"the same of another", relaytest.Options{Rules: []relaytest.Rule{{At: "dot", Reply: "554 Message rejected: Email address is not verified."}}}, nil, "", "5.0.0"},
		{"greylisting", relaytest.Options{Rules: []relaytest.Rule{{At: "RCPT", Reply: "451 4.7.1 Greylisted"}}}, nil, "", "4.7.1"},
		{"unknown user", relaytest.Options{Rules: []relaytest.Rule{{At: "RCPT", Reply: "550 5.1.1 unknown"}}}, nil, "", "5.1.1"},
		{"lost in the middle", relaytest.Options{Rules: []relaytest.Rule{{At: "RCPT", Do: relaytest.Close}}}, nil, "", "4.4.2"},
		{"nothing", relaytest.Options{}, nil, "", "2.0.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := relaytest.New(t, tt.options)
			c := settings(server)
			if tt.change != nil {
				tt.change(c)
			}
			got := newRelay(t, c, patient()).Deliver(t.Context(), one())[0]
			if got.Fault != tt.fault || got.Status != tt.status || (got.Remedy == "") != (tt.fault == "") {
				t.Errorf("%+v, want %q %s", got, tt.fault, tt.status)
			}
		})
	}
	l := NewLMTP(config.Transport{Kind: config.ViaLMTP, Path: t.TempDir() + "/lmtp"}, patient(), "client.test")
	t.Cleanup(l.Close)
	if got := l.Deliver(t.Context(), one())[0]; got.Fault != spool.FaultNetwork || got.Remedy == "" {
		t.Errorf("%+v", got)
	}
}
