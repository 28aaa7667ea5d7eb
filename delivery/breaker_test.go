package delivery_test

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"postino/config"
	"postino/delivery/dns/dnstest"
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
	begun := time.Now()
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
	connections(t, server, server.Connections()+2) // it tries by itself
	// Those that were opened before the fault was known, and the probes since.
	if n, most := server.Connections(), 15+int(time.Since(begun)/(100*time.Millisecond)); n > most {
		t.Errorf("%d connections for 200 messages, want at most %d", n, most)
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

// connections waits until a server has had so many.
func connections(t *testing.T, server *relaytest.Server, n int) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " connections"), func() (any, bool) {
		got := server.Connections()
		return got, got >= n
	})
}

// A relay that greets with 421 has trouble of its own: its mail waits for it beyond its
// lifetime, who administers is told, and all of it goes when it greets well.
func TestRelayThatGreetsWith421IsWaitedFor(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{Rules: []relaytest.Rule{{At: "greeting", Reply: "421 4.3.2 not now"}}})
	r := start(t, t.TempDir(), settings(server, func(c *config.Config) {
		c.Retry.First, c.Retry.Max = config.Duration(200*time.Millisecond), config.Duration(800*time.Millisecond)
		c.Retry.Lifetime = config.Duration(time.Millisecond)
	}))
	id := spooltest.Put(t, r.spool, content, "a@x.test")
	m := r.wait(id, func(m *spool.Message) bool { return m.Attempts > 3 })
	if rcpt := m.Recipients[0]; rcpt.Status != spool.Deferred || rcpt.Reply.Fault != spool.FaultNetwork || rcpt.Waited != rcpt.Attempts || len(m.Reports) > 0 {
		t.Errorf("%+v", m)
	}
	alerts, hosts := r.runner.Alerts(), r.runner.Hosts()
	if len(alerts) != 1 || alerts[0].Reply.Code != 421 || alerts[0].Reply.Command != "greeting" || alerts[0].Reply.Remedy == "" {
		t.Errorf("alerts: %+v", alerts)
	}
	if len(hosts) != 1 || hosts[0].Failures == 0 || !strings.Contains(hosts[0].Error, "421") {
		t.Errorf("hosts: %+v", hosts)
	}
	server.SetRules()
	if m := r.wait(id, settled); m.Recipients[0].Status != spool.Relayed {
		t.Errorf("%+v", m)
	}
}

// A network that closes the port of mail exchangers is told from hosts that are down:
// that is said once, no mail expires for it, and it is said when it is over.
func TestClosedPortIsSaidOnce(t *testing.T) {
	zone := dnstest.Zone{}
	for _, i := range []string{"1", "2", "3", "4"} {
		zone["d"+i+".test. A"] = []string{"d" + i + ".test. 60 A 127.13.1." + i}
	}
	names := dnstest.Serve(t, zone)
	server := relaytest.New(t, relaytest.Options{Listen: "127.13.1.4:0"})
	port := server.Port()
	r := start(t, t.TempDir(), settings(nil, func(c *config.Config) {
		c.MX.Port, c.MX.Resolver, c.MX.AllowLoopback = port, names.Addr, true
	}))
	var ids []spool.ID
	for _, i := range []string{"1", "2", "3"} {
		ids = append(ids, spooltest.Put(t, r.spool, content, "a@d"+i+".test"))
	}
	r.logged("route shut")
	for _, id := range ids {
		r.wait(id, func(m *spool.Message) bool { return m.Recipients[0].Reply.Fault == spool.FaultPort })
	}
	if alerts := r.runner.Alerts(); len(alerts) != 1 || alerts[0].Hop != "mx" || !strings.Contains(alerts[0].Reply.Remedy, "smarthost") {
		t.Errorf("%+v", alerts)
	}
	r.wait(spooltest.Put(t, r.spool, content, "a@d4.test"), settled)
	r.logged("route open again")
	if n := strings.Count(r.log.String(), "route shut"); n != 1 || len(r.runner.Alerts()) != 0 {
		t.Errorf("said %d times; in the end %+v", n, r.runner.Alerts())
	}
}

// A mail exchanger that greets with 421 was reached: that counts as an attempt like any
// other reply, and as nothing about the network, so that all mail comes to an end, be it
// for such a one or for one that is down beside them.
func TestExchangersThatGreetWith421AreReached(t *testing.T) {
	zone := dnstest.Zone{}
	for _, i := range []string{"1", "2", "3", "4"} {
		zone["d"+i+".test. A"] = []string{"d" + i + ".test. 60 A 127.13.2." + i}
	}
	names := dnstest.Serve(t, zone)
	port := 0
	for i := range 3 {
		port = relaytest.New(t, relaytest.Options{Listen: fmt.Sprintf("127.13.2.%d:%d", i+1, port), Rules: []relaytest.Rule{
			{At: "greeting", Reply: "421 4.7.0 your address is not welcome"},
		}}).Port()
	}
	r := start(t, t.TempDir(), settings(nil, func(c *config.Config) {
		c.MX.Port, c.MX.Resolver, c.MX.AllowLoopback = port, names.Addr, true
		c.Retry.First, c.Retry.Max = config.Duration(100*time.Millisecond), config.Duration(200*time.Millisecond)
		c.Retry.Lifetime = config.Duration(50 * time.Millisecond)
	}))
	var ids []spool.ID
	for _, i := range []string{"1", "2", "3"} {
		ids = append(ids, spooltest.Put(t, r.spool, content, "a@d"+i+".test"))
	}
	for _, id := range ids {
		r.wait(id, func(m *spool.Message) bool { return m.Attempts > 0 })
	}
	for _, id := range append(ids, spooltest.Put(t, r.spool, content, "a@d4.test")) {
		m := r.wait(id, settled)
		if rcpt := m.Recipients[0]; rcpt.Status != spool.Failed || rcpt.Reply.Status != "4.4.7" || rcpt.Waited != 0 || len(m.Reports) != 1 {
			t.Errorf("%+v", m)
		}
	}
	if alerts := r.runner.Alerts(); len(alerts) != 0 {
		t.Errorf("%+v", alerts)
	}
}

// What a relay has against one sender holds up his mail alone; of two routes over one
// relay the user name that is wrong holds up its own.
func TestFaultHoldsUpNobodyElse(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{Users: map[string]string{"good": "p"}, Rules: []relaytest.Rule{
		{At: "MAIL", Arg: "sender@", Reply: "550 5.7.60 Client does not have permissions to send as this sender"},
	}})
	account := func(name string) *config.Relay {
		return &config.Relay{
			Host: config.Hosts{server.Host()}, Port: server.Port(), TLS: config.NoTLS, Auth: config.AuthPlain, Username: name, Password: "p",
			MaxConnections: 2, MessagesPerConnection: 10,
		}
	}
	r := start(t, t.TempDir(), settings(nil, func(c *config.Config) {
		c.Relay = account("good")
		c.Routes = []config.Route{{Recipients: []string{"@bad.test"}, Relay: account("bad")}}
	}))
	bad := spooltest.Put(t, r.spool, content, "a@bad.test")
	waits := spooltest.Put(t, r.spool, content, "a@x.test")
	for id, fault := range map[spool.ID]spool.Fault{bad: spool.FaultRelay, waits: spool.FaultSender} {
		r.wait(id, func(m *spool.Message) bool { return m.Recipients[0].Reply.Fault == fault })
	}
	m := spooltest.Message(t, "a@x.test")
	m.Sender.Local = "other"
	d, err := r.spool.NewDraft(0)
	if err == nil {
		_, err = io.WriteString(d, content)
	}
	if err != nil {
		t.Fatal(err)
	}
	id, err := d.Commit(m)
	if err != nil {
		t.Fatal(err)
	}
	r.wait(id, settled)
	var ways []string
	for _, a := range r.runner.Alerts() {
		ways = append(ways, strings.TrimPrefix(a.Hop, "relay "+server.Addr())+" "+a.Sender)
	}
	slices.Sort(ways)
	if want := []string{" as bad ", " as good sender@example.org"}; !slices.Equal(ways, want) {
		t.Errorf("shut: %q, want %q", ways, want)
	}
}

// Whoever hears of failures hears of a route that is shut, by another one, and once; by
// the route itself nothing is sent about it.
func TestOperatorHearsOfAShutRouteByAnother(t *testing.T) {
	shut := relaytest.New(t, relaytest.Options{Users: map[string]string{"u": "p"}})
	other := relaytest.New(t, relaytest.Options{})
	for _, bounceTo := range []string{"ops@other.test", "ops@x.test"} {
		r := start(t, t.TempDir(), settings(shut, func(c *config.Config) {
			c.BounceTo = bounceTo
			c.Relay.Auth, c.Relay.Username, c.Relay.Password = config.AuthPlain, "u", "wrong"
			c.Routes = []config.Route{{Recipients: []string{"@other.test"}, Relay: &config.Relay{
				Host: config.Hosts{other.Host()}, Port: other.Port(), TLS: config.NoTLS, Auth: config.AuthNone, MaxConnections: 1, MessagesPerConnection: 10}}}
		}))
		for range 5 {
			r.wait(spooltest.Put(t, r.spool, content, "a@x.test"), func(m *spool.Message) bool { return m.Attempts > 0 })
		}
		id := spooltest.Put(t, r.spool, content, "b@other.test")
		r.wait(id, settled)
		if bounceTo == "ops@x.test" {
			eventually(t, "5 messages that wait", func() (any, bool) { n := r.runner.Pending(); return n, n == 5 })
			continue
		}
		r.logged("rcpt=ops@other.test")
	}
	notices := 0
	for _, m := range other.Messages() {
		if text := string(m.Data); m.From == "" && strings.Contains(text, "Subject: Mail waits: relay "+shut.Addr()) {
			notices++
			if m.To[0] != "ops@other.test" || !strings.Contains(text, "535") || !strings.Contains(text, "app password") {
				t.Errorf("%s\n%s", m.To, text)
			}
		}
	}
	if notices != 1 {
		t.Errorf("%d notices, want 1", notices)
	}
}

// The operator's word has a route that is shut tried at once, and what waits for it
// goes when that is well; else nothing is said a second time.
func TestRetryTriesAShutRouteAtOnce(t *testing.T) {
	wrong := relaytest.Rule{At: "AUTH", Reply: "535 5.7.8 no"}
	server := relaytest.New(t, relaytest.Options{Users: map[string]string{"u": "p"}, Rules: []relaytest.Rule{wrong}})
	r := start(t, t.TempDir(), settings(server, func(c *config.Config) {
		c.Relay.Auth, c.Relay.Username, c.Relay.Password = config.AuthPlain, "u", "p"
		c.Retry.First, c.Retry.Max = config.Duration(time.Hour), config.Duration(4*time.Hour)
	}))
	var ids []spool.ID
	for range 20 {
		id := spooltest.Put(t, r.spool, content, "a@x.test")
		r.wait(id, func(m *spool.Message) bool { return m.Attempts > 0 })
		ids = append(ids, id)
	}
	if n := server.Connections(); n != 1 {
		t.Errorf("%d connections before anybody said so, want 1", n)
	}
	r.runner.Retry()
	connections(t, server, 2)
	server.SetRules()
	r.runner.Doubt() // and of one message, as "postino retry ID" does
	if _, err := r.spool.Retry(ids[7], false); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		r.wait(id, settled)
	}
	if n := strings.Count(r.log.String(), "route shut"); n != 1 {
		t.Errorf("said %d times", n)
	}
}
