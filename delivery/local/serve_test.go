package local

import (
	"net"
	"os"
	"path/filepath"
	"testing"

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
	replies := NewHelper(m.To, socket).Deliver(t.Context(), batch(t, spool.ID(7), me(t), me(t)))
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	seen, err := os.ReadFile(out)
	if err != nil || string(seen) != content+content {
		t.Errorf("%v\n%q\n%+v", err, seen, replies)
	}
}
