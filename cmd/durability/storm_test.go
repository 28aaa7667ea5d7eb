package durability_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postino/cmd/durability/oracle"
)

const (
	// stormCallers submit at a time.
	stormCallers = 4
	// stormRound is how many kills there are between two looks at everything.
	stormRound = 150
	// stormKills is how many there are in CI: some ten seconds.
	stormKills = 450
)

// storm is one round of kills in a box of its own.
type storm struct {
	box  *box
	over atomic.Bool

	fronts, runners, admins atomic.Int64 // killed
	terms                   int          // runners told to stop
}

// Whatever is killed whenever: a message whose sendmail ended with 0 arrives, and
// it arrives whole. It may arrive twice only if the runner died between the
// server's answer and the record of it.
func TestNothingIsLostInAStormOfKills(t *testing.T) {
	n, kills := seed(t), size(t, killsVariable, stormKills)
	start := time.Now()
	var total struct{ fronts, runners, admins, terms, accepted, sent, duplicates int }
	for round := 0; total.fronts+total.runners < kills; round++ {
		ok := t.Run(fmt.Sprintf("round %d", round), func(t *testing.T) {
			s := &storm{box: newBox(t, programs("plain"))}
			v := s.blow(t, n, round, kills)
			total.fronts += int(s.fronts.Load())
			total.runners += int(s.runners.Load())
			total.admins += int(s.admins.Load())
			total.terms += s.terms
			total.accepted += v.Accepted
			total.sent += len(s.box.ledger.Submissions())
			total.duplicates += v.Duplicates
		})
		if !ok {
			t.Fatalf("round %d failed", round)
		}
	}
	t.Logf("killed: %d front ends, %d runners, %d commands; %d runners stopped; %d submissions, %d accepted, 0 lost, %d delivered twice; %v",
		total.fronts, total.runners, total.admins, total.terms, total.sent, total.accepted, total.duplicates, time.Since(start).Round(time.Second))
	if total.accepted == 0 || total.runners < 2 || total.fronts == 0 {
		t.Error("that proves nothing")
	}
}

// blow kills until the round has its kills, then counts.
func (s *storm) blow(t *testing.T, seed uint64, round, kills int) oracle.Verdict {
	t.Helper()
	b := s.box
	var others sync.WaitGroup
	stream := func(n int) *rand.Rand { return chance(seed, round*100+n) }
	for n := range stormCallers {
		others.Go(func() { s.submit(n, stream(n)) })
	}
	others.Go(func() { s.administer(stream(stormCallers)) })
	random := stream(stormCallers + 1)
	for s.kills() < min(stormRound, int64(kills)) {
		r := b.launch()
		time.Sleep(time.Duration(random.IntN(80)) * time.Millisecond)
		if random.IntN(8) == 0 {
			s.terms++
			_ = r.cmd.Process.Signal(syscall.SIGTERM)
			time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
		}
		r.kill()
		if killed(r.cmd) {
			s.runners.Add(1)
		}
	}
	s.over.Store(true)
	others.Wait()
	window := int(s.runners.Load()) * underWay
	if err := check(b.judge(), window, true); err != nil {
		t.Errorf("after the last kill: %v", err)
	}
	v, err := b.drain()
	if err := check(v, window, true, err); err != nil {
		t.Errorf("at the end: %v", err)
	}
	return v
}

// kills are those that count; commands killed come on top.
func (s *storm) kills() int64 { return s.fronts.Load() + s.runners.Load() }

// submit calls sendmail again and again, and kills it now and then.
func (s *storm) submit(n int, random *rand.Rand) {
	for i := 0; !s.over.Load(); i++ {
		// The subject is in the reverse-path too, where the queue shows it.
		subject := fmt.Sprintf("storm-%d-%d", n, i)
		lines := 1 + random.IntN(2*small)
		switch random.IntN(20) {
		case 0:
			lines = huge
		case 1, 2, 3:
			lines = large
		}
		message, sub := oracle.Compose(random, subject, lines)
		cmd := s.box.command(message, s.box.front(), "-i", "-f", subject+"@web.test", recipient)
		var said bytes.Buffer
		cmd.Stderr = &said
		doomed := random.IntN(2) == 0
		runAndKill(cmd, doomed, random)
		if killed(cmd) {
			s.fronts.Add(1)
		}
		sub.Status = cmd.ProcessState.ExitCode()
		s.box.ledger.Add(sub)
		if sub.Status > 0 || said.Len() > 0 && sub.Status == 0 {
			s.box.t.Errorf("%s: sendmail ended with %d: %s", subject, sub.Status, said.String())
		}
	}
}

// runAndKill runs cmd to its end, or kills it when it is doomed.
func runAndKill(cmd *exec.Cmd, doomed bool, random *rand.Rand) {
	if !doomed {
		_ = cmd.Run()
		return
	}
	if cmd.Start() != nil {
		return
	}
	timer := time.AfterFunc(time.Duration(random.IntN(15_000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	timer.Stop()
}

// administer looks at the queue, holds, releases, retries and deletes, and is
// killed now and then.
func (s *storm) administer(random *rand.Rand) {
	for !s.over.Load() {
		cmd := s.box.postino("queue", "--json")
		var out bytes.Buffer
		cmd.Stdout = &out
		s.call(cmd, random)
		ids := listed(out.String())
		if len(ids) == 0 {
			continue
		}
		m := ids[random.IntN(len(ids))]
		verb := []string{"hold", "release", "retry", "delete", "show", "trace"}[random.IntN(6)]
		if verb == "delete" {
			subject, _, _ := strings.Cut(m.Sender, "@")
			s.box.ledger.GiveUp(subject)
		}
		s.call(s.box.postino(verb, m.ID), random)
	}
}

// call runs a command, and kills it half of the times.
func (s *storm) call(cmd *exec.Cmd, random *rand.Rand) {
	runAndKill(cmd, random.IntN(2) == 0, random)
	if killed(cmd) {
		s.admins.Add(1)
	}
}

type queuedMessage struct{ ID, Sender string }

// listed are the messages in the output of postino queue --json, which may be cut.
func listed(text string) []queuedMessage {
	var list []queuedMessage
	for line := range strings.Lines(text) {
		var m queuedMessage
		if json.Unmarshal([]byte(line), &m) == nil && m.ID != "" {
			list = append(list, m)
		}
	}
	return list
}
