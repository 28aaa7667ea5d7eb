package relay

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postino/config"
	"postino/delivery/dns/dnstest"
	"postino/delivery/relay/relaytest"
	"postino/delivery/relay/servertest"
	"postino/delivery/tlspolicy"
	"postino/spool"
)

// exchange is a domain, x.test, with three exchangers on addresses of the loopback.
type exchange struct {
	*MX
	dns  *dnstest.Server
	zone dnstest.Zone
	mx   []*relaytest.Server
}

// newExchange starts as many exchangers as there are options; the other addresses
// refuse connections.
func newExchange(t *testing.T, options ...relaytest.Options) *exchange {
	t.Helper()
	x := &exchange{zone: dnstest.Zone{
		"x.test. MX":  {"x.test. 60 MX 10 mx1.test.", "x.test. 60 MX 20 mx2.test.", "x.test. 60 MX 30 mx3.test."},
		"mx1.test. A": {"mx1.test. 60 A 127.12.0.1"}, "mx2.test. A": {"mx2.test. 60 A 127.12.0.2"}, "mx3.test. A": {"mx3.test. 60 A 127.12.0.3"},
	}}
	x.dns = dnstest.Serve(t, x.zone)
	port := servertest.FreePort(t)
	for i, o := range options {
		o.Listen = fmt.Sprintf("127.12.0.%d:%d", i+1, port)
		x.mx = append(x.mx, relaytest.New(t, o))
	}
	x.open(t, config.MX{Port: port, TLS: config.MXAuto, Resolver: x.dns.Addr, IP: config.AnyIP, AllowLoopback: true})
	return x
}

func (x *exchange) open(t *testing.T, c config.MX) {
	t.Helper()
	var err error
	if x.MX, err = NewMX(c, patient(), config.Default().Retry, "client.test", []string{"client.test", "own.test"}, new(tlspolicy.Store)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
}

// send sends a message to these recipients and returns the replies in short.
func (x *exchange) send(to ...string) []spool.Reply {
	return x.Deliver(context.Background(), batch(hello, to...))
}

// What the DNS says decides what becomes of the mail, and nothing is connected to
// that should not be.
func TestDNSDecides(t *testing.T) {
	t.Parallel()
	x := newExchange(t, relaytest.Options{})
	x.dns.Set(dnstest.Zone{
		"implicit.test. A":       {"implicit.test. 60 A 127.12.0.1"},
		"mxtemp.test. MX":        {"SERVFAIL"},
		"mxtemp.test. A":         {"mxtemp.test. 60 A 127.12.0.1"},
		"null.test. MX":          {"null.test. 60 MX 0 ."},
		"null.test. A":           {"null.test. 60 A 127.12.0.1"},
		"almostnull.test. MX":    {"almostnull.test. 60 MX 0 .", "almostnull.test. 60 MX 10 mx1.test."},
		"text.test. TXT":         {"text.test. 60 TXT x"},
		"gonemx.test. MX":        {"gonemx.test. 60 MX 10 gone.test."},
		"tempmx.test. MX":        {"tempmx.test. 60 MX 10 temp.test.", "tempmx.test. 60 MX 20 gone.test."},
		"temp.test. A":           {"SERVFAIL"},
		"half.test. MX":          {"half.test. 60 MX 10 temp.test.", "half.test. 60 MX 20 mx1.test."},
		"own.test. MX":           {"own.test. 60 MX 10 OWN.test.", "own.test. 60 MX 20 mx1.test."},
		"backup.test. MX":        {"backup.test. 60 MX 10 mx1.test.", "backup.test. 60 MX 20 own.test.", "backup.test. 60 MX 30 mx9.test."},
		"equal.test. MX":         {"equal.test. 60 MX 10 mx9.test.", "equal.test. 60 MX 10 own.test."},
		"literal.test. MX":       {"literal.test. 60 MX 10 127.12.0.1."},
		"cname.test. MX":         {"cname.test. 60 CNAME implicit2.test."},
		"implicit2.test. MX":     {"implicit2.test. 60 MX 1 alias.test."},
		"alias.test. A":          {"alias.test. 60 CNAME mx1.test."},
		"mx1.test. A":            {"mx1.test. 60 A 127.12.0.1"},
		"nowhere.test. MX":       {"nowhere.test. 60 MX 1 zero.test."},
		"zero.test. A":           {"zero.test. 60 A 0.0.0.0", "zero.test. 60 A 224.0.0.1", "zero.test. 60 A 255.255.255.255"},
		"foo_bar.test. MX":       {"foo_bar.test. 60 MX 1 mx1.test."},
		"ab--c.test. A":          {"ab--c.test. 60 A 127.12.0.1"},
		"xn--bcher-kva.test. MX": {"xn--bcher-kva.test. 60 MX 1 mx1.test."},
	})
	for _, tt := range []struct{ domain, want string }{
		{"implicit.test", "2.0.0"},
		{"mxtemp.test", "4.4.3"},
		{"null.test", "5.1.10"},
		{"almostnull.test", "2.0.0"},
		{"gone.test", "5.1.2"},
		{"text.test", "5.1.2"},
		{"gonemx.test", "4.4.4"},
		{"tempmx.test", "4.4.3"},
		{"half.test", "2.0.0"},
		{"own.test", "5.4.6"},
		{"equal.test", "5.4.6"},
		{"backup.test", "2.0.0"},
		{"literal.test", "5.4.4"},
		{"cname.test", "2.0.0"},
		{"nowhere.test", "5.4.6"},
		{"bücher.test", "2.0.0"},
		{"foo_bar.test", "2.0.0"},
		{"ab--c.test", "2.0.0"},
		{"[127.12.0.1]", "2.0.0"},
		{"[IPv6:::ffff:224.0.0.1]", "5.4.6"},
	} {
		if got := x.send("a@" + tt.domain); got[0].Status != tt.want {
			t.Errorf("%s: %+v, want %s", tt.domain, got[0], tt.want)
		}
	}
	before := len(x.mx[0].Messages())
	x.open(t, config.MX{Port: x.config.Port, TLS: config.MXAuto, Resolver: x.dns.Addr, IP: config.AnyIP})
	for _, domain := range []string{"implicit.test", "[127.12.0.1]", "half.test"} {
		if got := x.send("a@" + domain); got[0].Class() == spool.Success {
			t.Errorf("%s on the loopback is sent to: %+v", domain, got[0])
		}
	}
	if n := len(x.mx[0].Messages()) - before; n != 0 {
		t.Errorf("%d messages reached the loopback", n)
	}
}

// An exchanger with an address of this machine is this machine, whatever its name, and
// those that are not preferred to it would send the mail back (RFC 5321 §5.1).
func TestOwnAddressesAreALoop(t *testing.T) {
	t.Parallel()
	own := slices.DeleteFunc(ownAddresses(), func(a netip.Addr) bool { return a.IsLoopback() || !a.Is4() })
	if len(own) == 0 {
		t.Skip("this machine has no address but the loopback's")
	}
	x := newExchange(t)
	x.dns.Set(dnstest.Zone{
		"best.test. MX":   {"best.test. 60 MX 10 alias.test.", "best.test. 60 MX 20 far.test."},
		"equal.test. MX":  {"equal.test. 60 MX 10 alias.test.", "equal.test. 60 MX 10 far.test."},
		"backup.test. MX": {"backup.test. 60 MX 10 far.test.", "backup.test. 60 MX 20 alias.test.", "backup.test. 60 MX 30 farther.test."},
		"alias.test. A":   {"alias.test. 60 A " + own[0].String()},
		"far.test. A":     {"far.test. 60 A " + foreign(0)}, "farther.test. A": {"farther.test. 60 A " + foreign(1)},
	})
	x.open(t, config.MX{Port: x.config.Port, TLS: config.MXAuto, Resolver: x.dns.Addr, IP: config.AnyIP})
	for domain, want := range map[string]string{"best.test": "", "equal.test": "", "backup.test": "far.test"} {
		list, reply := x.targets(t.Context(), domain, wish{})
		var got []string
		for _, target := range list {
			got = append(got, target.name)
		}
		if strings.Join(got, " ") != want || want == "" && reply.Status != "5.4.6" {
			t.Errorf("%s: %q, %+v, want %q", domain, got, reply, want)
		}
	}
	if p := x.peer(target{name: "far.test"}, false); !p.notUs || p.hello == "" {
		t.Errorf("an exchanger may have our name: %+v", p)
	}
}

// foreign is the nth address that this machine does not have, of those for
// documentation (RFC 5737).
func foreign(n int) string {
	own := ownAddresses()
	for addr := netip.MustParseAddr("203.0.113.1"); ; addr = addr.Next() {
		if slices.Contains(own, addr) {
			continue
		}
		if n--; n < 0 {
			return addr.String()
		}
	}
}

// Exchangers whose addresses cannot be found out, however many, hold nobody up longer
// than the time there is.
func TestSearchForAddressesEnds(t *testing.T) {
	t.Parallel()
	x := newExchange(t)
	for _, record := range []string{"silent", "SERVFAIL"} {
		zone := dnstest.Zone{}
		for i := range 1000 {
			zone["x.test. MX"] = append(zone["x.test. MX"], fmt.Sprintf("x.test. 60 MX %d mx%d.x.test.", i, i))
			zone[fmt.Sprintf("mx%d.x.test. A", i)] = []string{record}
		}
		x.dns.Set(zone)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		list, reply := x.targets(ctx, "x.test", wish{})
		cancel()
		if len(list) != 0 || reply.Status != "4.4.3" {
			t.Errorf("%s: %v, %+v", record, list, reply)
		}
	}
}

// One host after the other is asked for those that have no answer for good, at most
// two that answer, and none once the message may be at one.
func TestExchangersAreTriedInTurn(t *testing.T) {
	t.Parallel()
	later := relaytest.Options{Rules: []relaytest.Rule{{At: "RCPT", Reply: "451 4.3.0 later"}}}
	for _, tt := range []struct {
		name  string
		mx    []relaytest.Options
		want  string // statuses of a@, b@
		conns string
	}{
		{"the first is enough", []relaytest.Options{{}, {}, {}}, "2.0.0 2.0.0", "1 0 0"},
		{"two sessions at most", []relaytest.Options{later, later, {}}, "4.3.0 4.3.0", "1 1 0"},
		{"a closed connection is no session", []relaytest.Options{{Rules: []relaytest.Rule{{At: "RCPT", Arg: "a@", Reply: "451 4.3.0 later"}}}, {}, {}}, "2.0.0 2.0.0", "1 1 0"},
		{"refused for good is not asked again", []relaytest.Options{{Rules: []relaytest.Rule{{At: "RCPT", Arg: "a@", Reply: "550 5.1.1 no"}, {At: "RCPT", Arg: "b@", Reply: "451 4.2.1 busy"}}}, {}, {}}, "5.1.1 2.0.0", "1 1 0"},
		{"a greeting is no answer", []relaytest.Options{{Rules: []relaytest.Rule{{At: "greeting", Reply: "554 5.7.1 go away", Do: relaytest.Close}}}, {}, {}}, "2.0.0 2.0.0", "1 1 0"},
		{"too large for one", []relaytest.Options{{Extensions: []string{"SIZE 10"}}, {}, {}}, "2.0.0 2.0.0", "1 1 0"},
		{"too large for all", []relaytest.Options{{Extensions: []string{"SIZE 10"}}, {Extensions: []string{"SIZE 10"}}, {}}, "5.3.4 5.3.4", "1 1 0"},
		{"perhaps is not asked again", []relaytest.Options{{Rules: []relaytest.Rule{{At: "dot", Do: relaytest.Close}}}, {}, {}}, "4.4.2 4.4.2", "1 0 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			x := newExchange(t, tt.mx...)
			replies := x.send("a@x.test", "b@x.test")
			var conns []string
			for _, mx := range x.mx {
				conns = append(conns, strconv.Itoa(mx.Connections()))
			}
			if got := replies[0].Status + " " + replies[1].Status; got != tt.want || strings.Join(conns, " ") != tt.conns {
				t.Errorf("%s, connections %s, want %s and %s: %+v", got, conns, tt.want, tt.conns, replies)
			}
		})
	}
}

// Where nobody listens the last place that was tried is named, and the next message
// does not try for a while.
func TestHostThatIsDownIsLeftAlone(t *testing.T) {
	t.Parallel()
	x := newExchange(t)
	x.dns.Set(dnstest.Zone{"x.test. MX": {"x.test. 60 MX 10 mx1.test.", "x.test. 60 MX 20 mx2.test."}, "mx1.test. A": x.zone["mx1.test. A"], "mx2.test. A": x.zone["mx2.test. A"]})
	for n := range 4 {
		got := x.send("a@x.test")[0]
		if got.Status != "4.4.1" || !strings.Contains(got.Text, "mx2.test[127.12.0.2]:"+strconv.Itoa(x.config.Port)) {
			t.Errorf("attempt %d: %+v", n+1, got)
		}
		if left := strings.Contains(got.Text, "not tried again before"); left != (n >= failuresToOpen) {
			t.Errorf("attempt %d: %s", n+1, got.Text)
		}
	}
	s := relaytest.New(t, relaytest.Options{Listen: "127.12.0.1:" + strconv.Itoa(x.config.Port)})
	x.known.Forgive()
	if got := x.send("a@x.test")[0]; got.Class() != spool.Success || len(s.Messages()) != 1 {
		t.Errorf("after the operator said so: %+v", got)
	}
}

// A server whose TLS is broken gets the next mail without.
func TestBrokenTLSIsRemembered(t *testing.T) {
	t.Parallel()
	x := newExchange(t, relaytest.Options{TLS: relaytest.StartTLS, Rules: []relaytest.Rule{{At: "tls", Do: relaytest.Close}}})
	x.dns.Set(dnstest.Zone{"x.test. MX": {"x.test. 60 MX 10 mx1.test."}, "mx1.test. A": x.zone["mx1.test. A"]})
	if got := x.send("a@x.test")[0]; got.Class() != spool.Temporary {
		t.Errorf("the first time: %+v", got)
	}
	if got := x.send("a@x.test")[0]; got.Class() != spool.Success || got.TLS != "" {
		t.Errorf("the second time: %+v", got)
	}
}

// Equals share the load; families take turns.
func TestOrderOfAddresses(t *testing.T) {
	t.Parallel()
	x := newExchange(t)
	x.dns.Set(dnstest.Zone{
		"eq.test. MX": {"eq.test. 60 MX 10 mx1.test.", "eq.test. 60 MX 10 mx2.test.", "eq.test. 60 MX 5 mx3.test."},
		"mx1.test. A": x.zone["mx1.test. A"], "mx2.test. A": x.zone["mx2.test. A"], "mx3.test. A": x.zone["mx3.test. A"],
		"dual.test. A":    {"dual.test. 60 A 192.0.2.1", "dual.test. 60 A 192.0.2.2", "dual.test. 60 A 192.0.2.3"},
		"dual.test. AAAA": {"dual.test. 60 AAAA 2001:db8::1", "dual.test. 60 AAAA 2001:db8::2", "dual.test. 60 AAAA 2001:db8::3"},
	})
	first := make(map[string]int)
	for range 64 {
		list, reply := x.targets(context.Background(), "eq.test", wish{})
		if len(list) != 3 || list[0].name != "mx3.test" {
			t.Fatalf("%v, %+v", list, reply)
		}
		first[list[1].name]++
	}
	if len(first) != 2 {
		t.Errorf("equals are tried in the same order each time: %v", first)
	}
	list, _ := x.targets(context.Background(), "dual.test", wish{})
	var got []string
	for _, target := range list {
		got = append(got, target.addr.String())
	}
	if want := []string{"2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestHostsAreForgotten(t *testing.T) {
	t.Parallel()
	x := newExchange(t)
	for i := range maxHosts + 100 {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		x.leave(x.host(target{name: "mx.test", addr: addr}))
	}
	if n := len(x.hosts); n > maxHosts {
		t.Errorf("%d hosts are remembered, want %d at most", n, maxHosts)
	}
}

// Names and demands that lead to one address have sessions of their own, and who makes
// up many of them has no more for it.
func TestKindsOfSessionsAreBounded(t *testing.T) {
	t.Parallel()
	x := newExchange(t)
	h := x.host(target{addr: netip.MustParseAddr("127.12.0.1")})
	defer x.leave(h)
	used := h.line(x.MX, target{name: "used.test"})
	for i := range 100 {
		h.hang(h.line(x.MX, target{name: fmt.Sprintf("mx%d.test", i), demand: demand{by: "DANE"}}))
	}
	if again := h.line(x.MX, target{name: "used.test"}); len(h.lines) > maxLines || again != used {
		t.Errorf("%d kinds of sessions, want %d at most, and those in use kept: %v", len(h.lines), maxLines, again == used)
	}
}

// A next hop that has DSN reports success itself; of any other that is ours to do.
func TestWhoReportsSuccessIsSaid(t *testing.T) {
	t.Parallel()
	for _, extensions := range [][]string{{"DSN"}, {"8BITMIME"}} {
		x := newExchange(t, relaytest.Options{Extensions: extensions})
		if got := x.send("a@x.test")[0]; got.Class() != spool.Success || got.Notifies != (extensions[0] == "DSN") {
			t.Errorf("%s: %+v", extensions, got)
		}
	}
}
