package main

import (
	"bufio"
	"bytes"
	"strings"
	"syscall"
	"testing"
)

// Whoever follows the log sees what happened and what happens, and goes on with the
// next runner when one ends.
func TestLogIsFollowedFromOneRunnerToTheNext(t *testing.T) {
	p := newPlace(t)
	id := p.store(t, 1500, "hello").String()
	stop := p.start(t, 0)
	follower := p.command(0, "postino", "log", "--follow")
	out, err := follower.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	follower.Stderr = &stderr
	if err := follower.Start(); err != nil {
		t.Fatal(err)
	}
	late(t, follower)
	lines := bufio.NewScanner(out)
	await := func(what string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), what) {
				return
			}
		}
		t.Fatalf("the log ended before %q", what)
	}
	await("level=INFO msg=accepted id=" + id + " from=alice@example.net rcpts=1 size=")
	if r := p.run(t, 0, "postino", "hold", id); r.status != 0 {
		t.Fatalf("hold: %+v", r)
	}
	await("msg=hold by=0 messages=1")
	stop()
	p.start(t, 0)
	if r := p.run(t, 0, "postino", "release", id); r.status != 0 {
		t.Fatalf("release: %+v", r)
	}
	// Done before the follower looks again: it reads in the spool what it missed.
	if r := p.run(t, 0, "postino", "delete", id); r.status != 0 {
		t.Fatalf("delete: %+v", r)
	}
	await("msg=settled id=" + id + ` rcpt=bob@example.org reply="5.7.1 deleted by uid 0" status=failed`)
	_ = follower.Process.Signal(syscall.SIGINT)
	_ = follower.Wait()
	if !strings.Contains(stderr.String(), "postino: the runner is not running: waiting for it\n") {
		t.Errorf("standard error: %q", stderr.String())
	}
	r := p.run(t, 1500, "postino", "log", "--json", "--since", "52w")
	if !strings.Contains(r.stdout, `"msg":"finished","id":"`+id+`"`) || r.status != 0 {
		t.Errorf("log of an ordinary user: %+v", r)
	}
	if r := p.run(t, testStranger, "postino", "log"); r.stdout != "" || r.status != 0 {
		t.Errorf("log of a stranger: %+v", r)
	}
}
