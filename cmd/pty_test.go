package cmd_test

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"postino/delivery/relay/servertest"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal with a process on it, and what that printed.
type terminal struct {
	t    testing.TB
	ptmx *os.File
	cmd  *exec.Cmd
	said *lines
}

// onTerminal starts a process that has a terminal for its own.
func onTerminal(t testing.TB, cmd *exec.Cmd) *terminal {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		servertest.Missing(t, "no pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { ptmx.Close() })
	n, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	pts, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pts.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = pts, pts, pts
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, ptmx: ptmx, cmd: cmd, said: newLines()}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := ptmx.Read(buf)
			if n > 0 {
				term.said.Write(buf[:n])
			}
			if err != nil {
				return // EIO once nobody has the terminal any more
			}
		}
	}()
	return term
}

// answer waits for a question and types.
func (term *terminal) answer(question, text string) {
	term.t.Helper()
	before := len(term.said.String())
	poll(term.t, "the question "+question, func() bool { return strings.HasSuffix(term.said.String(), question) })
	if _, err := term.ptmx.WriteString(text + "\n"); err != nil {
		term.t.Fatal(err)
	}
	// The next question comes behind the echo of the line end.
	poll(term.t, "the echo", func() bool { return len(term.said.String()) > before })
}

// end waits for the process and returns its status.
func (term *terminal) end() int {
	term.t.Helper()
	stop := limited(term.t, term.cmd, patience)
	_ = term.cmd.Wait() // its status is what is wanted
	stop()
	return term.cmd.ProcessState.ExitCode()
}
