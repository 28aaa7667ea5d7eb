package local

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postino/config"
	"postino/spool"
)

// The process for a mailbox is its user's, who may do with it as with any other: the
// message of those who come behind stays as it was sent.
func TestRecipientChangesNobodysMail(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "seen")
	program := script(t, `printf 'Subject: forged' >&0 2>/dev/null; cat /proc/self/fd/0 >>`+out+`; echo "{\"status\":\"2.0.0\",\"text\":\"ok\"}"`)
	m := &Mailboxes{To: config.Transport{Kind: config.ViaPipe, Path: "/bin/true"}, Hostname: "host.test", Program: []string{program}}
	replies := m.deliverOnce(t, batch(t, spool.ID(7), me(t), me(t)))
	seen, err := os.ReadFile(out)
	if err != nil || string(seen) != content+content {
		t.Errorf("%v\n%q\n%+v", err, seen, replies)
	}
}

// A user who stops the process that writes to his mailbox delays others for a while, and
// not for ever.
func TestStoppedProcessIsEnded(t *testing.T) {
	t.Parallel()
	program := script(t, `kill -STOP $$; echo "{\"status\":\"2.0.0\"}"`)
	m := &Mailboxes{To: config.Transport{Kind: config.ViaPipe, Path: "/bin/true"}, Hostname: "host.test", Program: []string{program}, Wait: time.Second}
	if r := m.deliverOnce(t, batch(t, spool.ID(7), me(t)))[0]; r.Class() != spool.Temporary || !strings.Contains(r.Text, "killed") && !strings.Contains(r.Text, "deadline exceeded") {
		t.Errorf("%+v", r)
	}
}

// deliverOnce has m serve one batch, as a service manager starts it for.
func (m *Mailboxes) deliverOnce(t *testing.T, b *spool.Batch) []spool.Reply {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			err = m.Serve(conn)
			conn.Close()
		}
		served <- err
	}()
	replies := NewHelper(m.To, socket).Deliver(t.Context(), b)
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	return replies
}
