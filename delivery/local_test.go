package delivery_test

import (
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"postino/config"
	"postino/delivery/relay/relaytest"
	"postino/spool"
	"postino/spool/spooltest"
)

// What is for this machine and no alias takes goes into a mailbox, or to the address
// that gets it instead; what is for others goes its way.
func TestMailForThisMachineStaysOnIt(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{})
	dir := t.TempDir()
	for _, tt := range []struct {
		deliver string
		status  spool.Status
		files   int
	}{
		{"maildir:" + dir + "/box", spool.Delivered, 1},
		{"forward:ops@example.com", spool.Expanded, 1},
		{"none", spool.Relayed, 1},
	} {
		r := start(t, t.TempDir(), settings(server, func(c *config.Config) {
			c.Aliases.File = filepath.Join(dir, "none")
			if err := c.Local.Deliver.UnmarshalText([]byte(tt.deliver)); err != nil {
				t.Fatal(err)
			}
		}))
		m := r.wait(spooltest.Put(t, r.spool, content, "bob@host.test", "ann@x.test"), settled)
		if m.Recipients[0].Status != tt.status || m.Recipients[1].Status != spool.Relayed {
			t.Errorf("%s: %+v", tt.deliver, m.Recipients)
		}
		if files, err := filepath.Glob(dir + "/box/new/*"); err != nil || len(files) != tt.files {
			t.Errorf("%s: %q, %v", tt.deliver, files, err)
		}
	}
	var to []string
	for _, m := range server.Messages() {
		to = append(to, m.To...)
	}
	if len(to) != 5 { // ann three times, ops, bob
		t.Errorf("sent to %q", to)
	}
	if _, err := os.Stat(dir + "/box/cur"); err != nil {
		t.Error(err)
	}
}

// A user who keeps the own mailbox locked keeps nobody else from having mail, however
// much of it there is.
func TestMailboxThatIsLockedLeavesOthersAlone(t *testing.T) {
	dir := t.TempDir()
	locked, err := os.Create(filepath.Join(dir, "daemon.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer locked.Close()
	r := start(t, t.TempDir(), settings(relaytest.New(t, relaytest.Options{}), func(c *config.Config) {
		c.Aliases.File = filepath.Join(dir, "none")
		if err := c.Local.Deliver.UnmarshalText([]byte("mbox:" + dir + "/{user}")); err != nil {
			t.Fatal(err)
		}
	}))
	var stuck []spool.ID
	for range 20 {
		stuck = append(stuck, spooltest.Put(t, r.spool, content, "daemon@host.test"))
		stuck = append(stuck, spooltest.Put(t, r.spool, content, "daemon@host.test", "bin@host.test"))
	}
	for range 4 {
		r.wait(spooltest.Put(t, r.spool, content, "root@host.test"), settled)
	}
	if m, err := r.spool.Message(stuck[len(stuck)-1]); err != nil || m.Recipients[0].Status != spool.Queued {
		t.Errorf("the others had to wait until it was given up: %+v, %v", m, err)
	}
	// What is under way need not be waited for.
	if err := os.Remove(locked.Name()); err != nil {
		t.Error(err)
	}
}

// Nor does a user who stops whatever reads the own file of addresses keep the attempts
// of others.
func TestFileOfUserThatIsNotReadLeavesOthersAlone(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "helper"))
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	asked := make(chan net.Conn, 100)
	open.Go(func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			asked <- c // and is not answered
		}
		close(asked)
	})
	server := relaytest.New(t, relaytest.Options{})
	r := start(t, t.TempDir(), settings(server, func(c *config.Config) {
		c.Aliases.File, c.Aliases.Forward, c.Local.Helper = filepath.Join(dir, "none"), "/home/{user}/.forward", l.Addr().String()
		if err := c.Local.Deliver.UnmarshalText([]byte("maildir:" + dir + "/{user}")); err != nil {
			t.Fatal(err)
		}
	}))
	var stuck spool.ID
	for range 40 {
		stuck = spooltest.Put(t, r.spool, content, "daemon@host.test")
		spooltest.Put(t, r.spool, content, "daemon@host.test", "bin@host.test")
	}
	for range 4 {
		r.wait(spooltest.Put(t, r.spool, content, "ann@x.test"), settled)
	}
	if m, err := r.spool.Message(stuck); err != nil || m.Recipients[0].Status != spool.Queued {
		t.Errorf("the others had to wait until it was given up: %+v, %v", m, err)
	}
	// What is under way need not be waited for.
	l.Close()
	open.Wait()
	for c := range asked {
		c.Close()
	}
}
