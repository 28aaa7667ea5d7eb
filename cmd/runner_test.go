package cmd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"postino/delivery/relay/relaytest"
)

// A wrong configuration is told and changes nothing; a right one is in use from
// then on.
func TestReloadKeepsTheOldConfigurationWhenTheNewIsWrong(t *testing.T) {
	t.Parallel()
	first, b := plainRelay(t)
	second := relaytest.New(t, relaytest.Options{})
	r := b.start()
	b.sendmail("Subject: one\n\nhi\n", "alice@example.org")
	b.log.awaitN(t, 1, "msg=finished")

	b.configure("mode = \"delivr\"\n" + relayTo(second.Port()))
	r.reload("configuration not reloaded")
	b.log.await(t, "level=ERROR", "postino.toml:3:", "mode")
	b.sendmail("Subject: two\n\nhi\n", "alice@example.org")
	b.log.awaitN(t, 2, "msg=finished")

	// A file that is gone is wrong too: the defaults would be another configuration.
	if err := os.Remove(b.config); err != nil {
		t.Fatal(err)
	}
	r.reload("configuration not reloaded")

	b.configure("max_message_size = \"2KiB\"\n" + relayTo(second.Port()))
	r.reload("configuration reloaded")
	b.sendmail("Subject: three\n\nhi\n", "alice@example.org")
	b.log.awaitN(t, 3, "msg=finished")
	if a, z := len(first.Messages()), len(second.Messages()); a != 2 || z != 1 {
		t.Errorf("%d messages to the first smarthost and %d to the second, want 2 and 1", a, z)
	}
	if got := b.run(b.command(strings.Repeat("x\n", 2000), b.front, "alice@example.org")); got.code != 65 {
		t.Errorf("above the new limit: %+v, want status 65", got)
	}
}

// Whoever edits the aliases file calls newaliases, and expects that to be all. A
// wrong file is reported and changes nothing.
func TestNewaliasesHasTheRunnerReload(t *testing.T) {
	t.Parallel()
	_, b := plainRelay(t)
	b.start()
	file := filepath.Join(b.dir, "aliases")
	for _, tt := range []struct {
		text string
		want result
	}{
		{"root: bob@example.org\nbroken\n", result{78, "", fmt.Sprintf("newaliases: %s:2: ", file)}},
		{"root: bob@example.org\n", result{}},
	} {
		if err := os.WriteFile(file, []byte(tt.text), 0o644); err != nil {
			t.Fatal(err)
		}
		b.configure("[aliases]\nfile = \"" + file + "\"\n")
		got := b.run(b.command("", filepath.Join(filepath.Dir(program("postino")), "newaliases")))
		if got.code != tt.want.code || got.out != "" || !strings.HasPrefix(got.err, tt.want.err) || tt.want.err == "" && got.err != "" {
			t.Errorf("%q: %+v, want %+v", tt.text, got, tt.want)
		}
	}
	b.log.awaitN(t, 1, "configuration reloaded")
}

// Two runners never share a spool: the second says who has it and leaves.
func TestSecondRunnerSaysWhoHasTheSpool(t *testing.T) {
	t.Parallel()
	_, b := plainRelay(t)
	r := b.start()
	second := b.run(b.command("", program("postino"), "run"))
	if second.code != 1 || !strings.Contains(second.err, fmt.Sprintf("pid %d", r.cmd.Process.Pid)) || !strings.Contains(second.err, b.spool) {
		t.Errorf("%+v, want status 1, the spool and pid %d", second, r.cmd.Process.Pid)
	}
	if !b.accepts("submit.sock") || !b.accepts("control.sock") {
		t.Error("the first runner's sockets are gone")
	}
	r.stop()
	if b.accepts("submit.sock") || b.accepts("control.sock") {
		t.Error("after its end somebody still listens")
	}
	b.start().stop()
}

// autostart is a box in which the front end finds its sibling.
func autostart(t testing.TB, s *relaytest.Server) *box {
	b := newBox(t, relayTo(s.Port())+"[retry]\nfirst = \"1h\"\nmax = \"1h\"\n")
	b.front = program("sendmail")
	t.Cleanup(func() {
		if pid := b.holder(); pid != 0 && alive(pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if t.Failed() {
			text, err := os.ReadFile(filepath.Join(b.spool, "postino.log"))
			t.Logf("the log in the spool directory, %v:\n%s", err, text)
		}
	})
	return b
}

// unlocked reports whether nobody has the spool.
func (b *box) unlocked() bool {
	f, err := os.Open(filepath.Join(b.spool, "lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}

// With a spool of the caller's own and nobody listening the front end sees to it
// that the mail goes out, and nothing stays behind.
func TestFrontEndStartsARunnerThatLeaves(t *testing.T) {
	t.Parallel()
	s := relaytest.New(t, relaytest.Options{})
	b := autostart(t, s)
	const burst = 3
	for i := range burst {
		b.sendmail(fmt.Sprintf("Subject: burst %d\n\nhi\n", i), "alice@example.org")
	}
	poll(t, "the mail", func() bool { return len(s.Messages()) == burst })
	poll(t, "the end of the runner", func() bool { return !b.accepts("control.sock") && b.unlocked() })
	for i := range burst {
		if messageWith(t, s, fmt.Sprintf("burst %d", i)) == nil {
			t.Errorf("burst %d did not arrive", i)
		}
	}
	poll(t, "the end of all its processes", func() bool { return len(b.processes()) == 0 })
	b.empty()
	if n := b.drops(); n != 0 {
		t.Errorf("%d files in drop/, want none", n)
	}
}

// processes are those of our programs that have this spool in their environment.
func (b *box) processes() []string {
	b.t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		b.t.Fatal(err)
	}
	var found []string
	for _, name := range names {
		// Processes come and go; what cannot be read is not ours.
		if env, err := os.ReadFile(name); err == nil && strings.Contains(string(env), "POSTINO_SPOOL="+b.spool+"\x00") {
			found = append(found, filepath.Dir(name))
		}
	}
	return found
}

// A full runner takes over from one that was started for the moment, which would
// otherwise stay as long as mail is deferred.
func TestFullRunnerTakesOver(t *testing.T) {
	t.Parallel()
	s := relaytest.New(t, relaytest.Options{Rules: []relaytest.Rule{{At: "MAIL", Reply: "451 4.3.0 later"}}})
	b := autostart(t, s)
	b.sendmail("Subject: deferred\n\nhi\n", "alice@example.org")
	poll(t, "an attempt", func() bool { return len(s.Commands()) > 0 && b.accepts("control.sock") })
	first := b.holder()
	if first == 0 || !alive(first) {
		t.Fatalf("nobody has the spool (pid %d)", first)
	}
	r := b.start()
	if now := b.holder(); now != r.cmd.Process.Pid {
		t.Errorf("pid %d has the spool, want %d", now, r.cmd.Process.Pid)
	}
	poll(t, "the end of the first", func() bool { return !alive(first) })
	s.SetRules()
	b.postino("retry", "--all")
	b.log.await(t, "msg=finished")
	if len(s.Messages()) != 1 {
		t.Errorf("%d messages arrived, want 1", len(s.Messages()))
	}
	r.stop()
}

// Who has the spool for a moment and answers nothing, as a runner that begins or
// ends and a command that reads, is waited for.
func TestRunnerWaitsForASilentHolder(t *testing.T) {
	t.Parallel()
	_, b := plainRelay(t)
	b.start().stop()
	lock, err := os.OpenFile(filepath.Join(b.spool, "lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	r := b.launch()
	seen := 0
	awaitIn(t, b.spool, "attempts to get the lock", func() bool {
		seen++
		return seen > 5 // each attempt opens the file and closes it
	})
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	awaitIn(t, b.spool, "the runner", func() bool { return b.holder() == r.cmd.Process.Pid })
}

// The configuration is refused before anything is done, and the place is told.
func TestConfigurationErrorsHaveAPlace(t *testing.T) {
	t.Parallel()
	b := newBox(t, "[relay]\nhost = \"relay.test\"\nprot = 587\n")
	for _, args := range [][]string{{"run"}, {"config", "check"}, {"config", "check", b.config}, {"config", "show"}} {
		r := b.run(b.command("", program("postino"), args...))
		if r.code != 78 || !regexp.MustCompile(`postino: .*postino\.toml:5:1: .*relay\.prot`).MatchString(r.err) {
			t.Errorf("%q: %+v, want status 78 and postino.toml:5:1", args, r)
		}
		if !strings.Contains(r.err, `"relay.port"`) && !strings.Contains(r.err, "port") {
			t.Errorf("%q does not say what may be meant: %s", args, r.err)
		}
	}
	// Callers do not depend on it.
	b.sendmail("Subject: hi\n\nhi\n", "alice@example.org")
	if n := b.drops(); n != 1 {
		t.Errorf("%d files in drop/, want 1", n)
	}
	b.configure("")
	if out := b.postino("config", "check"); !strings.Contains(out, "ok") {
		t.Errorf("config check of a good file: %q", out)
	}
}
