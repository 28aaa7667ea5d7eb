package delivery_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"postino/config"
	"postino/delivery/relay/relaytest"
	"postino/spool"
	"postino/spool/spooltest"
	"postino/spool/standstill"
)

// Without a network nothing is attempted, whatever is due, and nobody hears of it; soon
// after it is back everything goes. Mail for a server on this machine goes all the while.
func TestNoNetworkIsNoAttempt(t *testing.T) {
	if os.Getenv("DELIVERY_TEST_OFFLINE") == "" {
		inItsOwnNetwork(t)
		return
	}
	if out, err := exec.Command("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1").CombinedOutput(); err != nil {
		t.Skipf("this kernel has no virtual interfaces: %v %s", err, out)
	}
	ip(t, "link", "set", "lo", "up")
	here := relaytest.New(t, relaytest.Options{})
	r := start(t, t.TempDir(), settings(nil, func(c *config.Config) {
		c.Relay = &config.Relay{Host: config.Hosts{"10.77.0.2"}, Port: here.Port(), TLS: config.NoTLS, Auth: config.AuthNone, MaxConnections: 2, MessagesPerConnection: 10}
		c.Routes = []config.Route{{Recipients: []string{"@here.test"}, Relay: &config.Relay{
			Host: config.Hosts{here.Host()}, Port: here.Port(), TLS: config.NoTLS, Auth: config.AuthNone, MaxConnections: 2, MessagesPerConnection: 10}}}
		c.Retry.Lifetime, c.Retry.WarnAfter = config.Duration(100*time.Millisecond), config.Duration(100*time.Millisecond)
	}))
	id := spooltest.Put(t, r.spool, content, "a@far.test", "a@here.test")
	r.wait(id, func(m *spool.Message) bool { return m.Recipients[1].Status == spool.Relayed })
	r.logged("no network")
	other := spooltest.Put(t, r.spool, content, "b@far.test")
	time.Sleep(time.Second) // several times the lifetime
	for _, id := range []spool.ID{id, other} {
		if m, err := r.spool.Message(id); err != nil || m.Recipients[0].Status != spool.Queued || m.Recipients[0].Attempts != 0 {
			t.Fatalf("%+v, %v", m, err)
		}
	}
	if alerts := r.runner.Alerts(); len(alerts) != 1 || alerts[0].Hop != "the network" {
		t.Errorf("%+v", alerts)
	}
	ip(t, "addr", "add", "10.77.0.2/32", "dev", "lo")
	relaytest.New(t, relaytest.Options{Listen: "10.77.0.2:" + strings.Split(here.Addr(), ":")[1]})
	ip(t, "addr", "add", "10.77.0.1/24", "dev", "v0")
	for _, dev := range []string{"v0", "v1"} {
		ip(t, "link", "set", dev, "up")
	}
	for _, id := range []spool.ID{id, other} {
		if m := r.wait(id, settled); m.Recipients[0].Status != spool.Relayed || m.Recipients[0].Attempts != 1 || len(m.Reports) > 0 {
			t.Errorf("%+v", m)
		}
	}
	if n := strings.Count(r.log.String(), "no network"); n != 1 || len(r.runner.Alerts()) != 0 {
		t.Errorf("said %d times", n)
	}
}

// Who asks for it has mail attempted though no interface is up: he may know better.
func TestRetryAttemptsWithoutANetwork(t *testing.T) {
	if os.Getenv("DELIVERY_TEST_OFFLINE") == "" {
		inItsOwnNetwork(t)
		return
	}
	ip(t, "link", "set", "lo", "up")
	server := relaytest.New(t, relaytest.Options{Listen: "0.0.0.0:0"})
	r := start(t, t.TempDir(), settings(nil, func(c *config.Config) {
		c.Relay = &config.Relay{Host: config.Hosts{"10.77.0.2"}, Port: server.Port(), TLS: config.NoTLS, Auth: config.AuthNone, MaxConnections: 2, MessagesPerConnection: 10}
	}))
	id := spooltest.Put(t, r.spool, content, "a@far.test")
	r.logged("no network")
	ip(t, "addr", "add", "10.77.0.2/32", "dev", "lo")
	r.runner.Retry()
	if m := r.wait(id, settled); m.Recipients[0].Status != spool.Relayed || m.Recipients[0].Attempts != 1 {
		t.Errorf("%+v", m)
	}
}

// inItsOwnNetwork runs the test again, with a loopback alone.
func inItsOwnNetwork(t *testing.T) {
	_, err := exec.LookPath("ip")
	if (os.Geteuid() != 0 || err != nil) && os.Getenv("CI") != "true" {
		t.Skip("needs root and ip(8)")
	}
	cmd := standstill.Command(t, 4*patience, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "DELIVERY_TEST_OFFLINE=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	switch text := string(out); {
	case err == nil && strings.Contains(text, "--- SKIP"):
		t.Skip(text)
	case err != nil || !strings.Contains(text, "--- PASS"):
		t.Fatalf("%v\n%s", err, text)
	}
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v\n%s", args, err, out)
	}
}
