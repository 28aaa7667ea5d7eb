package cmd_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const (
	nobodyUID = 65534
	strayUID  = 54321 // without an entry in the passwd file
	spoolUID  = 54320 // whose the spool is
)

// as has a process run as another user.
func as(uid int, cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	return cmd
}

// Everybody may submit, whether the runner is up or down, and it is recorded who
// did. Nobody else reads what waits in drop/, whatever the caller's umask.
func TestEveryUserMaySubmit(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	s, b := plainRelay(t)
	b.giveTo(spoolUID)
	// A runner that came once has laid out drop/.
	b.start().stop()
	users := []int{0, nobodyUID, strayUID}
	for _, umask := range []string{"000", "077"} {
		for _, uid := range users {
			call := b.command(fmt.Sprintf("Subject: down %s %d\n\nhi\n", umask, uid), "/bin/sh", "-c", `umask "$1"; exec "$2" alice@example.org`, "sh", umask, b.front)
			b.succeed(as(uid, call))
		}
	}
	files, err := filepath.Glob(filepath.Join(b.spool, "drop", "*"))
	if err != nil || len(files) != 2*len(users) {
		t.Fatalf("in drop/: %q, %v", files, err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o640 || info.Sys().(*syscall.Stat_t).Gid != spoolUID {
			t.Errorf("%s: mode %o group %d, want 640 and the runner's group", file, info.Mode().Perm(), info.Sys().(*syscall.Stat_t).Gid)
		}
	}
	info, err := os.Stat(filepath.Join(b.spool, "drop"))
	if err != nil || info.Sys().(*syscall.Stat_t).Mode&0o7777 != 0o3733 {
		t.Errorf("drop/ is %v, want 3733", info.Mode())
	}
	b.start()
	b.log.awaitN(t, 2*len(users), "msg=finished")
	for _, uid := range users {
		b.succeed(as(uid, b.command(fmt.Sprintf("Subject: up %d\n\nhi\n", uid), b.front, "alice@example.org")))
	}
	b.log.awaitN(t, 3*len(users), "msg=finished")
	if n := len(s.Messages()); n != 3*len(users) {
		t.Errorf("%d messages arrived, want %d", n, 3*len(users))
	}
	for _, uid := range users {
		for subject, via := range map[string]string{
			fmt.Sprintf("down 077 %d", uid): "drop",
			fmt.Sprintf("up %d", uid):       "socket",
		} {
			if tr := b.trace(subject); tr.UID != uid || tr.Via != via {
				t.Errorf("%s: uid %d via %s, want %d via %s", subject, tr.UID, tr.Via, uid, via)
			}
		}
	}
	if m := messageWith(t, s, fmt.Sprintf("up %d", strayUID)); m == nil || m.From != fmt.Sprintf("uid%d@web.test", strayUID) {
		t.Errorf("the sender of a uid without a name: %+v", m)
	}
}

// A runner that root starts on somebody's spool is that somebody from then on.
func TestRunnerBecomesTheOwnerOfTheSpool(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	for _, uid := range []int{nobodyUID, spoolUID} {
		s, b := plainRelay(t)
		b.giveTo(uid)
		r := b.start()
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("%d %[1]d %[1]d %[1]d", uid)
		for _, kind := range []string{"Uid:", "Gid:"} {
			if got := strings.Join(statusLine(string(status), kind), " "); got != want {
				t.Errorf("%s %s, want %s", kind, got, want)
			}
		}
		for _, group := range statusLine(string(status), "Groups:") {
			if group != fmt.Sprint(uid) {
				t.Errorf("it is still in group %s", group)
			}
		}
		if got := strings.Join(statusLine(string(status), "CapEff:"), " "); got != "0000000000000000" {
			t.Errorf("it still has capabilities: %s", got)
		}
		b.sendmail("Subject: hi\n\nhi\n", "alice@example.org")
		b.log.await(t, "msg=finished")
		if len(s.Messages()) != 1 {
			t.Errorf("as uid %d nothing was sent", uid)
		}
		checkOwner(t, b.spool, uid)
		// The queue is read by root when the runner is away, and stays the owner's.
		r.stop()
		b.empty()
		checkOwner(t, b.spool, uid)
	}
}

// statusLine is a line of /proc/PID/status, in words.
func statusLine(status, name string) []string {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strings.Fields(rest)
		}
	}
	return []string{"missing"}
}

// checkOwner wants all of a directory to be one user's.
func checkOwner(t testing.TB, dir string, uid int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if got := info.Sys().(*syscall.Stat_t).Uid; int(got) != uid {
			t.Errorf("%s belongs to uid %d, want %d", path, got, uid)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// An ordinary user sees that there is mail, but not whose.
func TestQueueOfOthersIsHidden(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	b := newBox(t, "mode = \"hold\"\n")
	b.giveTo(spoolUID)
	b.start()
	b.sendmail("Subject: private matter\n\nhi\n", "-f", "ceo@web.test", "lawyer@example.org")
	b.succeed(as(nobodyUID, b.command("Subject: mine\n\nhi\n", b.front, "alice@example.org")))
	for _, args := range [][]string{{"queue"}, {"queue", "--json"}} {
		r := b.run(as(nobodyUID, b.command("", program("postino"), args...)))
		if r.code != 0 || !strings.Contains(r.out, "alice@example.org") {
			t.Errorf("%q ended with %d and hides the asker's own mail: %s%s", args, r.code, r.out, r.err)
		}
		if strings.Contains(r.out, "lawyer") || strings.Contains(r.out, "ceo") {
			t.Errorf("%q shows whose mail others send: %s", args, r.out)
		}
	}
	r := b.run(as(nobodyUID, b.command("", program("postino"), "trace", "lawyer@example.org")))
	if r.code != 1 || r.out != "" {
		t.Errorf("trace of another's mail: %+v, want status 1 and nothing", r)
	}
	id := b.trace("private matter").ID
	for _, verb := range []string{"delete", "hold", "release", "retry"} {
		if r := b.run(as(nobodyUID, b.command("", program("postino"), verb, id))); r.code == 0 {
			t.Errorf("%s of another's message: %+v, want it refused", verb, r)
		}
	}
	if n := len(b.queue()); n != 2 {
		t.Errorf("%d messages left, want 2", n)
	}
}
