package cmd_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dialAs connects to a socket of the spool as another user. Only root can.
func (b *box) dialAs(uid int, socket string) (net.Conn, error) {
	// The bare system call changes this thread alone. It has to become root's again, and
	// may not end: the kernel ends with it what it has started with Pdeathsig, for
	// whichever test that was.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const same = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(uid), same); errno != 0 {
		return nil, errno
	}
	// net.Dial connects on this thread or, where it waits, has connected already.
	conn, err := net.Dial("unix", filepath.Join(b.spool, socket))
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, 0, same); errno != 0 {
		b.t.Fatal(errno)
	}
	return conn, err
}

// memory is a figure of /proc/PID/status, in octets.
func (r *runner) memory(t testing.TB, name string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	kilobytes, err := strconv.ParseInt(statusLine(string(text), name)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10
}

// Whoever crowds the socket with all he may send and finishes nothing costs the runner
// a bounded amount of memory, and others are served meanwhile.
func TestCrowdOnTheSocketIsBounded(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	_, b := plainRelay(t)
	b.giveTo(spoolUID)
	r := b.start()
	// Far above what it takes, and far below the 2 GiB and more without a limit.
	const most = 400 << 20
	before := r.memory(t, "VmHWM:")
	// Sections of the most fields, and recipients with the longest parameters.
	const section = 1<<20 - 1024
	large := "EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nBDAT 4000000 LAST\r\n" + strings.Repeat("X:\r\n", section/4) + "\r\nbody"
	var many strings.Builder
	many.WriteString("EHLO x\r\nMAIL FROM:<a@b.test>\r\n")
	for i := range 2000 {
		fmt.Fprintf(&many, "RCPT TO:<%064d@%s.test> ORCPT=rfc822;%0450d\r\n", i, strings.Repeat("label.", 30), i)
	}
	for uid := nobodyUID - 6; uid < nobodyUID; uid++ {
		for i := range 200 {
			conn, err := b.dialAs(uid, "submit.sock")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			go io.Copy(io.Discard, bufio.NewReader(conn))
			go io.WriteString(conn, []string{large, many.String()}[i%2])
		}
	}
	// Root's front end has no place to wait for; another one is served by and by.
	b.sendmail("Subject: root's\n\nhi\n", "alice@example.org")
	b.succeed(as(nobodyUID, b.command("Subject: mine\n\nhi\n", b.front, "alice@example.org")))
	b.log.awaitN(t, 2, "msg=finished")
	got := r.memory(t, "VmHWM:")
	t.Logf("at most %d MiB", got>>20)
	if got > before+most {
		t.Errorf("the runner took %d MiB, want at most %d more than the %d of the beginning", got>>20, most>>20, before>>20)
	}
}

// A runner that has no descriptors left waits for some, without an end and without
// doing nothing as fast as it can.
func TestRunnerOutlivesWantOfDescriptors(t *testing.T) {
	t.Parallel()
	_, b := plainRelay(t)
	r := b.launchBy("/bin/sh", "-c", `ulimit -n 64; exec "$0" "$@"`, program("postino"), "run")
	awaitIn(t, b.spool, "a runner", func() bool { return b.accepts("submit.sock") && b.accepts("control.sock") })
	var crowd []net.Conn
	for range 100 {
		conn, err := net.Dial("unix", filepath.Join(b.spool, "submit.sock"))
		if err != nil {
			break // there is nobody to accept it, and the backlog is full
		}
		crowd = append(crowd, conn)
	}
	used := r.cpu(t)
	time.Sleep(2 * time.Second)
	if more := r.cpu(t) - used; more > time.Second {
		t.Errorf("it used %v of a processor within two seconds", more)
	}
	for _, conn := range crowd {
		conn.Close()
	}
	b.sendmail("Subject: after the crowd\n\nhi\n", "alice@example.org")
	b.log.await(t, "msg=finished")
	r.stop()
}

// cpu is the time that the runner has used of a processor.
func (r *runner) cpu(t testing.TB) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	const user, system, tick = 11, 12, time.Second / 100 // fields behind the name, proc_pid_stat(5)
	var sum time.Duration
	for _, i := range []int{user, system} {
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(n) * tick
	}
	return sum
}
