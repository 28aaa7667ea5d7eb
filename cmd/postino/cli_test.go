package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postino/delivery/control"
	"postino/spool"
	"postino/spool/address"
	"postino/spool/standstill"
)

const (
	testOwner    = 1999  // of the spool; no user of the system
	testStranger = 65534 // an ordinary user
)

// patience is how long a test waits before it fails, longer than a machine may stand
// still. Only a broken program has it waited for.
const patience = 3 * time.Minute

// built is the program.
var built = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "postino")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "postino")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return os.ReadFile(path)
})

// place is a directory with the program under all its names, and a spool that
// belongs to testOwner.
type place struct {
	dir, spool, config string
}

func newPlace(t *testing.T) *place {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI has to run as root")
		}
		t.Skip("only root can become somebody else")
	}
	p := &place{dir: t.TempDir()}
	p.spool, p.config = filepath.Join(p.dir, "spool"), filepath.Join(p.dir, "postino.toml")
	steps := []error{
		os.Chmod(filepath.Dir(p.dir), 0o755), os.Chmod(p.dir, 0o755),
		os.Mkdir(p.spool, 0o755), os.Chown(p.spool, testOwner, testOwner),
		os.WriteFile(p.config, []byte("hostname = \"h.test\"\ndomain = \"h.test\"\nmode = \"hold\"\n"), 0o644),
	}
	program, err := built()
	if err != nil {
		t.Fatal(err)
	}
	steps = append(steps, os.WriteFile(filepath.Join(p.dir, "postino"), program, 0o755))
	for _, name := range []string{"sendmail", "mailq", "newaliases", "runq", "hoststat", "smtpd"} {
		steps = append(steps, os.Symlink("postino", filepath.Join(p.dir, name)))
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	return p
}

// call is a command line to be run as a user, to its end.
func (p *place) call(t *testing.T, uid uint32, line ...string) *exec.Cmd {
	t.Helper()
	return p.as(uid, standstill.Command(t, patience, filepath.Join(p.dir, line[0]), line[1:]...))
}

// command is a command line to be run as a user until it is told to end.
func (p *place) command(uid uint32, line ...string) *exec.Cmd {
	return p.as(uid, exec.Command(filepath.Join(p.dir, line[0]), line[1:]...))
}

func (p *place) as(uid uint32, cmd *exec.Cmd) *exec.Cmd {
	cmd.Env = []string{"POSTINO_SPOOL=" + p.spool, "POSTINO_CONFIG=" + p.config, "TZ=UTC"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return cmd
}

type result struct {
	stdout, stderr string
	status         int
}

func (p *place) run(t *testing.T, uid uint32, line ...string) result {
	t.Helper()
	cmd := p.call(t, uid, line...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// A message that nobody may take for one.
	cmd.Stdin = strings.NewReader("To: bob@example.net\n\nhi\n")
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// hold opens the spool while nobody has it; release gives it back to its owner.
func (p *place) hold(t *testing.T) (s *spool.Spool, release func()) {
	t.Helper()
	s, err := spool.Open(p.spool, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	give := func() error {
		entries, err := os.ReadDir(p.spool)
		for _, e := range entries {
			err = errors.Join(err, os.Chown(filepath.Join(p.spool, e.Name()), testOwner, testOwner))
		}
		return err
	}
	if err := give(); err != nil {
		t.Error(err)
	}
	return s, func() {
		if err := errors.Join(give(), s.Close()); err != nil {
			t.Error(err)
		}
	}
}

// store puts a message into the spool while nobody has it.
func (p *place) store(t *testing.T, uid int, subject string) spool.ID {
	t.Helper()
	s, release := p.hold(t)
	defer release()
	d, err := s.NewDraft(0)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(d, "Subject: "+subject+"\r\n\r\nhello\r\n")
	id, err := d.Commit(&spool.Message{
		Arrived: arrival, Sender: address.Address{Local: "alice", Domain: "example.net"}, Subject: subject,
		Recipients: []spool.Recipient{{Address: address.Address{Local: "bob", Domain: "example.org"}, Status: spool.Queued}},
		Origin:     spool.Origin{Via: spool.ViaSocket, UID: uid},
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// start runs the runner until the test ends, or until stop.
func (p *place) start(t *testing.T, uid uint32) (stop func()) {
	t.Helper()
	cmd := p.command(uid, "postino", "run")
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		late(t, cmd)
		if err := cmd.Wait(); err != nil {
			t.Errorf("runner: %v\n%s", err, log.String())
		}
	})
	t.Cleanup(stop)
	p.await(t, cmd.Process.Pid)
	return stop
}

// late fails the test and kills a process if it is still there after patience.
func late(t *testing.T, cmd *exec.Cmd) {
	timer := time.AfterFunc(patience, func() {
		t.Errorf("%q is not through within %v:\n%s", cmd.Args, patience, standstill.Of(cmd.Process.Pid))
		_ = cmd.Process.Kill()
	})
	t.Cleanup(func() { timer.Stop() })
}

// await waits until the runner, which may be the process pid, answers.
func (p *place) await(t *testing.T, pid ...int) (st control.Status) {
	t.Helper()
	c := control.Dial(p.spool)
	defer c.Close()
	standstill.Wait(t, patience, "the runner answers", func() (ok bool) {
		var err error
		st, err = c.Status(t.Context())
		return err == nil
	}, pid...)
	return st
}

// cliLine is a command line and what comes of it.
type cliLine struct {
	uid    uint32
	line   string
	status int
	stdout string // a part of it; "-" means nothing
	stderr string // likewise; "" means nothing
}

func (p *place) lines(t *testing.T, lines []cliLine) {
	t.Helper()
	for _, tt := range lines {
		r := p.run(t, tt.uid, strings.Fields(tt.line)...)
		if r.status != tt.status || !strings.Contains(r.stderr, tt.stderr) || tt.stderr == "" && r.stderr != "" ||
			tt.stdout == "-" && r.stdout != "" || tt.stdout != "-" && !strings.Contains(r.stdout, tt.stdout) {
			t.Errorf("%q as %d: got %+v, want %+v", tt.line, tt.uid, r, tt)
		}
	}
}

func TestWithoutRunnerTheSpoolIsReadByItsOwnerAndRoot(t *testing.T) {
	p := newPlace(t)
	id := p.store(t, 1500, "hello")
	drop := filepath.Join(p.spool, spool.DropDir)
	if err := errors.Join(os.Mkdir(drop, 0o733), os.Chmod(drop, 0o733|os.ModeSticky|os.ModeSetgid), os.Chown(drop, testOwner, testOwner),
		os.WriteFile(filepath.Join(drop, "06423b2f1c0a5e770000000000000000"), []byte(session), 0o644)); err != nil {
		t.Fatal(err)
	}
	// Root reads as the owner: what the owner cannot read is not there.
	unreadable := filepath.Join(drop, "06423b2f1c0a5e780000000000000000")
	if err := errors.Join(os.WriteFile(unreadable, []byte(session), 0o600), os.Chown(unreadable, 1500, 1500)); err != nil {
		t.Fatal(err)
	}
	for _, uid := range []uint32{0, testOwner} {
		r := p.run(t, uid, "mailq")
		if r.status != 0 || !strings.Contains(r.stdout, id.String()+" ") || !strings.Contains(r.stdout, "06423B2F1C0A5E77 ") ||
			!strings.HasSuffix(r.stdout, "\n-- 0 Kbytes in 2 Requests.\n") {
			t.Errorf("mailq as %d: %+v", uid, r)
		}
		if r := p.run(t, uid, "postino", "trace", "bob@EXAMPLE.org", "--json"); r.status != 0 || !strings.Contains(r.stdout, `"id":"`+id.String()) {
			t.Errorf("trace as %d: %+v", uid, r)
		}
		if r := p.run(t, uid, "postino", "show", id.String(), "--content"); r.stdout != "Subject: hello\r\n\r\nhello\r\n" {
			t.Errorf("show --content as %d: %+v", uid, r)
		}
	}
	for _, line := range [][]string{{"mailq"}, {"sendmail", "-bp"}, {"sendmail", "-bP"}, {"postino", "queue", "--json"}, {"postino", "trace", "x"}} {
		r := p.run(t, testStranger, line...)
		want := line[0] + `: the runner is not running and only its user may read the spool: ask root, or start it with "postino run"` + "\n"
		if r.status != 69 || r.stderr != want || r.stdout != "" {
			t.Errorf("%v as a stranger: %+v", line, r)
		}
	}
	for _, e := range []string{"spool.db", "lock"} {
		info, err := os.Stat(filepath.Join(p.spool, e))
		if err != nil || !ownedBy(info, testOwner) {
			t.Errorf("%s is not the owner's any more: %v", e, err)
		}
	}
}

func TestWithRunnerEverybodyGetsAnAnswer(t *testing.T) {
	p := newPlace(t)
	id := p.store(t, 1500, "hello").String()
	p.start(t, 0) // as root: it becomes the owner
	p.lines(t, []cliLine{
		{testStranger, "mailq", 0, "[hidden]", ""},
		{testStranger, "sendmail -bP", 0, "1\n", ""},
		{1500, "sendmail -bp", 0, "bob@example.org\n\n-- 0 Kbytes in 1 Request.\n", ""},
		{testStranger, "postino trace bob@example.org", 1, "-", "no message known"},
		{testStranger, "postino show " + id, 1, "-", "no such message"},
		{testStranger, "postino hold " + id, 77, "-", "not allowed"},
		{testStranger, "sendmail -bv root", 0, "root@h.test: held", ""},
		{testStranger, "sendmail -q", 0, "-", ""},
		{testStranger, "runq", 0, "-", ""},
		{0, "sendmail -q30m", 0, "-", ""},
		{testStranger, "sendmail -q30m", 0, "-", ""},
		{0, "sendmail -qI000000", 0, "-", ""},
		{0, "postino hold " + id, 0, "1 message held\n", ""},
		{testOwner, "postino show " + id, 0, "held by uid 0", ""},
		{testOwner, "postino retry " + id, 1, "-", "release it"},
		{testOwner, "postino release --all", 0, "1 message released\n", ""},
		{testOwner, "postino retry --all", 0, "1 message due now\n", ""},
		{testOwner, "postino hold --from @nowhere.test", 0, "0 messages held\n", ""},
		{testStranger, "postino delete --all --dry-run", 77, "-", "not allowed"},
		{0, "postino delete --to bob --older 1s --dry-run", 0, "alice@example.net -> bob@example.org\n1 message would be deleted\n", ""},
		{testOwner, "postino retry --json " + id, 0, `"status":"queued"`, ""},
		{0, "postino delete " + id + " 0000000000000001", 1, "1 message deleted\n", "0000000000000001: no such message"},
		{0, "mailq", 0, "Mail queue is empty\n", ""},
		{0, "postino trace hello", 0, "5.7.1 deleted by uid 0", ""},
		{0, "postino show " + id + " --content", 1, "-", "content is gone"},
		{0, "postino run", 1, "-", "held by pid"},
	})
}

func TestCommandLines(t *testing.T) {
	p := newPlace(t)
	bad := filepath.Join(p.dir, "bad.toml")
	if err := os.WriteFile(bad, []byte("nonsense = 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		line   string
		status int
		stdout string // "-" means nothing
		stderr string
	}{
		{"postino", 64, "-", "no command"},
		{"postino nonsense", 64, "-", `"nonsense" is not a command`},
		{"postino config", 64, "-", "not complete"},
		{"postino help", 0, "trace WHAT", ""},
		{"postino --help", 0, "trace WHAT", ""},
		{"postino config --help", 0, "config check", ""},
		{"postino help aliases", 0, "See postino-aliases(8)", ""},
		{"postino help aliases check", 0, "See postino-aliases(8)", ""},
		{"postino help queue", 0, "See postino-queue(8)", ""},
		{"postino help aliases nonsense", 64, "-", "postino help aliases"},
		{"postino help config show", 0, "usage: postino config show", ""},
		{"postino trace --help", 0, "postino trace bob@example.org", ""},
		{"postino queue --nonsense", 64, "-", "postino help queue"},
		{"postino show xyz", 64, "-", "not a queue ID"},
		{"postino hold", 64, "-", "--all"},
		{"postino hold --all 0000000000000001", 64, "-", "--all"},
		{"postino delete --all --from a@b.test", 64, "-", "alone"},
		{"postino delete --from=", 64, "-", "empty"},
		{"postino queue --older 3", 64, "-", "not a duration"},
		{"postino queue --status gone", 64, "-", "not a status"},
		{"postino queue --uid 4294967294", 0, "Mail queue is empty\n", ""},
		{"postino queue --uid -1", 64, "-", "no user"},
		{"postino queue --uid no-such-user", 64, "-", "give the number"},
		{"postino queue --uid root --hop relay --limit 3 --newer 1d", 0, "Mail queue is empty\n", ""},
		{"postino help delete", 0, "--older TIME", ""},
		{"postino hold 0000000000000001", 69, "-", "not running"},
		{"postino show 0000000000000001", 1, "-", "no such message"},
		{"postino trace <unknown@id>", 1, "-", "no message known"},
		{"postino trace -- -x", 1, "-", `"-x"`},
		{"postino capture list", 0, "-", ""},
		{"postino capture show 0000000000000001", 1, "-", "no such message"},
		{"postino version --json", 0, `{"version":"dev"}` + "\n", ""},
		{"postino config check", 0, ": ok\n", ""},
		{"postino config check " + bad, 78, "-", "nonsense"},
		{"postino --config " + bad + " config check", 78, "-", "nonsense"},
		{"postino config show --config " + bad, 78, "-", "nonsense"},
		{"postino config check " + bad + ".missing", 78, "-", "no such file"},
		{"postino config show", 0, `mode = "hold"`, ""},
		{"postino --spool " + bad + ".missing queue", 69, "-", "start the runner once"},
		{"postino queue", 0, "Mail queue is empty\n", ""},
		{"mailq -v", 0, "Mail queue is empty\n", ""},
		{"sendmail -bp", 0, "Mail queue is empty\n", ""},
		{"sendmail -bp -t", 64, "-", "takes neither"},
		{"mailq bob", 64, "-", "takes neither"},
		{"mailq --help", 0, "usage: mailq", ""},
		{"newaliases", 0, "-", ""},
		{"newaliases -bp", 0, "-", ""},
		{"sendmail -bi", 0, "-", ""},
		{"sendmail -I", 0, "-", ""},
		{"sendmail -bh", 0, "-", ""},
		{"sendmail -bH", 0, "-", ""},
		{"hoststat", 0, "-", ""},
		{"sendmail -q", 0, "-", ""},
		{"sendmail -qf -v", 0, "-", ""},
		{"sendmail -bm -q", 0, "-", ""},
		{"sendmail -bC", 0, ": ok\n", ""},
		{"sendmail -bV", 0, "postino dev\n", ""},
		{"sendmail -bv bob@example.net root,x@y", 0, "bob@example.net: held", ""},
		{"sendmail -bv root", 0, "root@h.test: held", ""},
		{"sendmail -bv bob@", 67, "-", `"bob@"`},
		{"sendmail -bv", 64, "-", "needs an address"},
		{"postino route --json bob@example.net", 0, `{"address":"bob@example.net","hop":"held`, ""},
		{"postino --config " + bad + " route bob@example.net", 78, "-", "nonsense"},
		{"postino aliases check " + bad, 78, "-", "bad.toml:1: "},
		{"postino aliases check " + bad + ".missing", 0, "-", ""},
		{"sendmail -bi -oA" + bad, 78, "-", "bad.toml:1: "},
		{"sendmail -q bob", 64, "-", "neither recipients"},
		{"sendmail -q -t", 64, "-", "neither recipients"},
		{"sendmail -bi bob", 64, "-", "neither recipients"},
		{"sendmail -bh bob", 64, "-", "neither recipients"},
		{"postino --config " + bad + ".missing queue", 0, "Mail queue is empty\n", ""},
		{"postino --config " + bad + ".missing run", 78, "-", "no such file"},
		{"sendmail -bt", 64, "-", "-bt is not a mode"},
		{"sendmail -be ${run{id}}", 64, "-", "-be is not a mode"},
		{"sendmail -bm bob@example.net", 64, "-", "takes no messages"},
		{"sendmail bob@example.net", 64, "-", "takes no messages"},
		{"sendmail -b", 64, "-", "needs a value"},
		{"sendmail -y -bp", 64, "-", "not an option"},
	} {
		r := p.run(t, 0, strings.Fields(tt.line)...)
		if r.status != tt.status || !strings.Contains(r.stderr, tt.stderr) || tt.stderr == "" && r.stderr != "" ||
			tt.stdout == "-" && r.stdout != "" || tt.stdout != "-" && !strings.Contains(r.stdout, tt.stdout) {
			t.Errorf("%q: got %+v, want %+v", tt.line, r, tt)
		}
	}
	for _, line := range []string{"sendmail -bd", "sendmail -bD", "sendmail -bl", "sendmail -bd -q30m", "smtpd"} {
		if r := p.run(t, testStranger, strings.Fields(line)...); r.status != 77 {
			t.Errorf("%q as a stranger: %+v", line, r)
		}
	}
	// PA-002: nobody makes us open a file by -C.
	if r := p.run(t, testStranger, "sendmail", "-C/etc/shadow", "-bp"); r.status != 64 || strings.Contains(r.stderr, "root:") {
		t.Errorf("-C as a stranger: %+v", r)
	}
}

func TestDaemonRunsAsTheOwnerAndIsReadyWhenBdReturns(t *testing.T) {
	p := newPlace(t)
	if r := p.run(t, 0, "sendmail", "-bd", "-q30m"); r != (result{}) {
		t.Fatalf("got %+v", r)
	}
	st := p.await(t)
	t.Cleanup(func() {
		_ = syscall.Kill(st.PID, syscall.SIGTERM)
		standstill.Wait(t, patience, "the runner ends", func() bool { return syscall.Kill(st.PID, 0) != nil }, st.PID)
		// The second -bd waited for the end of what it started, or that would have
		// the spool now.
		for _, pid := range p.runners(t) {
			t.Errorf("runner %d is left", pid)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	status, err := os.ReadFile("/proc/" + strconv.Itoa(st.PID) + "/status")
	if err != nil || !strings.Contains(string(status), "Uid:\t1999\t1999\t1999\t1999\n") || !strings.Contains(string(status), "Groups:\t1999 \n") {
		t.Errorf("the runner is\n%s%v", status, err)
	}
	if r := p.run(t, 0, "sendmail", "-bd"); r != (result{}) {
		t.Errorf("a second -bd: %+v", r)
	}
}

// runners returns the IDs of the processes that have the place's spool.
func (p *place) runners(t *testing.T) []int {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, path := range lines {
		if line, err := os.ReadFile(path); err == nil && bytes.Contains(line, []byte(p.spool)) {
			pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestDaemonThatCannotStartSaysWhere(t *testing.T) {
	p := newPlace(t)
	if err := os.WriteFile(p.config, []byte("nonsense = 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := p.run(t, 0, "sendmail", "-bd")
	if r.status != 69 || !strings.Contains(r.stderr, spool.LogFile) {
		t.Errorf("got %+v", r)
	}
	if log, err := os.ReadFile(filepath.Join(p.spool, spool.LogFile)); err != nil || !strings.Contains(string(log), "nonsense") {
		t.Errorf("log: %q, %v", log, err)
	}
}
