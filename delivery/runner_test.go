package delivery_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postino/config"
	"postino/delivery"
	"postino/delivery/dns/dnstest"
	"postino/delivery/relay/relaytest"
	"postino/spool"
	"postino/spool/spooltest"
	"postino/spool/standstill"
)

// patience is how long a test waits for what has to come, so that a broken program ends
// it instead of hanging it. No stall of the machine comes near it.
const patience = 2 * time.Minute

// eventually waits until see says that what has to come is there. It also says what
// there is, for when that was all.
func eventually(t *testing.T, what string, see func() (seen any, there bool)) {
	t.Helper()
	var seen any
	there := false
	defer func() {
		if !there {
			t.Logf("all there is of %s: %v", what, seen)
		}
	}()
	standstill.Wait(t, patience, what, func() bool {
		seen, there = see()
		return there
	})
}

// taken waits until a server has taken so many messages.
func taken(t *testing.T, server *relaytest.Server, n int) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " messages"), func() (any, bool) {
		got := len(server.Messages())
		return got, got >= n
	})
}

// rig is a runner at work on a spool.
type rig struct {
	t      *testing.T
	spool  *spool.Spool
	runner *delivery.Runner
	log    *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func settings(server *relaytest.Server, edit func(*config.Config)) *config.Config {
	c := config.Default()
	c.Hostname, c.Domain = "host.test", "dom.test"
	if server != nil {
		c.Relay = &config.Relay{
			Host: config.Hosts{server.Host()}, Port: server.Port(), TLS: config.NoTLS, Auth: config.AuthNone,
			MaxConnections: 2, MessagesPerConnection: 10,
		}
	}
	c.Retry.First = config.Duration(50 * time.Millisecond)
	c.Retry.Max = config.Duration(100 * time.Millisecond)
	c.Timeouts.Connect = config.Duration(patience)
	if edit != nil {
		edit(c)
	}
	return c
}

func start(t *testing.T, dir string, c *config.Config) *rig {
	t.Helper()
	r := &rig{t: t, log: new(lockedBuffer)}
	var err error
	if r.runner, err = delivery.New(c, slog.New(slog.NewTextHandler(r.log, nil))); err != nil {
		t.Fatal(err)
	}
	r.spool = spooltest.Open(t, dir, spool.Options{Queued: r.runner.Queued})
	r.runner.Load(r.spool)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.runner.Run(ctx, r.spool) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.runner.Close()
	})
	return r
}

// wait waits until the message is as it is wanted.
func (r *rig) wait(id spool.ID, want func(*spool.Message) bool) (m *spool.Message) {
	r.t.Helper()
	eventually(r.t, "another state of a message", func() (any, bool) {
		var err error
		if m, err = r.spool.Message(id); err != nil {
			r.t.Fatal(err)
		}
		return state{m, r.log}, want(m)
	})
	return m
}

// state is a message and how it came to that.
type state struct {
	m   *spool.Message
	log *lockedBuffer
}

func (s state) String() string { return fmt.Sprintf("%+v\n%s", s.m, s.log) }

// logged waits until the log has that text: a message is settled before that is said.
func (r *rig) logged(text string) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%q in the log", text), func() (any, bool) { return r.log, strings.Contains(r.log.String(), text) })
}

func settled(m *spool.Message) bool { return m.Settled() }

const content = "Subject: x\r\n\r\n.hello\r\n"

func TestMessageIsRelayedToEachRecipient(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{})
	server.SetRules(relaytest.Rule{At: "RCPT", Arg: "no@x.test", Reply: "550 5.1.1 no such user"})
	r := start(t, t.TempDir(), settings(server, nil))
	id := spooltest.Put(t, r.spool, content, "a@x.test", "no@x.test", "b@x.test")
	m := r.wait(id, settled)
	for i, want := range []spool.Status{spool.Relayed, spool.Failed, spool.Relayed} {
		if m.Recipients[i].Status != want {
			t.Errorf("recipient %d: %+v, want %s", i, m.Recipients[i], want)
		}
	}
	r.wait(m.Reports[0], settled)
	got := server.Messages()
	if len(got) != 2 || string(got[0].Data) != content || len(got[0].To) != 2 {
		t.Fatalf("the server got %+v", got)
	}
	// The report about the one that failed.
	if got[1].From != "" || got[1].To[0] != "sender@example.org" || !bytes.Contains(got[1].Data, []byte("Final-Recipient: rfc822; no@x.test\r\nAction: failed\r\nStatus: 5.1.1\r\n")) {
		t.Errorf("the report went to %s and says\n%s", got[1].To, got[1].Data)
	}
	attempts, err := r.spool.Attempts(id)
	if err != nil || len(attempts) != 1 || attempts[0].Hop == "" || attempts[0].Outcomes[1].Reply.Code != 550 {
		t.Errorf("attempts = %+v, %v", attempts, err)
	}
	for _, want := range []string{"msg=attempt id=" + id.String(), "550 5.1.1 no such user", "msg=finished"} {
		r.logged(want)
	}
}

// What is deferred is tried again for those recipients alone, and by a runner
// that finds it in the spool as well.
func TestDeferredMailIsTriedAgain(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{})
	server.SetRules(relaytest.Rule{At: "RCPT", Arg: "b@x.test", Reply: "451 4.2.1 busy"})
	dir := t.TempDir()
	var id spool.ID
	t.Run("first runner", func(t *testing.T) {
		r := start(t, dir, settings(server, nil))
		id = spooltest.Put(t, r.spool, content, "a@x.test", "b@x.test")
		m := r.wait(id, func(m *spool.Message) bool { return m.Recipients[1].Attempts >= 2 })
		if m.Recipients[0].Status != spool.Relayed || m.Recipients[1].Status != spool.Deferred || m.Recipients[1].Reply.Code != 451 {
			t.Errorf("recipients = %+v", m.Recipients)
		}
	})
	server.SetRules()
	r := start(t, dir, settings(server, nil))
	r.wait(id, settled)
	counts := make(map[string]int)
	for _, m := range server.Messages() {
		for _, rcpt := range m.To {
			counts[rcpt]++
		}
	}
	if counts["a@x.test"] != 1 || counts["b@x.test"] != 1 {
		t.Errorf("deliveries = %v, want one each", counts)
	}
}

// Mail that has come of age while nobody tried it, the machine being off or its clock
// wrong, is tried for a while before it fails: by the schedule, over half its lifetime,
// or half an hour where that is shorter.
func TestExpiredMailIsTriedForAWhileFirst(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{})
	server.SetRules(relaytest.Rule{At: "MAIL", Reply: "451 4.3.0 later"})
	r := start(t, t.TempDir(), settings(server, func(c *config.Config) { c.Retry.Lifetime = config.Duration(time.Second) }))
	m := spooltest.Message(t, "a@x.test")
	m.Arrived = time.Now().Add(-time.Hour) // the machine was off
	d, err := r.spool.NewDraft(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(d, content); err != nil {
		t.Fatal(err)
	}
	id, err := d.Commit(m)
	if err != nil {
		t.Fatal(err)
	}
	m = r.wait(id, settled)
	if got := m.Recipients[0]; got.Status != spool.Failed || got.Reply.Status != "4.4.7" || got.Attempts != 7 {
		t.Errorf("recipient = %+v", got)
	}
}

func TestCaptureKeepsAndSendsNothing(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{})
	r := start(t, t.TempDir(), settings(server, func(c *config.Config) { c.Mode = config.Capture }))
	id := spooltest.Put(t, r.spool, content, "a@x.test")
	m := r.wait(id, settled)
	if m.Recipients[0].Status != spool.Delivered || !m.Captured {
		t.Errorf("message = %+v", m)
	}
	c, err := r.spool.Content(m)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, err := io.ReadAll(c); err != nil || string(b) != content {
		t.Errorf("content = %q, %v", b, err)
	}
	if server.Connections() != 0 {
		t.Error("somebody was called")
	}
}

func TestHoldModeWaitsForTheModeToChange(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{})
	r := start(t, t.TempDir(), settings(server, func(c *config.Config) { c.Mode = config.Hold }))
	id := spooltest.Put(t, r.spool, content, "a@x.test")
	if n := r.runner.Pending(); n != 0 {
		t.Errorf("Pending = %d while nothing is attempted", n)
	}
	if err := r.runner.SetConfig(settings(server, nil)); err != nil {
		t.Fatal(err)
	}
	if m := r.wait(id, settled); m.Recipients[0].Status != spool.Relayed || m.Attempts != 1 {
		t.Errorf("message = %+v", m)
	}
}

func TestWithoutARelayMailGoesToTheExchangers(t *testing.T) {
	names := dnstest.Serve(t, dnstest.Zone{"x.test. MX": {"x.test. 60 MX 1 mx.test."}, "mx.test. A": {"SERVFAIL"}})
	server := relaytest.New(t, relaytest.Options{})
	r := start(t, t.TempDir(), settings(nil, func(c *config.Config) {
		c.MX.Port, c.MX.Resolver, c.MX.AllowLoopback = server.Port(), names.Addr, true
	}))
	id := spooltest.Put(t, r.spool, content, "a@x.test", "b@gone.test")
	m := r.wait(id, func(m *spool.Message) bool {
		return m.Recipients[0].Status == spool.Deferred && m.Recipients[1].Status == spool.Failed
	})
	if m.Recipients[0].Reply.Status != "4.4.3" || m.Recipients[1].Reply.Status != "5.1.2" || len(m.Reports) != 1 {
		t.Errorf("%+v", m)
	}
	names.Set(dnstest.Zone{"x.test. MX": {"x.test. 60 MX 1 mx.test."}, "mx.test. A": {"mx.test. 60 A 127.0.0.1"}})
	m = r.wait(id, settled)
	if m.Recipients[0].Status != spool.Relayed || len(server.Messages()) != 1 {
		t.Errorf("%+v", m.Recipients[0])
	}
	attempts, err := r.spool.Attempts(id)
	if err != nil || attempts[len(attempts)-1].Hop != "mx x.test" {
		t.Errorf("%+v, %v", attempts, err)
	}
}

// Damaged content is held for somebody to look at; no part of it may count as a
// message at the remote.
func TestDamagedMessageIsHeldNotSent(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{})
	dir := t.TempDir()
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const size = 200 << 10
	id := spooltest.Put(t, s, content+strings.Repeat("0123456789abcd\r\n", size/16), "a@x.test")
	spooltest.Close(t, s)
	path := filepath.Join(dir, "content", id.String())
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size/2); err != nil {
		t.Fatal(err)
	}
	r := start(t, dir, settings(server, nil))
	m := r.wait(id, func(m *spool.Message) bool { return m.Held != "" })
	if len(server.Messages()) != 0 {
		t.Error("half a message was sent")
	}
	r.logged("msg=\"message held\" id=" + id.String())
	// Mended and released, it goes.
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.spool.Retry(m.ID, true); err != nil {
		t.Fatal(err)
	}
	r.wait(id, settled)
	if got := server.Messages(); len(got) != 1 || len(got[0].Data) != len(whole) {
		t.Errorf("%d messages", len(got))
	}
}

// Who got a message before it was found to be damaged does not get it again.
func TestDamageAfterAPart(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{})
	damaged := make(chan struct{})
	server.SetRules(relaytest.Rule{At: "MAIL", N: 2, Until: damaged})
	dir := t.TempDir()
	r := start(t, dir, settings(server, func(c *config.Config) { c.Relay.MaxConnections = 1 }))
	var to []string
	for i := range 101 { // one more than go in one transaction
		to = append(to, fmt.Sprintf("r%d@x.test", i))
	}
	id := spooltest.Put(t, r.spool, "Subject: x\r\n\r\n"+strings.Repeat("hello\r\n", 50_000), to...)
	taken(t, server, 1)
	path := filepath.Join(dir, "content", id.String())
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1000); err != nil {
		t.Fatal(err)
	}
	close(damaged)
	m := r.wait(id, func(m *spool.Message) bool { return m.Held != "" })
	if err := os.WriteFile(path, whole, 0o600); err != nil { // the spool is checked in the end
		t.Fatal(err)
	}
	for i, rcpt := range m.Recipients {
		if want := i < 100; want != (rcpt.Status == spool.Relayed) {
			t.Errorf("recipient %d: %+v", i, rcpt)
		}
	}
	if n := len(server.Messages()); n != 1 {
		t.Errorf("%d messages arrived, want 1", n)
	}
}
