package relay

import (
	"strings"
	"testing"

	"postino/config"
	"postino/delivery/relay/relaytest"
	"postino/spool"
)

// Check says what mail would meet, and sends none.
func TestCheckGoesAsFarAsMailCould(t *testing.T) {
	for _, tt := range []struct {
		name     string
		options  relaytest.Options
		password config.Secret
		status   string
		text     string
	}{
		{"ready", relaytest.Options{TLS: relaytest.StartTLS}, "geheim", "2.0.0", "after AUTH as alice"},
		{"password", relaytest.Options{TLS: relaytest.StartTLS}, "wrong", "4.7.8", ""},
		{"certificate", relaytest.Options{TLS: relaytest.StartTLS, Cert: relaytest.Expired}, "geheim", "4.7.5", "expired"},
		{"clock", relaytest.Options{TLS: relaytest.StartTLS, Cert: relaytest.Early}, "geheim", "4.7.5", "set the clock"},
		{"no TLS", relaytest.Options{}, "geheim", "4.7.4", "STARTTLS is not offered"},
		{"busy", relaytest.Options{Rules: []relaytest.Rule{{At: "greeting", Reply: "421 4.3.2 later"}}}, "geheim", "4.3.2", "later"},
	} {
		tt.options.Users = map[string]string{"alice": "geheim"}
		s := relaytest.New(t, tt.options)
		c := &config.Relay{Host: config.Hosts{"127.0.0.1"}, Port: s.Port(), TLS: config.StartTLS, CAFile: s.CAFile(), Auth: config.AuthAuto,
			Username: "alice", Password: tt.password, MaxConnections: 1, MessagesPerConnection: 1}
		replies := newRelay(t, c, patient()).Check(t.Context())
		r := replies[0]
		if len(replies) != 1 || r.Status != tt.status || !strings.Contains(r.Text+" -> "+r.Remedy, tt.text) || len(s.Messages()) > 0 {
			t.Errorf("%s: got %+v", tt.name, replies)
		}
		if (r.Class() == spool.Success) != strings.HasPrefix(r.TLS, "TLS1") && tt.name != "password" {
			t.Errorf("%s: TLS is %q", tt.name, r.TLS)
		}
	}
}
