package cmd_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"postino/delivery/relay/relaytest"
)

// injected starts a runner under strace, which has system calls of it fail.
func (b *box) injected(how string, args ...string) *runner {
	b.t.Helper()
	strace := needs(b.t, "strace", "strace")
	call, _, _ := strings.Cut(how, ":")
	line := append([]string{"-f", "-qq", "-o", os.DevNull, "-e", "trace=" + call, "-e", "inject=" + how, program("postino"), "run"}, args...)
	r := &runner{box: b, cmd: exec.Command(strace, line...), done: make(chan struct{})}
	r.cmd.Env, r.cmd.Dir, r.cmd.Stderr = b.env(), "/", b.log
	if err := r.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	go func() {
		_ = r.cmd.Wait()
		close(r.done)
	}()
	b.t.Cleanup(r.kill)
	return r
}

func (b *box) spoolFile() uint64 {
	b.t.Helper()
	info, err := os.Stat(filepath.Join(b.spool, "spool.db"))
	if err != nil {
		b.t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

// After a failed fdatasync nobody knows what is on disk. The runner ends at once,
// its successor writes the whole spool once more before it uses it, and all that
// was accepted before, meanwhile and after arrives.
func TestFailedSyncFencesAndTheNextRunnerRewrites(t *testing.T) {
	for n := 1; n <= 6; n++ {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			s := relaytest.New(t, relaytest.Options{})
			b := newBox(t, "mode = \"hold\"\n"+relayTo(s.Port()))
			first := b.start()
			b.sendmail("Subject: before\n\nx\n", "alice@example.org")
			first.stop()
			was := b.spoolFile()

			// strace counts the calls of each thread on its own.
			r := b.injected(fmt.Sprintf("fdatasync:error=EIO:when=%d+", n))
			awaitIn(t, b.spool, "a runner", func() bool { return b.accepts("submit.sock") })
			sent := 0
			for ended := false; !ended; sent++ {
				b.sendmail(fmt.Sprintf("Subject: meanwhile %d\n\nx\n", sent), "alice@example.org")
				select {
				case <-r.done:
					ended = true
				default:
				}
			}
			if code := r.wait(); code != 74 {
				t.Errorf("the runner ended with %d, want 74", code)
			}
			b.log.await(t, "the spool is fenced after an I/O error", "input/output error")
			b.sendmail("Subject: after\n\nx\n", "alice@example.org")

			b.configure(relayTo(s.Port()))
			last := b.start()
			if b.spoolFile() == was {
				t.Error("the spool was not rewritten")
			}
			poll(t, "an empty queue", func() bool { return b.drops() == 0 && len(b.queue()) == 0 })
			last.stop()
			messageWith(t, s, "before")
			messageWith(t, s, "after")
			for i := range sent {
				messageWith(t, s, fmt.Sprintf("meanwhile %d", i))
			}
			if got := len(s.Messages()); got != sent+2 {
				t.Errorf("%d messages arrived, want %d", got, sent+2)
			}
		})
	}
}

// A runner started for the moment has no standard error: its log says why it ended.
func TestFencedRunnerOfTheMomentSaysSoInItsLog(t *testing.T) {
	s := relaytest.New(t, relaytest.Options{})
	b := newBox(t, relayTo(s.Port()))
	b.start().stop()
	b.sendmail("Subject: x\n\nx\n", "alice@example.org")
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	r := b.command("", needs(t, "strace", "strace"), "-f", "-qq", "-o", os.DevNull, "-e", "trace=fdatasync",
		"-e", "inject=fdatasync:error=EIO:when=1+", program("postino"), "run", "--until-empty")
	r.Stderr = null
	_ = r.Run()
	if code := r.ProcessState.ExitCode(); code != 74 {
		t.Errorf("the runner ended with %d, want 74", code)
	}
	log, err := os.ReadFile(filepath.Join(b.spool, "postino.log"))
	if err != nil || !strings.Contains(string(log), "fenced after an I/O error") {
		t.Errorf("the log says %q, %v", log, err)
	}
	b.start("--until-empty").wait()
	messageWith(t, s, "x")
}
