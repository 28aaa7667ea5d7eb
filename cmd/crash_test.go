package cmd_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postino/delivery/relay/relaytest"
)

const (
	// crashTime is for how long the runner is killed. With building up and counting
	// the test stays below 20 s.
	crashTime = 8 * time.Second
	// crashCallers submit at a time.
	crashCallers = 4
	// crashConnections is relay.max_connections: as many messages may be on their
	// way when the runner is killed, taken by the server and not on record here.
	crashConnections = 3
)

// submission is what one front end was given, and what it said to it.
type submission struct {
	sum      [sha256.Size]byte // of the body, as it has to arrive
	accepted bool              // it ended with 0
	killed   bool
}

// crash is the state of the crash test.
type crash struct {
	box *box

	mu   sync.Mutex
	sent map[string]submission // by subject; guarded by mu
}

// Whatever is killed whenever: a message whose sendmail ended with 0 arrives, and
// it arrives whole. It may arrive twice only if the runner died between the
// server's answer and the record of it.
func TestNothingIsLostWhenTheRunnerIsKilled(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := relaytest.New(t, relaytest.Options{})
	b := newBox(t, relayTo(s.Port())+fmt.Sprintf("max_connections = %d\n[retry]\nfirst = \"100ms\"\nmax = \"100ms\"\n", crashConnections))
	b.start().stop() // drop/ has to be there
	c := &crash{box: b, sent: make(map[string]submission)}

	end := time.Now().Add(crashTime)
	var callers sync.WaitGroup
	for n := range crashCallers {
		callers.Go(func() { c.submit(t, n, rand.New(rand.NewPCG(seed, uint64(n))), end) })
	}
	random := rand.New(rand.NewPCG(seed, crashCallers))
	kills := 0
	for ; time.Now().Before(end); kills++ {
		r := b.start()
		time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
		r.kill()
	}
	callers.Wait()
	last := b.start()
	poll(t, "an empty queue", func() bool { return b.drops() == 0 && len(b.queue()) == 0 })
	last.stop()
	c.count(t, s.Messages(), kills)
	if left, err := filepath.Glob(filepath.Join(b.spool, "content", "*")); err != nil || len(left) != 0 {
		t.Errorf("with an empty queue there is content left: %q, %v", left, err)
	}
	b.empty()
}

// submit calls sendmail again and again, and kills it now and then.
func (c *crash) submit(t *testing.T, n int, random *rand.Rand, end time.Time) {
	for i := 0; time.Now().Before(end); i++ {
		subject := fmt.Sprintf("crash %d-%d", n, i)
		body := crashBody(random, subject)
		one := submission{sum: sha256.Sum256([]byte(strings.ReplaceAll(body, "\n", "\r\n")))}
		cmd := c.box.command("Subject: "+subject+"\n\n"+body, c.box.front, "-i", "-f", "me@web.test", "alice@example.org")
		var said bytes.Buffer
		cmd.Stderr = &said
		if one.killed = random.IntN(8) == 0; one.killed {
			killLater(cmd, time.Duration(random.IntN(15))*time.Millisecond)
		} else {
			_ = cmd.Run() // the status says it
		}
		one.accepted = cmd.ProcessState.ExitCode() == 0
		if !one.accepted && !one.killed || said.Len() > 0 {
			t.Errorf("%s: sendmail ended with %d: %s", subject, cmd.ProcessState.ExitCode(), said.String())
		}
		c.mu.Lock()
		c.sent[subject] = one
		c.mu.Unlock()
	}
}

func killLater(cmd *exec.Cmd, after time.Duration) {
	if cmd.Start() != nil {
		return
	}
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	timer.Stop()
}

// crashBody makes a body that fits into a record of the spool, or one for a file,
// or one that the front end does not keep in memory.
func crashBody(random *rand.Rand, subject string) string {
	lines := 1 + random.IntN(50)
	switch random.IntN(20) {
	case 0:
		lines = 20000
	case 1, 2, 3:
		lines = 2000
	}
	var body strings.Builder
	for range lines {
		fmt.Fprintf(&body, "%016x %016x %016x %016x\n", random.Uint64(), random.Uint64(), random.Uint64(), random.Uint64())
	}
	return body.String() + "end of " + subject + "\n"
}

// count compares what arrived with what was sent.
func (c *crash) count(t *testing.T, arrived []relaytest.Message, kills int) {
	times := make(map[string]int)
	first := make(map[string][]byte)
	for _, m := range arrived {
		head, body := headerAndBody(t, m.Data)
		subject := value(t, head, "Subject")
		one, known := c.sent[subject]
		if !known {
			t.Errorf("%q was never sent", subject)
		}
		if sha256.Sum256([]byte(body)) != one.sum {
			t.Errorf("%s is not whole: %d octets that end in %q", subject, len(body), body[max(0, len(body)-60):])
		}
		if strings.Join(m.To, " ") != "alice@example.org" || m.From != "me@web.test" {
			t.Errorf("%s went from %s to %q", subject, m.From, m.To)
		}
		// One that arrives again was sent again. If it had been stored twice it would
		// have another Message-ID.
		if times[subject]++; times[subject] == 1 {
			first[subject] = m.Data
		} else if !bytes.Equal(m.Data, first[subject]) {
			t.Errorf("%s became two messages: %q and %q", subject, head, first[subject][:len(head)])
		}
	}
	accepted, killed := 0, 0
	for subject, one := range c.sent {
		if one.killed {
			killed++
		}
		if !one.accepted {
			continue
		}
		accepted++
		if times[subject] == 0 {
			t.Errorf("%s was accepted and is lost", subject)
		}
	}
	duplicates := len(arrived) - len(times)
	t.Logf("%d submissions, %d accepted, %d front ends and %d runners killed, %d arrived, %d of them twice",
		len(c.sent), accepted, killed, kills, len(arrived), duplicates)
	if window := kills * crashConnections; duplicates > window {
		t.Errorf("%d duplicates by %d kills with %d connections, want %d at most", duplicates, kills, crashConnections, window)
	}
	if kills < 2 || accepted == 0 {
		t.Errorf("%d kills and %d messages: that proves nothing", kills, accepted)
	}
}
