package durability_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postino/cmd/durability/oracle"
	"postino/delivery/relay/relaytest"
	"postino/spool/standstill"
)

const (
	sender    = "me@web.test"
	recipient = "alice@example.org"
	// The sizes of a message in lines of 68 octets: into a record of the spool, into
	// a file, and beyond what the front end keeps in memory.
	small = 20
	large = 2000
	huge  = 20000
)

// box is a private installation, the server that it sends to, and the book of what
// its front ends said.
type box struct {
	t       testing.TB
	dir     string
	spool   string
	config  string
	bin     string // where the programs are
	log     *os.File
	env     []string // besides the usual
	options []string // of sendmail, besides the usual
	server  *relaytest.Server
	ledger  *oracle.Ledger
	living  *runner // while it is wanted; see during
	deaths  int     // by SIGKILL, of what scenes run
	judged  int     // messages of the server that belong to former ledgers
}

// newBox lays out a box with the programs in bin. Extra are top-level lines of
// the configuration.
func newBox(t testing.TB, bin string, extra ...string) *box {
	t.Helper()
	dir, err := os.MkdirTemp("", "postino-box")
	if err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, dir: dir, spool: filepath.Join(dir, "spool"), config: filepath.Join(dir, "postino.toml"), bin: bin,
		server: relaytest.New(t, relaytest.Options{}), ledger: new(oracle.Ledger)}
	t.Cleanup(func() { b.tidy() })
	if err := os.Mkdir(b.spool, 0o755); err != nil {
		t.Fatal(err)
	}
	if b.log, err = os.OpenFile(filepath.Join(dir, "log"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		t.Fatal(err)
	}
	// A sendmail without its sibling starts no runner behind our back.
	if err := os.Mkdir(filepath.Join(dir, "alone"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(bin, "sendmail"), b.front()); err != nil {
		t.Fatal(err)
	}
	b.configure(extra...)
	return b
}

const (
	// connections is relay.max_connections.
	connections = 3
	// underWay is how many messages may be on their way when a runner dies, taken by
	// the server and not on record here: the relay has 32 at most on a connection.
	underWay = 32 * connections
)

// configure writes the configuration.
func (b *box) configure(extra ...string) {
	b.t.Helper()
	text := fmt.Sprintf("hostname = \"web.test\"\ndomain = \"web.test\"\n%s\n[relay]\nhost = \"127.0.0.1\"\nport = %d\n"+
		"tls = \"none\"\nmax_connections = %d\n[retry]\nfirst = \"100ms\"\nmax = \"100ms\"\n",
		strings.Join(extra, "\n"), b.server.Port(), connections)
	if err := os.WriteFile(b.config, []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// tidy removes the box, and tells what its runners said if the test failed.
func (b *box) tidy() {
	if b.t.Failed() {
		text, err := os.ReadFile(b.log.Name())
		const most = 16 << 10 // octets
		b.t.Logf("the log ends (%v):\n%s", err, text[max(0, len(text)-most):])
	}
	b.log.Close()
	os.RemoveAll(b.dir)
}

func (b *box) front() string { return filepath.Join(b.dir, "alone", "sendmail") }

// command prepares a process in the box.
func (b *box) command(stdin, path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + b.dir, "LC_ALL=C", "TZ=UTC",
		"POSTINO_SPOOL=" + b.spool, "POSTINO_CONFIG=" + b.config}, b.env...)
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(stdin)
	cmd.WaitDelay = patience
	return cmd
}

// postino prepares a command of the administrator.
func (b *box) postino(args ...string) *exec.Cmd {
	return b.command("", filepath.Join(b.bin, "postino"), args...)
}

// sendmail prepares a front end.
func (b *box) sendmail(message string) *exec.Cmd {
	return b.command(message, b.front(), append(b.options, "-i", "-f", sender, recipient)...)
}

// submit hands a new message over, and records what the front end said. It
// returns the exit status, -1 after a signal, and standard error.
func (b *box) submit(random *rand.Rand, subject string, lines int) (status int, said string) {
	b.t.Helper()
	message, s := oracle.Compose(random, subject, lines)
	var errs bytes.Buffer
	cmd := b.sendmail(message)
	cmd.Stderr = &errs
	s.Status = b.run(cmd)
	b.ledger.Add(s)
	return s.Status, errs.String()
}

// run runs a process to its end and returns its exit status, -1 after a signal.
func (b *box) run(cmd *exec.Cmd) int {
	b.t.Helper()
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	tooLong := time.AfterFunc(patience, func() {
		b.t.Errorf("%v: not done within %v\n%s", cmd.Args, patience, standstill.Of(cmd.Process.Pid))
		cmd.Process.Kill()
	})
	_ = cmd.Wait() // its status is in ProcessState
	tooLong.Stop()
	if killed(cmd) {
		b.deaths++
	}
	return cmd.ProcessState.ExitCode()
}

// runner is a `postino run`.
type runner struct {
	box  *box
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// launch starts a runner and waits for nothing.
func (b *box) launch() *runner {
	b.t.Helper()
	r := &runner{box: b, cmd: b.postino("run"), done: make(chan struct{})}
	r.cmd.Stderr = b.log
	if err := r.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	go func() {
		_ = r.cmd.Wait() // its status is in ProcessState
		close(r.done)
	}()
	b.t.Cleanup(r.kill)
	return r
}

// start starts a runner and waits until it takes submissions, or has ended, which
// ready tells.
func (b *box) start() (r *runner, ready bool) {
	b.t.Helper()
	r = b.launch()
	return r, r.await("a runner", r.listens)
}

// listens reports whether the runner is the one that listens.
func (r *runner) listens() bool { return listener(r.box.spool) == r.cmd.Process.Pid }

// listener is the process that takes submissions in a spool directory; 0: none.
func listener(spool string) int {
	conn, err := net.Dial("unix", filepath.Join(spool, "submit.sock"))
	if err != nil {
		return 0
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

// await waits until cond holds; false: the runner has ended before.
func (r *runner) await(what string, cond func() bool) bool {
	r.box.t.Helper()
	const interval = 2 * time.Millisecond
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(interval) {
		select {
		case <-r.done:
			return false
		default:
		}
		if time.Now().After(deadline) {
			r.box.t.Fatalf("%s: not within %v\n%s", what, patience, standstill.Of(r.cmd.Process.Pid))
		}
	}
	return true
}

// kill ends the runner at once, if it has not ended yet.
func (r *runner) kill() {
	_ = r.cmd.Process.Kill()
	<-r.done
}

// stop ends the runner as a service manager does, and returns its exit status.
func (r *runner) stop() int {
	r.box.t.Helper()
	_ = r.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-r.done:
	case <-time.After(patience):
		r.box.t.Errorf("after SIGTERM the runner has not ended within %v\n%s", patience, standstill.Of(r.cmd.Process.Pid))
		r.kill()
	}
	return r.cmd.ProcessState.ExitCode()
}

// killed reports whether a process died by SIGKILL.
func killed(cmd *exec.Cmd) bool {
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// judge asks the oracle; no runner may have the spool.
func (b *box) judge() oracle.Verdict {
	var delivered [][]byte
	for _, m := range b.server.Messages()[b.judged:] {
		delivered = append(delivered, m.Data)
	}
	return b.ledger.Judge(b.spool, delivered)
}

// drain has a sound runner deliver what is there, and asks the oracle again: now
// everything that was accepted has arrived.
func (b *box) drain() (oracle.Verdict, error) {
	b.t.Helper()
	env := b.env
	b.env = nil
	defer func() { b.env = env }()
	r, ready := b.start()
	if !ready {
		return b.judge(), fmt.Errorf("the runner did not start again: status %d", r.cmd.ProcessState.ExitCode())
	}
	b.run(b.postino("release", "--all"))
	empty := r.await("an empty queue", func() bool { return b.drops() == 0 && b.queued() == 0 })
	status := r.stop()
	v := b.judge()
	if !empty || status != 0 || v.Queued > 0 || v.Dropped > 0 {
		return v, fmt.Errorf("queue not empty or runner not well: status %d, %d queued, %d dropped", status, v.Queued, v.Dropped)
	}
	return v, b.clean()
}

// renew begins anew: an empty spool directory, and nothing said yet.
func (b *box) renew() {
	b.t.Helper()
	b.ledger, b.judged = new(oracle.Ledger), len(b.server.Messages())
	if err := os.RemoveAll(b.spool); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Mkdir(b.spool, 0o755); err != nil {
		b.t.Fatal(err)
	}
}

// clean reports what is left of large content when nothing is queued.
func (b *box) clean() error {
	left, err := filepath.Glob(filepath.Join(b.spool, "content", "*"))
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("content of nobody is left: %q", left)
	}
	return err
}

// drops is how many drop files wait.
func (b *box) drops() int {
	names, _ := filepath.Glob(filepath.Join(b.spool, "drop", strings.Repeat("[0-9a-f]", 32)))
	return len(names)
}

// queued is how many messages the runner has; -1 when it did not say.
func (b *box) queued() int {
	cmd := b.postino("queue", "--json")
	var out bytes.Buffer
	cmd.Stdout = &out
	if b.run(cmd) != 0 {
		return -1
	}
	return bytes.Count(out.Bytes(), []byte("\n"))
}

// check fails the test where a verdict is bad. refusedToo: what ended with an
// error must not be there.
func check(v oracle.Verdict, duplicates int, refusedToo bool, more ...error) error {
	err := errors.Join(append(more, v.Err(duplicates))...)
	if refusedToo && len(v.Refused) > 0 {
		err = errors.Join(err, fmt.Errorf("ended with an error and stored: %q", v.Refused))
	}
	return err
}
