package delivery_test

import (
	"fmt"
	"strconv"
	"testing"

	"postino/config"
	"postino/delivery/dns/dnstest"
	"postino/delivery/relay/relaytest"
	"postino/spool"
	"postino/spool/spooltest"
)

// Nor do the dead domains of one user hold up the mail of another, however many they are.
func TestDeadDomainsOfOneUserSlowNobodyElse(t *testing.T) {
	zone := dnstest.Zone{
		"mx1.test. A": {"mx1.test. 60 A 127.13.1.1"}, "mx2.test. A": {"mx2.test. 60 A 127.13.1.2"},
		"x.test. MX": {"x.test. 60 MX 1 mx2.test."},
	}
	const domains = 10
	for i := range domains {
		name := fmt.Sprintf("dead%d.test.", i)
		zone[name+" MX"] = []string{name + " 60 MX 1 mx1.test."}
	}
	names := dnstest.Serve(t, zone)
	dead := relaytest.New(t, relaytest.Options{Listen: "127.13.1.1:0", Rules: []relaytest.Rule{{At: "greeting", Do: relaytest.Stall}}})
	live := relaytest.New(t, relaytest.Options{Listen: "127.13.1.2:" + strconv.Itoa(dead.Port())})
	r := start(t, t.TempDir(), settings(nil, func(c *config.Config) {
		c.MX.Port, c.MX.Resolver, c.MX.AllowLoopback = dead.Port(), names.Addr, true
	}))
	for i := range 200 {
		spooltest.Put(t, r.spool, content, fmt.Sprintf("a@dead%d.test", i%domains))
	}
	if n := single(r, live); n != 1 {
		t.Errorf("it was number %d", n)
	}
	dead.SetRules() // what is under way need not be waited for
	dead.Close()
}

// A domain whose exchanger accepts connections and says nothing holds up its own
// mail, however much there is, and nobody else's.
func TestDeadDomainSlowsNobodyElse(t *testing.T) {
	names := dnstest.Serve(t, dnstest.Zone{
		"dead.test. MX": {"dead.test. 60 MX 1 mx1.test."}, "mx1.test. A": {"mx1.test. 60 A 127.13.0.1"},
		"live.test. MX": {"live.test. 60 MX 1 mx2.test."}, "mx2.test. A": {"mx2.test. 60 A 127.13.0.2"},
	})
	dead := relaytest.New(t, relaytest.Options{Listen: "127.13.0.1:0", Rules: []relaytest.Rule{{At: "greeting", Do: relaytest.Stall}}})
	live := relaytest.New(t, relaytest.Options{Listen: "127.13.0.2:" + strconv.Itoa(dead.Port())})
	r := start(t, t.TempDir(), settings(nil, func(c *config.Config) {
		c.MX.Port, c.MX.Resolver, c.MX.AllowLoopback = dead.Port(), names.Addr, true
	}))
	var stuck []spool.ID
	for i := range 150 {
		stuck = append(stuck, spooltest.Put(t, r.spool, content, fmt.Sprintf("a%d@dead.test", i)))
	}
	id := spooltest.Put(t, r.spool, content, "b@live.test")
	r.wait(id, settled)
	if n := len(live.Messages()); n != 1 {
		t.Errorf("%d messages at the exchanger that works, want 1", n)
	}
	// And they are not forgotten when it says something at last.
	dead.SetRules()
	dead.Close()
	for _, id := range stuck {
		r.wait(id, func(m *spool.Message) bool { return m.Recipients[0].Attempts > 0 })
	}
}
