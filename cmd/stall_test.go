package cmd_test

import (
	"syscall"
	"testing"
	"time"

	"postino/spool/standstill"
)

// A command waits for a runner that does not answer for a while, as when it stands
// still together with its machine.
func TestCommandsWaitForARunnerThatStandsStill(t *testing.T) {
	t.Parallel()
	standstill.Steady(t, commandsWait)
}

func commandsWait(t testing.TB) {
	b := newBox(t, "mode = \"hold\"\n")
	r := b.start()
	b.sendmail("Subject: hi\n\nhi\n", "alice@example.org")
	if err := r.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// Longer than a person has patience, and some virtual machines are away.
	const still = 12 * time.Second
	time.AfterFunc(still, func() { _ = r.cmd.Process.Signal(syscall.SIGCONT) })
	if out := b.postino("queue"); out == "" {
		t.Error("the queue is empty")
	}
	r.stop()
}
