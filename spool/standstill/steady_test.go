package standstill_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"postino/spool/standstill"
)

// stall is longer than what counts as one.
const stall = 2 * time.Second

// child runs a test of this program as a process of its own, does something when that
// is in the middle of it, and returns what it said.
func child(t testing.TB, name string, meanwhile func(p *os.Process)) (said string, err error) {
	t.Helper()
	cmd := standstill.Command(t, patience, os.Args[0], "-test.run", "^"+name+"$", "-test.v")
	cmd.Env = append(os.Environ(), failing+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said += lines.Text() + "\n"
		if lines.Text() == middle {
			meanwhile(cmd.Process)
			in.Close()
		}
	}
	return said, cmd.Wait()
}

// middle is what a child says before it waits for the end of its input.
const middle = "in the middle"

func beInTheMiddle() {
	fmt.Println(middle)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// A test that fails while the machine stands still is begun anew, once what it made
// was taken away; what failed before is not counted.
func TestFailureInAStallIsNone(t *testing.T) {
	if os.Getenv(failing) != "" {
		runs, tidied := 0, 0
		standstill.Steady(t, func(t testing.TB) {
			runs++
			t.Cleanup(func() { tidied++ })
			beInTheMiddle()
			if tidied != runs-1 {
				t.Errorf("%d were tidied", tidied)
			}
			if runs == 1 {
				t.Fatal("failed in a stall")
			}
		})
		t.Logf("runs %d, tidied %d", runs, tidied)
		return
	}
	t.Parallel()
	said, err := child(t, t.Name(), func(p *os.Process) {
		for _, s := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT} {
			if err := p.Signal(s); err != nil {
				t.Error(err)
			}
			time.Sleep(stall)
		}
	})
	if err != nil || !strings.Contains(said, "runs 2, tidied 2") {
		t.Errorf("%v:\n%s", err, said)
	}
}

// While the machine goes on it is one, the first time, and is told where it happened.
func TestFailureIsOne(t *testing.T) {
	if os.Getenv(failing) != "" {
		standstill.Steady(t, func(t testing.TB) {
			t.Cleanup(func() { t.Logf("failed: %v", t.Failed()) })
			beInTheMiddle()
			t.Error("wrong")
		})
		return
	}
	t.Parallel()
	standstill.Steady(t, func(t testing.TB) {
		said, err := child(t, "TestFailureIsOne", func(*os.Process) {})
		for _, want := range []string{"steady_test.go:", ": wrong", "failed: true", "--- FAIL: "} {
			if err == nil || strings.Count(said, want) != 1 && !strings.HasSuffix(want, ":") {
				t.Errorf("%v, want %q once:\n%s", err, want, said)
			}
		}
	})
}

// No test is begun for ever.
func TestTriesAreBounded(t *testing.T) {
	if os.Getenv(failing) != "" {
		standstill.Steady(t, func(t testing.TB) {
			stop := exec.Command("sh", "-c", "kill -STOP $PPID; sleep 2; kill -CONT $PPID")
			if out, err := stop.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			t.Fatal("in a stall")
		})
		return
	}
	t.Parallel()
	said, err := child(t, t.Name(), func(*os.Process) {})
	if err == nil || strings.Count(said, ": in a stall") != 4 || strings.Count(said, "the machine stood still for") != 3 {
		t.Errorf("%v:\n%s", err, said)
	}
}
