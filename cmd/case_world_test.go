package cmd_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postino/delivery/dns/dnstest"
	"postino/delivery/relay/relaytest"
	"postino/delivery/relay/servertest"
)

// secret is the password of the cases.
const secret = "Zq7-secret"

// world is the installation of a case, with the servers around it.
type world struct {
	*box
	story   *story
	number  int
	port    int
	servers map[string]*relaytest.Server
	sockets string // directory of unix sockets
	runner  *runner
	grown   int // peak memory of the runner before the first message, in KiB
	// submitted counts the messages that were taken.
	submitted int
	begun     time.Time
	heard     map[string]int // lines of a host that were looked at
}

// newWorld makes what is given.
func newWorld(t testing.TB, s *story, number int) *world {
	w := &world{box: newBox(t, ""), story: s, number: number, port: servertest.FreePort(t), servers: map[string]*relaytest.Server{}, heard: map[string]int{}}
	w.sockets = filepath.Join(w.dir, "sockets")
	if err := os.Mkdir(w.sockets, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, h := range s.given.hosts {
		o := h.Options
		o.Listen = net.JoinHostPort(w.ip(name), fmt.Sprint(w.port))
		if h.socket {
			o.Listen = filepath.Join(w.sockets, name)
		}
		if o.Extensions == nil {
			o.Extensions = []string{"PIPELINING", "8BITMIME", "SIZE 10485760", "ENHANCEDSTATUSCODES"}
		}
		switch {
		case h.silent:
			answerNobody(t, o.Listen)
		case !h.down:
			w.servers[name] = relaytest.New(t, o)
		}
	}
	if err := os.WriteFile(filepath.Join(w.dir, "secret"), []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	w.configure(w.configuration())
	if strings.Contains(strings.Join(s.given.config, "\n"), "@key") {
		w.makeKey()
	}
	return w
}

// makeKey makes a key for DKIM, and keeps its record.
func (w *world) makeKey() {
	w.t.Helper()
	r := w.run(w.command("", program("postino"), "dkim", "keygen", "--json", "sender.test", "p1", filepath.Join(w.dir, "key.pem")))
	var record struct{ Value string }
	if err := json.Unmarshal([]byte(r.out), &record); err != nil {
		w.t.Fatalf("%v: %+v", err, r)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "record"), []byte(record.Value), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// ip is the address of a host: each case has a net of its own on the loopback, and so
// has each process that runs them.
func (w *world) ip(host string) string {
	last := map[string]int{"mx1": 1, "mx2": 2, "mx3": 3, "sink": 4}[host]
	return fmt.Sprintf("127.%d.%d.%d", 64+os.Getpid()%128, w.number+1, last)
}

// answerNobody has an address where nothing is said to who connects: its queue of
// connections is full.
func answerNobody(t testing.TB, listen string) {
	t.Helper()
	addr, err := net.ResolveTCPAddr("tcp4", listen)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for {
		// Of a socket that listens these are how many wait, and how many may, before the last.
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			t.Fatal(err)
		}
		if info.Unacked > info.Sacked {
			return
		}
		conn, err := net.DialTimeout("tcp", listen, patience)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
}

// configuration is the file of the case, without the names that every box has.
func (w *world) configuration() string {
	g := &w.story.given
	base := []string{
		fmt.Sprintf("mx.port = %d", w.port), "mx.allow_loopback = true", fmt.Sprintf("mx.resolver = %q", w.resolver()),
		`hostname = "client.test"`, `domain = "client.test"`,
	}
	var end []string
	switch g.via {
	case "smarthost":
		base = append(base, fmt.Sprintf("relay.host = %q", w.ip("mx1")), fmt.Sprintf("relay.port = %d", w.port), `relay.tls = "none"`)
		end = append(end, "[[route]]", `recipients = ["@sender.test"]`, `transport = "mx"`)
	case "lmtp":
		to := net.JoinHostPort(w.ip("mx1"), fmt.Sprint(w.port))
		if g.hosts["mx1"].socket {
			to = filepath.Join(w.sockets, "mx1")
		}
		end = append(end, "[[route]]", `recipients = ["@x.test"]`, fmt.Sprintf("transport = %q", "lmtp:"+to))
	}
	if g.aliases != "" {
		file := filepath.Join(w.dir, "aliases")
		if err := os.WriteFile(file, []byte(g.aliases), 0o644); err != nil {
			w.t.Fatal(err)
		}
		base = append(base, fmt.Sprintf("aliases.file = %q", file))
	}
	own, tables := g.config, []string(nil)
	for i, line := range own {
		if strings.HasPrefix(line, "[[") {
			own, tables = own[:i], own[i:]
			break
		}
	}
	var text strings.Builder
	for _, line := range base { // unless the case says otherwise
		key, _, _ := strings.Cut(line, " = ")
		if !strings.Contains("\n"+strings.Join(own, "\n"), "\n"+key+" = ") {
			text.WriteString(line + "\n")
		}
	}
	for _, line := range append(append(own, end...), tables...) {
		text.WriteString(line + "\n")
	}
	return w.filled(text.String())
}

// configure writes the whole file: a case may have another hostname.
func (w *world) configure(text string) {
	w.t.Helper()
	if err := os.WriteFile(w.config, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// filled puts addresses and files in the place of the words that stand for them.
func (w *world) filled(text string) string {
	pairs := []string{"@secret", filepath.Join(w.dir, "secret"), "@key", filepath.Join(w.dir, "key.pem"), "@port", fmt.Sprint(w.port)}
	for name, s := range w.servers {
		pairs = append(pairs, "@ca:"+name, s.CAFile())
	}
	for name := range w.story.given.hosts {
		pairs = append(pairs, "@"+name, w.ip(name))
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// resolver serves the names of a case: what it says of a name replaces what is said of
// it here.
func (w *world) resolver() string {
	if w.story.given.resolver != "" {
		return w.story.given.resolver
	}
	records := [][]string{{"x.test", "MX", "10", "mx1.test."}, {"y.test", "MX", "10", "mx1.test."}, {"sender.test", "MX", "10", "sink.test."}}
	for host := range w.story.given.hosts {
		records = append(records, []string{host + ".test", "A", w.ip(host)})
	}
	zone, own := dnstest.Zone{}, map[string]bool{}
	for _, r := range w.story.given.dns {
		own[r[0]] = true
	}
	put := func(r []string) {
		name := r[0] + "."
		switch {
		case len(r) == 2 && r[1] == "NXDOMAIN":
		case len(r) == 2: // to every question
			for _, kind := range []string{"A", "AAAA", "MX"} {
				zone[name+" "+kind] = []string{r[1]}
			}
		case r[1] == "CNAME":
			for _, kind := range []string{"A", "AAAA", "MX"} {
				zone[name+" "+kind] = []string{name + " 60 CNAME " + r[2]}
			}
		case len(r) == 3 && (strings.ToUpper(r[2]) == r[2] && !strings.ContainsAny(r[2], ".:@") || r[2] == "silent" || r[2] == "cut"):
			zone[name+" "+r[1]] = append(zone[name+" "+r[1]], r[2])
		default:
			zone[name+" "+r[1]] = append(zone[name+" "+r[1]], name+" 60 "+strings.Join(r[1:], " "))
		}
	}
	for _, r := range records {
		if !own[r[0]] {
			put(r)
		}
	}
	for _, r := range w.story.given.dns {
		filled := make([]string, len(r))
		for i := range r {
			if filled[i] = w.filled(r[i]); filled[i] != r[i] && r[1] == "AAAA" {
				filled[i] = "::ffff:" + filled[i]
			}
		}
		put(filled)
	}
	return dnstest.Serve(w.t, zone).Addr
}
