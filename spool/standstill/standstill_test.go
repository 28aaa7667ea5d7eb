package standstill_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"postino/spool/standstill"
)

// patience is how long a test waits; it is never waited for when all is well.
const patience = 5 * time.Minute

// Each thread is described, down to the system call and to what it reads from, and so
// are the children.
func TestProcessIsDescribedWithItsChildren(t *testing.T) {
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", `/bin/sh -c "read x; exit 3"; exit 4`)
	cmd.Stdin = in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	defer func() {
		w.Close()
		cmd.Wait()
	}()
	want := []string{
		fmt.Sprintf("process %d [\"/bin/sh\" \"-c\" ", cmd.Process.Pid), `  process `, ` ["/bin/sh" "-c" "read x; exit 3"]`,
		"  fd 0 pipe:[", "thread ", " sh: S (sleeping), in ", fmt.Sprintf("system call %d 0x0 ", syscall.SYS_READ), "load ", "pressure of io",
	}
	lacks := ""
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		text := standstill.Of(cmd.Process.Pid)
		i := slices.IndexFunc(want, func(s string) bool { return !strings.Contains(text, s) })
		if i < 0 {
			return
		}
		lacks = fmt.Sprintf("it lacks %q:\n%s", want[i], text) // or the child does not read yet
	}
	t.Error(lacks)
}

// failing, in the environment, has the test fail that is to be looked at.
const failing = "STANDSTILL_TEST_FAILS"

// What fails for want of patience says what was waited for, what the process was doing
// and where the goroutines were.
func TestFailureSaysWhatWasWaitedFor(t *testing.T) {
	cmd := standstill.Command(t, patience, "/proc/self/exe", "-test.run=^TestThatFails$")
	cmd.Env = append(os.Environ(), failing+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("it does not fail:\n%s", out)
	}
	for _, want := range []string{
		`["sleep" "1000"] has not ended within 1s:`, "\n        process ", "a door that nobody opens: not within 1s", "goroutine ", "standstill_test.TestThatFails",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it lacks %q:\n%s", want, out)
		}
	}
}

// TestThatFails is run by TestFailureSaysWhatWasWaitedFor.
func TestThatFails(t *testing.T) {
	if os.Getenv(failing) == "" {
		t.Skip("a part of another test")
	}
	if standstill.Command(t, time.Second, "sleep", "1000").Run() == nil {
		t.Log("it ended by itself")
	}
	standstill.Wait(t, time.Second, "a door that nobody opens", func() bool { return false }, os.Getppid())
}

// What comes in time is no failure.
func TestPatienceIsNotWaitedFor(t *testing.T) {
	if err := standstill.Command(t, patience, "true").Run(); err != nil {
		t.Error(err)
	}
	asked := 0
	standstill.Wait(t, patience, "the third question", func() bool { asked++; return asked == 3 })
	if asked != 3 {
		t.Errorf("asked %d times", asked)
	}
}
