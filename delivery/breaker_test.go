package delivery_test

import (
	"strings"
	"testing"
	"time"

	"postino/config"
	"postino/delivery/relay/relaytest"
	"postino/spool"
	"postino/spool/spooltest"
)

// While a relay refuses our password all mail for it waits, with one alert and one
// attempt now and then; when it takes the password again everything goes, and that is
// said once.
func TestFaultOfOursShutsTheRouteUntilItIsGone(t *testing.T) {
	wrong := relaytest.Rule{At: "AUTH", Reply: "535 5.7.8 Username and Password not accepted"}
	server := relaytest.New(t, relaytest.Options{Users: map[string]string{"u": "p"}, Rules: []relaytest.Rule{wrong}})
	r := start(t, t.TempDir(), settings(server, func(c *config.Config) {
		c.Relay.Auth, c.Relay.Username, c.Relay.Password = config.AuthPlain, "u", config.Secret("p")
		c.Retry.First, c.Retry.Max = config.Duration(200*time.Millisecond), config.Duration(800*time.Millisecond)
		c.Retry.Lifetime = config.Duration(time.Millisecond) // and none of it expires
	}))
	var ids []spool.ID
	for range 200 {
		ids = append(ids, spooltest.Put(t, r.spool, content, "a@x.test"))
	}
	for _, id := range ids {
		m := r.wait(id, func(m *spool.Message) bool { return m.Attempts > 0 })
		if rcpt := m.Recipients[0]; rcpt.Status != spool.Deferred || rcpt.Reply.Fault != spool.FaultRelay || rcpt.Reply.Status != "4.7.8" || rcpt.Reply.Remedy == "" {
			t.Fatalf("%+v", rcpt)
		}
	}
	if alerts := r.runner.Alerts(); len(alerts) != 1 || alerts[0].Reply.Code != 535 || alerts[0].Sender != "" {
		t.Errorf("alerts: %+v", alerts)
	}
	probes := server.Connections()
	for server.Connections() < probes+2 { // it tries by itself
		time.Sleep(10 * time.Millisecond)
	}
	if n := server.Connections(); n > 20 {
		t.Errorf("%d connections for 200 messages", n)
	}
	server.SetRules()
	for _, id := range ids {
		if m := r.wait(id, settled); m.Recipients[0].Status != spool.Relayed || len(m.Reports) > 0 {
			t.Fatalf("%+v", m)
		}
	}
	for text, want := range map[string]int{"route shut": 1, "remedy=": 1, "level=ERROR": 1, "route open again": 1} {
		if got := strings.Count(r.log.String(), text); got != want {
			t.Errorf("%q stands %d times in the log, want %d:\n%.3000s", text, got, want, r.log)
		}
	}
	if alerts := r.runner.Alerts(); len(alerts) != 0 {
		t.Errorf("alerts in the end: %+v", alerts)
	}
}
