package delivery_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postino/config"
	"postino/delivery"
	"postino/delivery/dns/dnstest"
	"postino/delivery/relay/relaytest"
	"postino/spool"
	"postino/spool/spooltest"
)

// neighbourhood are the exchangers of the domains that five days are spent with. They
// live outside of the virtual clock, so none may keep a connection: who waits for a
// socket stops that clock.
type neighbourhood struct {
	names                                             *dnstest.Server
	greylisting, flapping, lying, resetting, ok, shut *relaytest.Server
	port                                              int
}

func settleDown(t *testing.T) *neighbourhood {
	zone := dnstest.Zone{}
	for i, name := range []string{"dead.test", "grey.test", "flap.test", "lies.test", "reset.test", "live.test", "example.org", "busy.test"} {
		host := fmt.Sprintf("mx.%s.", name)
		zone[name+". MX"] = []string{name + ". 60 MX 1 " + host}
		zone[host+" A"] = []string{fmt.Sprintf("%s 60 A 127.14.0.%d", host, []int{1, 2, 3, 4, 5, 6, 6, 7}[i])}
	}
	n := &neighbourhood{names: dnstest.Serve(t, zone)}
	listen := func(i int, rules ...relaytest.Rule) *relaytest.Server {
		s := relaytest.New(t, relaytest.Options{
			Listen: fmt.Sprintf("127.14.0.%d:%d", i, n.port), Rules: alone(rules...)})
		n.port = s.Port()
		return s
	}
	n.ok = listen(6)
	n.greylisting = listen(2, relaytest.Rule{At: "RCPT", Reply: "451 4.7.1 Greylisted"})
	n.flapping = listen(3)
	n.lying = listen(4, relaytest.Rule{At: "dot", Reply: "451 4.3.0 on second thoughts", Do: relaytest.Close})
	n.resetting = listen(5, relaytest.Rule{At: "dot", Do: relaytest.Reset})
	listen(7, relaytest.Rule{At: "greeting", Reply: "421 4.3.2 too many connections"})
	n.shut = relaytest.New(t, relaytest.Options{Users: map[string]string{"u": "p"}, Rules: []relaytest.Rule{{At: "AUTH", Reply: "535 5.7.8 no"}}})
	return n
}

// alone has a server end each connection after one message.
func alone(rules ...relaytest.Rule) []relaytest.Rule {
	for i, r := range rules {
		if r.Reply != "" {
			rules[i].Do = relaytest.Close
		}
	}
	return append(rules, relaytest.Rule{At: "idle", Do: relaytest.Close})
}

const fiveDays = 5 * 24 * time.Hour

// Five days with a domain that is dead, one that greylists, one that comes and goes, one
// that thinks better of it after the content, one that resets the connection
// then, and one that greets with 421 all the time: each message is attempted when the schedule says so and no more often, its sender
// is warned once, what fails fails after five days, and mail for others is not a second
// late. Mail for a relay with another password than ours waits, is attempted once an
// hour in all, nobody hears of it, and it goes within an hour when that is mended.
func TestFiveDaysWithBadNeighbours(t *testing.T) {
	n := settleDown(t)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := settings(nil, func(c *config.Config) {
			c.MX.Port, c.MX.Resolver, c.MX.AllowLoopback = n.port, n.names.Addr, true
			c.Retry = config.Default().Retry
			c.Routes = []config.Route{{Recipients: []string{"@shut.test"}, Relay: &config.Relay{
				Host: config.Hosts{n.shut.Host()}, Port: n.shut.Port(), TLS: config.NoTLS, Auth: config.AuthPlain, Username: "u", Password: "p",
				MaxConnections: 1, MessagesPerConnection: 1,
			}}}
		})
		runner, err := delivery.New(c, slog.New(slog.NewTextHandler(io.Discard, nil)))
		if err != nil {
			t.Fatal(err)
		}
		s := spooltest.Open(t, dir, spool.Options{Queued: runner.Queued})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- runner.Run(ctx, s) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			runner.Close()
		}()

		start := time.Now()
		put := func(domain string) spool.ID { return spooltest.Put(t, s, content, "a@"+domain+".test") }
		dead, grey, lies, reset, busy := put("dead"), put("grey"), put("lies"), put("reset"), put("busy")
		n.flapping.SetRules(alone(relaytest.Rule{At: "greeting", Reply: "421 4.3.2 back soon"})...)
		flap := put("flap")
		var live, shut []spool.ID
		for hour := 0; time.Since(start) < fiveDays+12*time.Hour; hour++ {
			if hour == 7 {
				n.flapping.SetRules(alone()...)
			}
			live = append(live, put("live"))
			if hour%10 == 0 {
				shut = append(shut, put("shut"))
			}
			time.Sleep(10 * time.Minute) // as long as that one wants us to wait
			if hour == 0 {
				n.greylisting.SetRules(alone()...)
			}
			time.Sleep(50 * time.Minute)
		}

		step := func(id spool.ID, status spool.Status, code string, least, most int, after time.Duration) {
			t.Helper()
			m, err := s.Message(id)
			if err != nil {
				t.Fatal(err)
			}
			attempts, err := s.Attempts(id)
			if err != nil {
				t.Fatal(err)
			}
			rcpt := m.Recipients[0]
			if rcpt.Status != status || rcpt.Reply.Status != code || len(attempts) < least || len(attempts) > most {
				t.Errorf("%s: %d attempts, %+v", rcpt.Address, len(attempts), rcpt)
			}
			schedule(t, rcpt.Address.String(), start, attempts)
			if end := attempts[len(attempts)-1].At.Sub(start); end < after || end > after+5*time.Hour {
				t.Errorf("%s: the last attempt after %v, want %v", rcpt.Address, end, after)
			}
		}
		// 0, 5, 15, 35, 75, 155, 315 minutes, then each 240 up to 7,200: 6 + 1 + 29 at least.
		step(dead, spool.Failed, "4.4.7", 35, 39, fiveDays)
		step(lies, spool.Failed, "4.4.7", 35, 39, fiveDays)
		step(reset, spool.Failed, "4.4.7", 35, 39, fiveDays)
		step(busy, spool.Failed, "4.4.7", 35, 39, fiveDays)
		step(grey, spool.Relayed, "2.0.0", 3, 3, 0)
		step(flap, spool.Relayed, "2.0.0", 8, 8, 7*time.Hour)
		for _, id := range live {
			m, err := s.Message(id)
			if err != nil || m.Recipients[0].Status != spool.Relayed || m.Attempts != 1 || m.Finished.Sub(m.Arrived) > time.Second {
				t.Fatalf("%+v, %v", m, err)
			}
		}
		if tried := n.shut.Connections(); tried < 5*24 || tried > 6*24 {
			t.Errorf("%d attempts at the relay with another password", tried)
		}
		if alerts := runner.Alerts(); len(alerts) != 1 || alerts[0].Since.Sub(start) > time.Minute {
			t.Errorf("alerts: %+v", alerts)
		}
		n.shut.SetRules()
		time.Sleep(70 * time.Minute)
		for _, id := range shut {
			m, err := s.Message(id)
			if err != nil || m.Recipients[0].Status != spool.Relayed || len(m.Reports) > 0 {
				t.Errorf("%+v, %v", m, err)
			}
		}
		said := map[string]int{}
		for _, m := range n.ok.Messages() {
			for _, subject := range strings.Split(string(m.Data), "\r\n") {
				if text, ok := strings.CutPrefix(subject, "Subject: "); ok && m.From == "" {
					said[strings.Fields(text)[0]]++
				}
			}
		}
		// Warned: dead, lies, reset, busy, flap. Failed: all but the last.
		if said["Still"] != 5 || said["Not"] != 4 {
			t.Errorf("reports: %v", said)
		}
	})
}

// schedule checks that attempts follow each other as they should: 5 minutes, doubled up
// to 4 hours, 10 % more or less, but that the last one may come when life ends.
func schedule(t *testing.T, whose string, start time.Time, attempts []spool.Attempt) {
	t.Helper()
	want := 5 * time.Minute
	for i := 1; i < len(attempts); i++ {
		gap := attempts[i].At.Sub(attempts[i-1].At.Add(attempts[i-1].Took))
		last := i == len(attempts)-1 && attempts[i].At.Sub(start) >= fiveDays
		if gap > want*11/10+time.Second || gap < want*9/10 && !last {
			t.Errorf("%s: %v from attempt %d to %d, want %v", whose, gap, i, i+1, want)
		}
		want = min(2*want, 4*time.Hour)
	}
}
