package relay

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postino/config"
	"postino/delivery/dns/dnstest"
	"postino/delivery/relay/relaytest"
	"postino/spool"
)

// What is known of hosts is known to the next runner too, until somebody has it
// forgotten; a file that is damaged is nothing known.
func TestMemoryOutlivesTheRunner(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "hosts.json")
	x := newExchange(t)
	x.dns.Set(dnstest.Zone{"x.test. MX": {"x.test. 60 MX 10 mx1.test."}, "mx1.test. A": x.zone["mx1.test. A"]})
	for range failuresToOpen {
		x.send("a@x.test")
	}
	if err := x.known.Save(path); err != nil {
		t.Fatal(err)
	}
	next := new(Memory)
	if err := next.Load(path); err != nil {
		t.Fatal(err)
	}
	x.Remember(next)
	x.hosts = nil // those of the one before
	x.open(t, x.config)
	x.Remember(next)
	if got := x.send("a@x.test")[0]; got.Status != "4.4.1" || !strings.Contains(got.Text, "not tried again before") || !strings.Contains(got.Text, "refused") {
		t.Errorf("%+v", got)
	}
	list := next.Hosts()
	if len(list) != 1 || list[0].Name != "mx1.test[127.12.0.1]:"+strconv.Itoa(x.config.Port) || !list[0].MX || list[0].Failures != failuresToOpen {
		t.Errorf("%+v", list)
	}
	for name, want := range map[string]int{"mx.test": 0, "127.12.0.1": 1} {
		if got := next.Forget(name); got != want {
			t.Errorf("%d hosts forgotten by %s, want %d", got, name, want)
		}
	}
	if got := x.send("a@x.test")[0]; strings.Contains(got.Text, "not tried again before") {
		t.Errorf("after it was forgotten: %+v", got)
	}
	if err := os.WriteFile(path, []byte(`{"hosts":{"a":`), 0o600); err != nil {
		t.Fatal(err)
	}
	torn := new(Memory)
	if err := torn.Load(path); err == nil || len(torn.Hosts()) != 0 {
		t.Errorf("a damaged file: %v, %v", err, torn.Hosts())
	}
}

// However many hosts there are, and however long ago, memory does not grow; what is well
// goes first.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	m, now := new(Memory), time.Now()
	m.with("old", func(h *Host) { h.Seen = now.Add(-forgetAfter - time.Hour) })
	for i := range maxHosts + 100 {
		m.with(strconv.Itoa(i), func(h *Host) {
			h.Seen = now
			if i < 10 {
				h.Failures = 1
			}
		})
	}
	list := m.Hosts()
	if len(list) > maxHosts || slices.ContainsFunc(list, func(h Host) bool { return h.Name == "old" }) {
		t.Errorf("%d hosts", len(list))
	}
	for i := range 10 {
		if !slices.ContainsFunc(list, func(h Host) bool { return h.Name == strconv.Itoa(i) }) {
			t.Errorf("host %d was forgotten, which is down", i)
		}
	}
}

// Of several relays one that is down is passed over, until it is worth a try again.
func TestRelayThatIsDownIsPassedOver(t *testing.T) {
	t.Parallel()
	down := relaytest.New(t, relaytest.Options{Listen: "127.12.1.1:0", Rules: []relaytest.Rule{{At: "greeting", Do: relaytest.Close}}})
	up := relaytest.New(t, relaytest.Options{Listen: "127.12.1.2:" + strconv.Itoa(down.Port())})
	c := settings(down)
	c.Host = config.Hosts{"127.12.1.1", "127.12.1.2"}
	r := newRelay(t, c, patient())
	known := new(Memory)
	r.Remember(known, config.Default().Retry)
	for range 5 {
		if got := r.Deliver(t.Context(), one())[0]; got.Class() != spool.Success {
			t.Errorf("%+v", got)
		}
	}
	if n := down.Connections(); n != failuresToOpen || len(up.Messages()) != 5 {
		t.Errorf("%d connections to the one that is down, %d messages at the other", n, len(up.Messages()))
	}
	down.SetRules()
	known.Forgive()
	if got := r.Deliver(t.Context(), one())[0]; got.Class() != spool.Success || len(down.Messages()) != 1 {
		t.Errorf("after it came up: %+v", got)
	}
}

// Where no mail exchanger of several can be reached, and none ever was, the port is
// taken for closed: that is nothing about the mail. One that answers, once, shows the
// contrary for good.
func TestClosedPortIsSuspected(t *testing.T) {
	t.Parallel()
	x := newExchange(t)
	zone := dnstest.Zone{}
	for i := range 5 {
		zone[fmt.Sprintf("d%d.test. A", i)] = []string{fmt.Sprintf("d%d.test. 60 A 127.12.2.%d", i, i)}
	}
	x.dns.Set(zone)
	for i := range 4 {
		got := x.send(fmt.Sprintf("a@d%d.test", i))[0]
		if suspected := got.Fault == spool.FaultPort; suspected != (i+1 >= closedPort) || suspected != strings.Contains(got.Remedy, "587") {
			t.Errorf("host %d: %+v", i+1, got)
		}
	}
	relaytest.New(t, relaytest.Options{Listen: "127.12.2.4:" + strconv.Itoa(x.config.Port)})
	if got := x.send("a@d4.test")[0]; got.Class() != spool.Success {
		t.Fatalf("%+v", got)
	}
	if got := x.send("a@d0.test")[0]; got.Fault != "" || got.Status != "4.4.1" {
		t.Errorf("after a success: %+v", got)
	}
}

// Of a host with addresses of both families the one that works is tried first.
func TestFamilyThatWorksComesFirst(t *testing.T) {
	t.Parallel()
	x := newExchange(t)
	x.dns.Set(dnstest.Zone{
		"dual.test. A": {"dual.test. 60 A 192.0.2.1"}, "dual.test. AAAA": {"dual.test. 60 AAAA 2001:db8::1"},
	})
	first := func() string {
		list, why := x.targets(t.Context(), "dual.test", wish{})
		if len(list) != 2 {
			t.Fatalf("%v, %+v", list, why)
		}
		return list[0].addr.String()
	}
	if got := first(); got != "2001:db8::1" {
		t.Errorf("of unknown ones %s", got)
	}
	x.known.with("192.0.2.1:"+strconv.Itoa(x.config.Port), func(h *Host) { h.Succeeded = time.Now() })
	if got := first(); got != "192.0.2.1" {
		t.Errorf("where IPv4 works %s", got)
	}
	x.known.with("[2001:db8::1]:"+strconv.Itoa(x.config.Port), func(h *Host) { h.Succeeded = time.Now() })
	if got := first(); got != "2001:db8::1" {
		t.Errorf("where both work %s", got)
	}
}
