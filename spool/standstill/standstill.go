// Package standstill says what was going on when a test had waited long enough: what
// the threads of a process are doing, which processes wait for the disk, and where
// the goroutines of the test are. A failure of that kind comes once in a thousand
// runs, on somebody else's machine, so it has to explain itself.
package standstill

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Command is exec.Command, for a program that a test runs to its end. After limit the
// test fails with what the program was doing, and the program is killed.
func Command(t testing.TB, limit time.Duration, name string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error {
		if ctx.Err() == context.DeadlineExceeded { // and not the end of the test
			t.Errorf("%q has not ended within %v:\n%s", cmd.Args, limit, Of(cmd.Process.Pid))
		}
		return cmd.Process.Kill()
	}
	cmd.WaitDelay = limit // for children that keep its output open; it runs from the program's own end too
	return cmd
}

// Wait returns when ok reports true, and asks it again every few milliseconds. After
// limit the test ends, with what was waited for, what each of the processes pids is
// doing and where the goroutines are.
func Wait(t testing.TB, limit time.Duration, what string, ok func() bool, pids ...int) {
	t.Helper()
	const interval = 5 * time.Millisecond
	for end := time.Now().Add(limit); !ok(); time.Sleep(interval) {
		if !time.Now().After(end) {
			continue
		}
		if ok() { // it may be this process that stood still
			return
		}
		var doing strings.Builder
		for _, pid := range pids {
			doing.WriteString(Of(pid))
		}
		t.Fatalf("%s: not within %v\n%s%s", what, limit, &doing, Here())
	}
}

// Of says what a process and its descendants are doing: what each has open, and for
// each thread its state, where in the kernel it sleeps, and its system call with the
// arguments (see proc(5), and syscalls(2) for the numbers).
func Of(pid int) string {
	var b strings.Builder
	family(&b, strconv.Itoa(pid), 0)
	b.WriteString(machine())
	return b.String()
}

// Here says where the goroutines of this process are, and its threads.
func Here() string {
	const most = 1 << 20 // octets
	stacks := make([]byte, most)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return Of(os.Getpid()) + string(stacks)
}

// family writes about the process pid, then about its children. Processes come and go
// meanwhile, so that a file that is missing is said in its place.
func family(b *strings.Builder, pid string, depth int) {
	const deepest = 10
	indent := strings.Repeat("  ", depth)
	dir := "/proc/" + pid
	fmt.Fprintf(b, "%sprocess %s %q\n", indent, pid, strings.Split(strings.TrimSuffix(read(dir+"/cmdline"), "\x00"), "\x00"))
	fds, _ := filepath.Glob(dir + "/fd/*")
	for _, fd := range fds {
		to, _ := os.Readlink(fd)
		fmt.Fprintf(b, "%s  fd %s %s\n", indent, filepath.Base(fd), to)
	}
	var children []string
	threads, _ := filepath.Glob(dir + "/task/*")
	for _, thread := range threads {
		fmt.Fprintf(b, "%s  thread %s %s: %s, in %s, system call %s\n", indent, filepath.Base(thread),
			read(thread+"/comm"), state(thread), read(thread+"/wchan"), read(thread+"/syscall"))
		children = append(children, strings.Fields(read(thread+"/children"))...)
	}
	for _, child := range children {
		if _, err := strconv.Atoi(child); err == nil && depth < deepest {
			family(b, child, depth+1)
		}
	}
}

// machine says what may keep all processes: the load, what they have waited for of
// late, and who waits for a disk now.
func machine() string {
	var b strings.Builder
	fmt.Fprintf(&b, "now %s, load %s\n", time.Now().Format(time.TimeOnly), read("/proc/loadavg"))
	for _, of := range []string{"cpu", "io", "memory"} {
		fmt.Fprintf(&b, "pressure of %s: %s\n", of, strings.ReplaceAll(read("/proc/pressure/"+of), "\n", "; "))
	}
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		if s := state(dir); strings.HasPrefix(s, "D") {
			fmt.Fprintf(&b, "process %s %s: %s, in %s\n", filepath.Base(dir), read(dir+"/comm"), s, read(dir+"/wchan"))
		}
	}
	return b.String()
}

// state is that of a process or thread, "S (sleeping)".
func state(dir string) string {
	lines := strings.Split(read(dir+"/status"), "\n")
	at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "State:") })
	if at < 0 {
		return "gone"
	}
	return strings.TrimSpace(strings.TrimPrefix(lines[at], "State:"))
}

// read is what a file of /proc holds, or why it cannot be read.
func read(name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return "(" + err.Error() + ")"
	}
	return strings.TrimSpace(string(text))
}
