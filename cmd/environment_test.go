package cmd_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"postino/delivery/relay/relaytest"
)

// A container has no file: what its environment says reaches the runner that the front
// end starts, and a slip there keeps the mail and is told.
func TestEnvironmentConfiguresTheRunnerOfACall(t *testing.T) {
	t.Parallel()
	s := relaytest.New(t, relaytest.Options{})
	b := newBox(t, "[relay]\nhost = \"127.0.0.2\"\ntls = \"none\"\n")
	b.front = program("sendmail")
	call := func(slip string) {
		cmd := b.command("Subject: hi\n\nhi\n", b.front, "alice@example.org")
		cmd.Env = append(cmd.Env, "POSTINO_RELAY_HOST=127.0.0.1", "POSTINO_RELAY_PORT="+strconv.Itoa(s.Port()), slip)
		b.succeed(cmd)
	}
	call("POSTINO_RELAY_PROT=25")
	poll(t, "the runner that refused", func() bool {
		log, err := os.ReadFile(filepath.Join(b.spool, "postino.log"))
		return err == nil && strings.Contains(string(log), "POSTINO_RELAY_PROT: there is no key for it")
	})
	if n := b.drops(); n != 1 {
		t.Errorf("%d drop files, want the one that waits", n)
	}
	call("POSTINO_RELAY_SERVICE_PORT=25")
	poll(t, "two messages at the relay", func() bool { return len(s.Messages()) == 2 })

	cmd := b.command("", program("postino"), "config", "check")
	cmd.Env = append(cmd.Env, "POSTINO_RELAY_PROT=25")
	if r := b.run(cmd); r.code != 78 || r.err != "postino: POSTINO_RELAY_PROT: there is no key for it: did you mean POSTINO_RELAY_PORT?\n" {
		t.Errorf("config check: %+v", r)
	}
}
