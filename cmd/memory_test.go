package cmd_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"postino/delivery/relay/relaytest"
)

const (
	// largeMail is the size of a large message in octets.
	largeMail = 25 << 20
	// frontCap and runnerCap are how many KiB a front end may take for a large message
	// beyond what a small one takes, and a runner for several at a time. They are
	// generous: what is bounded by a message's size would be far above.
	frontCap  = 16 << 10
	runnerCap = 48 << 10
	// largeAtATime is how many large messages are handed in, and sent, at a time.
	largeAtATime = 4
)

// peak is the most memory that a process has had, in KiB.
func peak(t testing.TB, pid int) int {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nVmHWM:")
	number, _, ok := strings.Cut(strings.TrimSpace(rest), " ")
	n, err := strconv.Atoi(number)
	if !ok || err != nil {
		t.Fatalf("no VmHWM in %s", text)
	}
	return n
}

// largeMessage is a message of n octets.
func largeMessage(n int64) io.Reader { return io.LimitReader(endless("Subject: large\n\n"), n) }

// The front end's memory does not grow with the message.
func TestFrontEndHasBoundedMemory(t *testing.T) {
	t.Parallel()
	b := newBox(t, "")
	small, large := b.frontPeak(2<<10), b.frontPeak(largeMail)
	t.Logf("peak of the front end: %d KiB for 2 KiB, %d KiB for %d MiB", small, large, largeMail>>20)
	if large-small > frontCap {
		t.Errorf("%d KiB more for a large message, want at most %d", large-small, frontCap)
	}
}

// frontPeak is the peak of a front end that hands over a message of size octets. It
// is looked at when all is handed over and the answer is not given yet.
func (b *box) frontPeak(size int64) int {
	t := b.t
	t.Helper()
	path := filepath.Join(b.spool, "submit.sock")
	_ = os.Remove(path)
	if err := os.MkdirAll(filepath.Join(b.spool, "drop"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := b.command("", b.front, "-i", "alice@example.org")
	cmd.Stdin = largeMessage(size)
	result := make(chan int, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
			result <- 0
			return
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		io.WriteString(conn, "220 test\r\n")
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				result <- 0
				return
			}
			if !strings.HasPrefix(line, "BDAT ") {
				io.WriteString(conn, "250 ok\r\n")
				continue
			}
			var n int64
			fmt.Sscanf(line, "BDAT %d LAST", &n)
			if _, err := io.CopyN(io.Discard, in, n); err != nil {
				t.Error(err)
			}
			result <- peak(t, cmd.Process.Pid)
			io.WriteString(conn, "250 Ok: queued as ABC\r\n")
		}
	}()
	b.succeed(cmd)
	return <-result
}

// The runner's memory does not grow with the messages, several of which come in
// and go out at a time.
func TestRunnerHasBoundedMemory(t *testing.T) {
	t.Parallel()
	s := relaytest.New(t, relaytest.Options{})
	b := newBox(t, relayTo(s.Port()))
	confine := memoryLimit(t)
	pid := b.start().cmd.Process.Pid
	confine(pid)
	submit := func(count int, size int64) {
		var callers sync.WaitGroup
		for range count {
			callers.Go(func() {
				cmd := b.command("", b.front, "-i", "alice@example.org")
				cmd.Stdin = largeMessage(size)
				if r := b.run(cmd); r != (result{}) {
					t.Errorf("%+v", r)
				}
			})
		}
		callers.Wait()
	}
	submit(largeAtATime, 2<<10)
	b.log.awaitN(t, largeAtATime, "msg=finished")
	before := peak(t, pid)
	submit(largeAtATime, largeMail)
	b.log.awaitN(t, 2*largeAtATime, "msg=finished")
	large := peak(t, pid)
	submit(200, 60<<10)
	b.log.awaitN(t, 2*largeAtATime+200, "msg=finished")
	many := peak(t, pid)
	t.Logf("peak of the runner: %d KiB for small messages, %d KiB for %d of %d MiB, %d KiB for 200 of 60 KiB",
		before, large, largeAtATime, largeMail>>20, many)
	if large-before > runnerCap {
		t.Errorf("%d KiB more for large messages, want at most %d", large-before, runnerCap)
	}
	if many-before > 2*runnerCap {
		t.Errorf("%d KiB more for many messages, want at most %d", many-before, 2*runnerCap)
	}
}

// memoryLimit makes a control group of 64 MiB where there is version 1 of them. The
// function it returns puts a process there, which is killed if it needs more.
func memoryLimit(t testing.TB) func(pid int) {
	t.Helper()
	group, err := os.MkdirTemp("/sys/fs/cgroup/memory", "postino-test")
	if err != nil {
		t.Logf("without a limit: %v", err)
		return func(int) {}
	}
	t.Cleanup(func() {
		if err := os.Remove(group); err != nil {
			t.Error(err)
		}
	})
	set := func(name string, n int) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(group, name), []byte(strconv.Itoa(n)), 0); err != nil {
			t.Fatal(err)
		}
	}
	set("memory.limit_in_bytes", 64<<20)
	return func(pid int) { set("cgroup.procs", pid) }
}
