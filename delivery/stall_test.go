package delivery_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postino/config"
	"postino/delivery"
	"postino/delivery/relay/relaytest"
	"postino/spool"
	"postino/spool/spooltest"
	"postino/spool/standstill"
)

// What a process of TestStandstillDuringAStopSendsNothingTwice has in its environment:
// where its spool is, and the port of its relay.
const (
	stalledDir  = "DELIVERY_TEST_DIR"
	stalledPort = "DELIVERY_TEST_PORT"
)

const (
	// stalledGrace is how long attempts may go on after a stop there.
	stalledGrace = 4 * time.Second
	// stalledMails are under way at a time: one answer alone may be read in time by luck.
	stalledMails = 30
)

// A machine that stands still while its runner stops, for longer than attempts under way
// are waited for, sends nothing twice: the answer that came meanwhile is read when it
// goes on.
func TestStandstillDuringAStopSendsNothingTwice(t *testing.T) {
	t.Parallel()
	answer := make(chan struct{})
	server := relaytest.New(t, relaytest.Options{Rules: []relaytest.Rule{{At: "dot", Until: answer}}})
	cmd := standstill.Command(t, patience, "/proc/self/exe", "-test.run=^TestRunnerThatIsStopped$", "-test.v")
	cmd.Env = append(os.Environ(), stalledDir+"="+t.TempDir(), stalledPort+"="+strconv.Itoa(server.Port()))
	said := new(lockedBuffer)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	taken(t, server, stalledMails)
	tell(t, cmd, syscall.SIGTERM)
	eventually(t, "a runner that stops", func() (any, bool) { return said, strings.Contains(said.String(), "told to stop") })
	time.Sleep(stalledGrace / 20) // for it to have begun; if not, it has its grace before it
	tell(t, cmd, syscall.SIGSTOP)
	stat := filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "stat")
	eventually(t, "a process that stands still", func() (any, bool) {
		text, _ := os.ReadFile(stat)
		return string(text), bytes.Contains(text, []byte(") T "))
	})
	close(answer)
	time.Sleep(stalledGrace + stalledGrace/4)
	tell(t, cmd, syscall.SIGCONT)
	if err := cmd.Wait(); err != nil || strings.Count(said.String(), "one is relayed") != stalledMails {
		t.Errorf("%v\n%s", err, said)
	}
}

func tell(t *testing.T, cmd *exec.Cmd, sig syscall.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// TestRunnerThatIsStopped is run by TestStandstillDuringAStopSendsNothingTwice.
func TestRunnerThatIsStopped(t *testing.T) {
	dir := os.Getenv(stalledDir)
	if dir == "" {
		t.Skip("a part of another test")
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	port, err := strconv.Atoi(os.Getenv(stalledPort))
	if err != nil {
		t.Fatal(err)
	}
	r, err := delivery.New(settings(nil, func(c *config.Config) {
		c.Relay = &config.Relay{Host: config.Hosts{"127.0.0.1"}, Port: port, TLS: config.NoTLS, Auth: config.AuthNone, MaxConnections: stalledMails, MessagesPerConnection: 1}
	}), slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.SetGrace(stalledGrace)
	s := spooltest.Open(t, dir, spool.Options{Queued: r.Queued})
	var ids []spool.ID
	for range stalledMails {
		ids = append(ids, spooltest.Put(t, s, content, "a@x.test"))
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-stop
		cancel()
		fmt.Println("told to stop")
	}()
	if err := r.Run(ctx, s); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		m, err := s.Message(id)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("one is %s: %+v\n", m.Recipients[0].Status, m.Recipients[0].Reply)
	}
}
