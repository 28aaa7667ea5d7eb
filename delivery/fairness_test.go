package delivery_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"postino/config"
	"postino/delivery/relay/relaytest"
	"postino/spool"
	"postino/spool/spooltest"
)

// A single mail is among the next to arrive, however long the campaign of another
// uid is. Positions are counted, at a server that takes its time for each message:
// what was under way when the mail came, one for each other uid, and the mail. Run at
// full size: POSTINO_TEST_CAMPAIGN=50000.
func TestSingleMailArrivesAmongTheNextDespiteACampaign(t *testing.T) {
	const connections = 4
	// What a relay has under way: one message a connection, or, where it may be sent
	// ahead, what the server answers within half a second, but at most 32.
	one, ahead := []string{"8BITMIME", "SIZE"}, []string{"8BITMIME", "SIZE", "PIPELINING"}
	for name, tt := range map[string]struct {
		extensions []string
		underWay   int
		campaign   func(int, *spool.Message)
		change     func(*config.Config)
	}{
		"that says so":      {one, connections, func(_ int, m *spool.Message) { m.Bulk = true }, nil},
		"that does not":     {one, connections, func(int, *spool.Message) {}, nil},
		"that failed once":  {one, connections, func(_ int, m *spool.Message) { m.Recipients[0].Status = spool.Deferred }, nil},
		"of two uids, both": {one, connections, func(i int, m *spool.Message) { m.Origin.UID, m.Bulk = 33+i%2, i%4 < 2 }, nil},
		"sent ahead":        {ahead, 32 * connections, func(int, *spool.Message) {}, nil},
		// There are more attempts than the relay can have, for another route has some too.
		"of another route": {one, connections, func(int, *spool.Message) {}, func(c *config.Config) {
			c.Local.Deliver = config.LocalDelivery{Transport: config.Transport{Kind: config.ViaMaildir, Path: "/nonexistent/box"}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			server := relaytest.New(t, relaytest.Options{Extensions: tt.extensions,
				Rules: []relaytest.Rule{{At: "dot", Delay: 20 * time.Millisecond}}})
			r := campaign(t, server, connections, tt.campaign, tt.change)
			// What the relay took before it knew the server.
			taken(t, server, 25*connections)
			left, worst := r.runner.Pending(), 0
			for range 5 {
				worst = max(worst, single(r, server))
			}
			t.Logf("behind %d messages: number %d at worst", left, worst)
			if now := r.runner.Pending(); now < left/2 {
				t.Fatalf("%d messages left of %d: the campaign was too short to tell", now, left)
			}
			const others = 2
			if worst > tt.underWay+others+1 {
				t.Errorf("it was number %d of those that arrived", worst)
			}
		})
	}
}

// campaign starts a runner that finds a campaign in its spool.
func campaign(t *testing.T, server *relaytest.Server, connections int, change func(int, *spool.Message), more ...func(*config.Config)) *rig {
	t.Helper()
	dir := t.TempDir()
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s, size(t, "POSTINO_TEST_CAMPAIGN", 2000), change)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return start(t, dir, settings(server, func(c *config.Config) {
		// For a new connection the relay takes more than one message at first.
		c.Relay.MaxConnections, c.Relay.MessagesPerConnection = connections, 10_000
		for _, set := range more {
			if set != nil {
				set(c)
			}
		}
	}))
}

// single submits one mail of another uid, waits until it is sent, and returns the
// how manieth it was to arrive since.
func single(r *rig, server *relaytest.Server) int {
	r.t.Helper()
	m := spooltest.Message(r.t, "single@x.test")
	m.Origin.UID = 1000
	d, err := r.spool.NewDraft(0)
	if err == nil {
		_, err = d.Write([]byte(content))
	}
	if err != nil {
		r.t.Fatal(err)
	}
	id, err := d.Commit(m)
	if err != nil {
		r.t.Fatal(err)
	}
	before, began := len(server.Messages()), time.Now()
	r.wait(id, settled)
	r.t.Logf("sent %v after it was accepted", time.Since(began).Round(time.Millisecond))
	for at, m := range slices.Backward(server.Messages()) {
		if m.To[0] == "single@x.test" {
			return max(1, 1+at-before) // it may have been there before we looked
		}
	}
	r.t.Fatal("it is said to be sent, and has not arrived")
	return 0
}

// A bulk campaign that is stuck at the server leaves a connection for ordinary mail.
func TestBulkCampaignDoesNotHoldAllConnections(t *testing.T) {
	const connections = 4
	server := relaytest.New(t, relaytest.Options{Extensions: []string{"8BITMIME"},
		Rules: []relaytest.Rule{{At: "dot", Delay: 5 * time.Millisecond}}})
	r := campaign(t, server, connections, func(_ int, m *spool.Message) { m.Bulk = true })
	taken(t, server, 25*connections)
	said := len(server.Commands())
	server.SetRules(relaytest.Rule{At: "RCPT", Arg: "somebody@x.test", Do: relaytest.Stall})
	eventually(t, "all but one connection to be stuck", func() (any, bool) {
		stuck := 0
		for _, line := range server.Commands()[said:] {
			if strings.HasPrefix(line, "RCPT TO:<somebody@x.test>") {
				stuck++
			}
		}
		return stuck, stuck >= connections-1
	})
	time.Sleep(100 * time.Millisecond) // for the last, were it not kept
	single(r, server)
	server.Close() // what is stuck fails, or the end would wait for it
}
