package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal is a pseudoterminal: what is typed at it, and the end for a program.
func terminal(t *testing.T) (keys, stdin *os.File) {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudoterminals: %v", err)
	}
	t.Cleanup(func() { keys.Close() })
	n, err := unix.IoctlGetInt(int(keys.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(keys.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	if stdin, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close() })
	return keys, stdin
}

// A person is asked before a selection is deleted; a script, which cannot answer,
// is not.
func TestDeleteBySelectionAsksAPersonAlone(t *testing.T) {
	p := newPlace(t)
	for range maxPreview + 2 {
		p.store(t, 1500, "hello")
	}
	id := p.store(t, 1500, "hello").String()
	p.start(t, 0)
	atTerminal := func(answer string, line ...string) result {
		t.Helper()
		keys, stdin := terminal(t)
		if _, err := keys.WriteString(answer + "\n"); err != nil {
			t.Fatal(err)
		}
		cmd := p.call(t, 0, append([]string{"postino"}, line...)...)
		var stdout, stderr bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
		_ = cmd.Run() // the status says it
		return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	}
	r := atTerminal("n", "delete", "--all")
	if r.status != 1 || r.stdout != "" || strings.Count(r.stderr, "alice@example.net -> bob@example.org\n") != maxPreview ||
		!strings.Contains(r.stderr, "and 3 more\nDelete 8 messages? [y/N] ") || !strings.Contains(r.stderr, "nothing was deleted") {
		t.Errorf("answered no: %+v", r)
	}
	if r := atTerminal("n", "delete", id); r.status != 0 || r.stdout != "1 message deleted\n" || r.stderr != "" {
		t.Errorf("an ID: %+v", r)
	}
	if r := atTerminal("n", "delete", "--to", "bob", "--limit", "1", "--yes"); r.status != 0 || r.stdout != "1 message deleted\n" || r.stderr != "" {
		t.Errorf("--yes: %+v", r)
	}
	if r := atTerminal("yes", "delete", "--to", "bob", "--limit", "2"); r.status != 0 || r.stdout != "2 messages deleted\n" {
		t.Errorf("answered yes: %+v", r)
	}
	if r := p.run(t, 0, "postino", "delete", "--older", "1s"); r.status != 0 || r.stdout != "4 messages deleted\n" || r.stderr != "" {
		t.Errorf("no terminal: %+v", r)
	}
}
