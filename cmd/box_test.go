package cmd_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// box is a private installation: a spool, a configuration, and what its runners
// said.
type box struct {
	t      testing.TB
	dir    string // readable for everybody, as the spool's parent has to be
	spool  string
	config string
	front  string // the sendmail that callers call
	log    *lines
}

// newBox lays out a box that belongs to whoever runs the test. The configuration
// begins with top-level keys.
func newBox(t testing.TB, config string) *box {
	t.Helper()
	dir, err := os.MkdirTemp("", "postino-box")
	if err != nil {
		t.Fatal(err)
	}
	b := &box{
		t: t, dir: dir, spool: filepath.Join(dir, "spool"), config: filepath.Join(dir, "postino.toml"),
		front: sendmailAlone(), log: newLines(),
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the runner's log:\n%s", b.log)
		}
		os.RemoveAll(dir)
	})
	for _, d := range []string{b.dir, b.spool} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b.configure(config)
	return b
}

// configure writes the configuration.
func (b *box) configure(text string) {
	b.t.Helper()
	text = "hostname = \"web.test\"\ndomain = \"web.test\"\n" + text
	if err := os.WriteFile(b.config, []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// giveTo makes the spool directory another user's. The runner then becomes that
// user.
func (b *box) giveTo(uid int) {
	b.t.Helper()
	needsRoot(b.t)
	if err := os.Chown(b.spool, uid, uid); err != nil {
		b.t.Fatal(err)
	}
}

// env is the environment of everything that runs in the box.
func (b *box) env() []string {
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + b.dir, "LC_ALL=C", "TZ=UTC",
		"POSTINO_SPOOL=" + b.spool, "POSTINO_CONFIG=" + b.config}
}

// command prepares a process in the box.
func (b *box) command(stdin, path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Env = b.env()
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(stdin)
	return cmd
}

// result is how a process ended.
type result struct {
	code     int
	out, err string
}

// run runs a process to its end.
func (b *box) run(cmd *exec.Cmd) result {
	b.t.Helper()
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = patience // for what a background child may keep open
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	stop := limited(b.t, cmd, patience)
	err := cmd.Wait()
	stop()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatalf("%v: %v", cmd.Args, err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// sendmail calls sendmail and wants the silence of success.
func (b *box) sendmail(message string, args ...string) {
	b.t.Helper()
	b.succeed(b.command(message, b.front, args...))
}

// succeed runs a caller or front end that has to end with 0 and in silence.
func (b *box) succeed(cmd *exec.Cmd) {
	b.t.Helper()
	if r := b.run(cmd); r != (result{}) {
		b.t.Fatalf("%q ended with %d\nstdout: %s\nstderr: %s\nwant 0 and silence", cmd.Args, r.code, r.out, r.err)
	}
}

// postino runs an admin's command and returns its output.
func (b *box) postino(args ...string) string {
	b.t.Helper()
	r := b.run(b.command("", program("postino"), args...))
	if r.code != 0 || r.err != "" {
		b.t.Fatalf("postino %q ended with %d\nstderr: %s", args, r.code, r.err)
	}
	return r.out
}

// drops is how many files wait in drop/.
func (b *box) drops() int {
	names, err := filepath.Glob(filepath.Join(b.spool, "drop", "*"))
	if err != nil {
		b.t.Fatal(err)
	}
	return len(names)
}

// runner is a `postino run` that the test started.
type runner struct {
	box  *box
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// start starts a runner and waits until it takes submissions and questions. It
// ends with the test.
func (b *box) start(args ...string) *runner {
	b.t.Helper()
	r := b.launch(args...)
	awaitIn(b.t, b.spool, "a runner", func() bool {
		return b.holder() == r.cmd.Process.Pid && b.accepts("submit.sock")
	})
	return r
}

// launch starts a runner and waits for nothing.
func (b *box) launch(args ...string) *runner {
	b.t.Helper()
	return b.launchBy(program("postino"), append([]string{"run"}, args...)...)
}

// launchBy is launch by way of a program that becomes the runner.
func (b *box) launchBy(path string, args ...string) *runner {
	b.t.Helper()
	r := &runner{box: b, cmd: b.command("", path, args...), done: make(chan struct{})}
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

// accepts reports whether somebody listens on a socket that everybody may use.
func (b *box) accepts(name string) bool {
	path := filepath.Join(b.spool, name)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o666 {
		return false
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// wait waits for the runner's end and returns its exit status, -1 after a signal.
func (r *runner) wait() int {
	r.box.t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		late(r.box.t, "the end of the runner")
	}
	return r.cmd.ProcessState.ExitCode()
}

// stop ends the runner as a service manager does.
func (r *runner) stop() {
	r.box.t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		r.box.t.Fatal(err)
	}
	if code := r.wait(); code != 0 {
		r.box.t.Errorf("after SIGTERM the runner ended with %d, want 0", code)
	}
}

// reload has the runner read its configuration, and waits for what it says.
func (r *runner) reload(says string) {
	r.box.t.Helper()
	before := r.box.log.count(says)
	if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		r.box.t.Fatal(err)
	}
	r.box.log.awaitN(r.box.t, before+1, says)
}

// kill ends the runner at once, if it has not ended yet.
func (r *runner) kill() {
	_ = r.cmd.Process.Kill() // it may have ended
	<-r.done
}

// holder is the process that has the spool, 0 when nobody has: the one that the
// kernel says listens on control.sock.
func (b *box) holder() int {
	conn, err := net.Dial("unix", filepath.Join(b.spool, "control.sock"))
	if err != nil {
		return 0
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		b.t.Fatal(err)
	}
	pid := 0
	if err := raw.Control(func(fd uintptr) {
		if cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	}); err != nil {
		b.t.Fatal(err)
	}
	return pid
}

// alive reports whether a process is there that is one of our programs.
func alive(pid int) bool {
	exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	if errors.Is(err, fs.ErrPermission) { // the runner lets nobody but root look into it
		line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		return err == nil && len(line) > 0
	}
	return err == nil && strings.HasPrefix(exe, os.Getenv(binVariable))
}

// relayTo is the configuration of a smarthost that wants neither TLS nor AUTH.
func relayTo(port int) string {
	return fmt.Sprintf("[relay]\nhost = \"127.0.0.1\"\nport = %d\ntls = \"none\"\n", port)
}
