package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"postino/config"
	"postino/delivery"
	"postino/delivery/control"
	"postino/spool"
	"postino/spool/address"
	"postino/spool/standstill"
)

// patience is how long a test waits for what has to come, so that a broken program ends
// it instead of hanging it. No stall of the machine comes near it.
const patience = 2 * time.Minute

const (
	stranger   = 65534 // an ordinary user
	admingroup = 4711
)

// TestMain is also the program that runs as somebody else: helper does what its
// first argument says and prints JSON.
func TestMain(m *testing.M) {
	if dir := os.Getenv("CONTROL_TEST_DIR"); dir != "" {
		helper(dir, os.Args[1], os.Args[2:])
		return
	}
	os.Exit(m.Run())
}

// seen is what a helper found out.
type seen struct {
	Queue    []control.Message
	Trace    []string
	Captured []string
	Errors   map[string]string
}

func helper(dir, what string, args []string) {
	if what == "listen" {
		l, err := net.Listen("unix", filepath.Join(dir, spool.ControlSocket))
		if err != nil {
			panic(err)
		}
		fmt.Println("ready")
		c, err := l.Accept()
		if err == nil {
			_, _ = io.Copy(io.Discard, c)
		}
		return
	}
	ctx := context.Background()
	c := control.Dial(dir)
	defer c.Close()
	if what == "follow" {
		for e, err := range c.Log(ctx, control.LogQuery{Follow: true}) {
			if err != nil {
				panic(err)
			}
			_ = json.NewEncoder(os.Stdout).Encode(e)
		}
		return
	}
	out := seen{Errors: map[string]string{}}
	for m, err := range c.Queue(ctx, control.Selection{}) {
		if err != nil {
			panic(err)
		}
		out.Queue = append(out.Queue, m)
	}
	for t, err := range c.Trace(ctx, "x@to.test") {
		if err != nil {
			panic(err)
		}
		out.Trace = append(out.Trace, t.ID.String())
	}
	for t, err := range c.Captured(ctx) {
		if err != nil {
			panic(err)
		}
		out.Captured = append(out.Captured, t.ID.String())
	}
	verdict := func(name string, err error) {
		out.Errors[name] = "ok"
		for _, known := range []error{spool.ErrNotFound, control.ErrNotAllowed, control.ErrConflict} {
			if errors.Is(err, known) {
				out.Errors[name] = known.Error()
				return
			}
		}
		if err != nil {
			out.Errors[name] = err.Error()
		}
	}
	id, err := spool.ParseID(args[0])
	if err != nil {
		panic(err)
	}
	_, err = c.Show(ctx, id)
	verdict("show", err)
	r, err := c.Content(ctx, id)
	if err == nil {
		r.Close()
	}
	verdict("content", err)
	for _, v := range []control.Verb{control.Hold, control.Release, control.Retry} {
		verdict(string(v), steer(ctx, c, v, id))
	}
	verdict("flush", c.Flush(ctx))
	_, err = c.Suspend(ctx, 4711, "")
	verdict("suspend", err)
	for _, err = range c.Suspensions(ctx) {
	}
	verdict("suspensions", err)
	_, err = c.Resume(ctx, 4711)
	verdict("resume", err)
	verdict("yield", c.Yield(ctx))
	verdict("reload", c.Reload(ctx))
	_, err = c.Compact(ctx)
	verdict("compact", err)
	for _, err = range c.Preview(ctx, control.Delete, control.Selection{}) {
	}
	verdict("preview", err)
	_, err = c.Hosts(ctx)
	verdict("hosts", err)
	_, err = c.Logins(ctx)
	verdict("logins", err)
	_, err = c.ForgetHost(ctx, "mx.test")
	verdict("forget", err)
	verdict("delete", steer(ctx, c, control.Delete, id))
	json.NewEncoder(os.Stdout).Encode(out)
}

// as is an ordinary user.
func as(uid uint32) *syscall.Credential { return &syscall.Credential{Uid: uid, Gid: uid} }

// steer does a verb to one message.
func steer(ctx context.Context, c *control.Client, v control.Verb, id spool.ID) error {
	var failed error
	for _, err := range c.Steer(ctx, v, control.Selection{IDs: []spool.ID{id}}) {
		failed = err
	}
	return failed
}

// runAs starts this program as a helper with another identity.
func runAs(t *testing.T, dir string, cred *syscall.Credential, args ...string) *exec.Cmd {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI has to run as root")
		}
		t.Skip("only root can become somebody else")
	}
	program := filepath.Join(dir, "helper")
	if _, err := os.Stat(program); err != nil {
		self, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(program, self, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := standstill.Command(t, patience, program, args...)
	cmd.Env = append(os.Environ(), "CONTROL_TEST_DIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	cmd.Stderr = os.Stderr
	return cmd
}

func ask(t *testing.T, dir string, cred *syscall.Credential, id spool.ID) seen {
	t.Helper()
	text, err := runAs(t, dir, cred, "ask", id.String()).Output()
	if err != nil {
		t.Fatal(err)
	}
	var out seen
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// sharedDir is a directory that everybody can reach.
func sharedDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

type world struct {
	dir    string
	spool  *spool.Spool
	client *control.Client
}

// newWorld serves a new spool until the test ends.
func newWorld(t testing.TB, o control.Options) *world {
	t.Helper()
	w := &world{dir: sharedDir(t)}
	runner, err := delivery.New(config.Default(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if w.spool, err = spool.Open(w.dir, spool.Options{Queued: runner.Queued}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(w.dir, spool.ControlSocket))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(w.dir, spool.ControlSocket), 0o666); err != nil {
		t.Fatal(err)
	}
	o.Spool, o.Runner, o.Version, o.Started = w.spool, runner, "1.2.3", time.Now()
	if o.Mode == nil {
		o.Mode = func() string { return "deliver" }
	}
	srv := control.NewServer(o)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	w.client = control.Dial(w.dir)
	t.Cleanup(func() {
		w.client.Close()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		srv.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Error(err)
		}
		runner.Close()
		if err := w.spool.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func addr(t testing.TB, s string) address.Address {
	t.Helper()
	a, err := address.ParsePath(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

const content = "Subject: hi\r\n\r\nhello\r\n"

// add commits a message and returns its ID.
func (w *world) add(t testing.TB, uid int, subject string, change func(*spool.Message)) spool.ID {
	t.Helper()
	m := &spool.Message{
		Arrived: time.Now(), Sender: addr(t, "from@sender.test"), Subject: subject, MessageID: "<" + subject + "@id.test>",
		Recipients: []spool.Recipient{{Address: addr(t, "x@to.test"), Status: spool.Queued}, {Address: addr(t, "y@To.TEST"), Status: spool.Queued}},
		Origin:     spool.Origin{Via: spool.ViaSocket, UID: uid, PID: 7, Program: "php"},
	}
	body := content
	if change != nil {
		change(m)
	}
	d, err := w.spool.NewDraft(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(d, body); err != nil {
		t.Fatal(err)
	}
	id, err := d.Commit(m)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

var deferral = spool.Reply{Code: 451, Status: "4.2.1", Text: "secret reason", Host: "mx.test[192.0.2.1]", Command: "RCPT"}

// attempt records one attempt for all recipients.
func (w *world) attempt(t *testing.T, id spool.ID, status spool.Status, reply spool.Reply, keep bool) {
	t.Helper()
	a := &spool.Attempt{At: time.Now().Add(-340 * time.Millisecond), Took: 340 * time.Millisecond, Hop: "relay r.test:587", TLS: "TLS1.3 verified", Keep: keep}
	m, err := w.spool.Message(id)
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.Recipients {
		o := spool.Outcome{Recipient: i, Status: status, Reply: reply}
		if !status.Settled() {
			o.Next = time.Now().Add(time.Hour)
		}
		a.Outcomes = append(a.Outcomes, o)
	}
	if _, err := w.spool.Record(id, a); err != nil {
		t.Fatal(err)
	}
}
