// Package powercut_test cuts the power, of disks that it makes up and of a guest
// machine, and counts what is left of what was accepted.
//
// All chance comes from seeds that each test prints; CONTRIBUTING.md says how to
// repeat a run and how to run the full sizes.
package powercut_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postino/cmd/durability/disk"
	"postino/cmd/durability/mutant"
	"postino/cmd/durability/oracle"
	"postino/delivery/relay/relaytest"
	"postino/spool/standstill"
)

const (
	// root is where the module is.
	root = "../../.."
	// patience bounds every wait, on a machine too that stands still for half a minute.
	patience = 3 * time.Minute
)

// skip skips a test that this machine has no means for. In CI it fails.
func skip(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// number is the environment variable of that name, or usual.
func number(t testing.TB, name string, usual int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// newSeed is POSTINO_SEED, or another one each time.
func newSeed(t testing.TB) uint64 {
	t.Helper()
	seed := uint64(number(t, "POSTINO_SEED", int(time.Now().UnixNano()&(1<<40-1))))
	t.Logf("POSTINO_SEED=%d", seed)
	return seed
}

func newRandom(seed uint64, more int) *rand.Rand { return rand.New(rand.NewPCG(seed, uint64(more))) }

// programs builds the programs, with a mistake in them if m is one, and returns
// the directory that has them.
func programs(t testing.TB, m *mutant.Mutant) string {
	t.Helper()
	dir := t.TempDir()
	var err error
	if m == nil {
		err = mutant.Build(root, dir)
	} else {
		err = m.Build(root, dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// recorder is a running recordfs.
type recorder struct {
	dir string // where it is mounted
	log string
	cmd *exec.Cmd

	mu      sync.Mutex
	in      io.WriteCloser
	answers *bufio.Scanner
}

// record mounts a file system that records. It ends with the test.
func record(t testing.TB, args ...string) *recorder {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "only root can mount")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		skip(t, "no FUSE: %v", err)
	}
	tmp := t.TempDir()
	program := filepath.Join(tmp, "recordfs")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", program, "postino/cmd/durability/recordfs")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, text)
	}
	r := &recorder{dir: filepath.Join(tmp, "disk"), log: filepath.Join(tmp, "log")}
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.cmd = exec.Command(program, append(append([]string{"-log", r.log}, args...), r.dir)...)
	r.cmd.Stderr = os.Stderr
	out, err := r.cmd.StdoutPipe()
	if err == nil {
		r.in, err = r.cmd.StdinPipe()
	}
	if err == nil {
		err = r.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.stop() })
	if r.answers = bufio.NewScanner(out); !r.answers.Scan() || r.answers.Text() != "ready" {
		t.Fatalf("recordfs: %q", r.answers.Text())
	}
	return r
}

// mark puts a mark into the log and returns when it is there.
func (r *recorder) mark(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintln(r.in, text)
	r.answers.Scan()
}

func (r *recorder) stop() error {
	r.in.Close()
	return r.cmd.Wait()
}

// ops unmounts and returns the log.
func (r *recorder) ops(t testing.TB) []disk.Op {
	t.Helper()
	if err := r.stop(); err != nil {
		t.Fatalf("recordfs: %v", err)
	}
	f, err := os.Open(r.log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ops, err := disk.ReadLog(f)
	if err != nil {
		t.Fatal(err)
	}
	return ops
}

// world is an installation whose spool is on a recorder.
type world struct {
	*recorder
	t      testing.TB
	bin    string
	alone  string // sendmail, which finds no postino beside it
	spool  string
	config string
	server *relaytest.Server
	ledger oracle.Ledger

	mu     sync.Mutex
	random *rand.Rand // guarded by mu
	sent   int        // guarded by mu
}

// newWorld has no spool directory yet. What goes to defer@ stays in the queue; the
// configuration begins with settings.
func newWorld(t testing.TB, r *recorder, bin string, random *rand.Rand, settings string) *world {
	t.Helper()
	tmp := t.TempDir()
	w := &world{recorder: r, t: t, bin: bin, random: random, spool: filepath.Join(r.dir, "spool"),
		config: filepath.Join(tmp, "postino.toml"), alone: filepath.Join(tmp, "sendmail")}
	w.server = relaytest.New(t, relaytest.Options{Rules: []relaytest.Rule{{At: "RCPT", Arg: "defer@", Reply: "451 4.2.1 later"}}})
	text := fmt.Sprintf("hostname = \"web.test\"\ndomain = \"web.test\"\n%s\n"+
		"[relay]\nhost = \"127.0.0.1\"\nport = %d\ntls = \"none\"\n[retry]\nfirst = \"1s\"\nmax = \"1s\"\n", settings, w.server.Port())
	if err := os.WriteFile(w.config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(bin, "sendmail"), w.alone); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC", "POSTINO_SPOOL=" + w.spool, "POSTINO_CONFIG=" + w.config}
	cmd.Dir = "/"
	cmd.WaitDelay = patience
	return cmd
}

// submit calls sendmail with a message of so many lines, and returns how it ended.
// The log has a mark when that was well.
func (w *world) submit(to string, lines int) int {
	w.mu.Lock()
	w.sent++
	message, sub := oracle.Compose(w.random, fmt.Sprintf("m%d", w.sent), lines)
	w.mu.Unlock()
	cmd := w.command(w.alone, "-i", "-f", "me@web.test", to)
	cmd.Stdin = strings.NewReader(message)
	_ = cmd.Run() // the status says it
	sub.Status = cmd.ProcessState.ExitCode()
	w.ledger.Add(sub)
	if sub.Status == 0 {
		w.mark(accepted + sub.Subject)
	}
	return sub.Status
}

// accepted begins a mark: the message of that subject was.
const accepted = "accepted "

// runner is a running `postino run`.
type runner struct {
	w    *world
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// launch starts a runner and waits for nothing.
func (w *world) launch() *runner {
	r := &runner{w: w, cmd: w.command(filepath.Join(w.bin, "postino"), "run"), done: make(chan struct{})}
	if testing.Verbose() {
		r.cmd.Stderr = os.Stderr
	}
	if err := r.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		_ = r.cmd.Wait() // its status is in ProcessState
		close(r.done)
	}()
	w.t.Cleanup(r.kill)
	return r
}

// ready waits until the runner takes submissions, or has ended: then false.
func (r *runner) ready() bool {
	r.w.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(r.w.spool, "submit.sock")); err == nil {
			return true
		}
		select {
		case <-r.done:
			return false
		default:
		}
	}
	r.w.t.Fatalf("the runner takes nothing within %v\n%s", patience, standstill.Of(r.cmd.Process.Pid))
	return false
}

func (r *runner) kill() {
	_ = r.cmd.Process.Kill() // it may have ended
	<-r.done
}

// stop ends the runner as a service manager does.
func (r *runner) stop() {
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.done:
	case <-time.After(patience):
		r.w.t.Errorf("after SIGTERM the runner has not ended within %v\n%s", patience, standstill.Of(r.cmd.Process.Pid))
		r.kill()
	}
}

// await waits for something that nothing announces.
func (w *world) await(what string, cond func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not within %v\n%s", what, patience, standstill.Of(os.Getpid()))
		}
	}
}
