package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"postino/delivery/control"
	"postino/spool"
	"postino/spool/address"
	"postino/spool/handoff"
)

const (
	// outcomeWait is how long a test mail is watched: a minute for a relay that
	// thinks before it answers.
	outcomeWait = time.Minute
	outcomePoll = 200 * time.Millisecond
)

// testMail sends a mail as any caller would, and tells what became of it.
func (a *app) testMail(ctx context.Context, s *setup) error {
	if s.to == "" || s.to == "-" {
		return nil
	}
	to, err := address.Parse(s.to)
	if err != nil || to.Domain == "" {
		return usageError("--to %q: want an address", s.to)
	}
	running, err := a.prepareTest(ctx)
	if err != nil {
		return err
	}
	from, err := address.Parse(s.address)
	if err != nil {
		return err
	}
	body := handoff.NewBuffer(a.spool)
	defer body.Close()
	if _, err := body.ReadFrom(strings.NewReader("postino on " + hostname() + " can send mail.\r\n")); err != nil {
		return err
	}
	id, dropped, err := handoff.Submit(a.spool, &handoff.Submission{
		ID: handoff.NewID(time.Now()), Sender: from, Recipients: []handoff.Recipient{{Address: to}},
		Head: []byte("From: " + from.String() + "\r\nTo: " + to.String() + "\r\nSubject: postino works on " + hostname() + "\r\n\r\n"), Body: body,
	})
	if err != nil {
		return err
	}
	if dropped {
		a.startUntilEmpty()
	}
	if info, err := os.Stat(a.spool); !running && (err != nil || !ownedBy(info, os.Geteuid())) {
		a.say("the runner is not running; when it starts (systemctl start postino, or sendmail -bd where no service manager is), it sends the test mail %s", id)
		return nil
	}
	return a.outcome(ctx, id)
}

// prepareTest has a runner take the new configuration, and makes a spool of a user's own.
func (a *app) prepareTest(ctx context.Context) (running bool, err error) {
	if !filepath.IsAbs(a.spool) {
		return false, usageError("--spool %q: want an absolute path", a.spool)
	}
	if a.user {
		if err := prepareSpool(a.spool); err != nil {
			return false, err
		}
	}
	if _, err := os.Stat(a.spool); err != nil {
		return false, fmt.Errorf("no test mail: %w: install postino first, or make the directory and give it to the runner's user", err)
	}
	client := control.Dial(a.spool)
	defer client.Close()
	if _, err := client.Status(ctx); errors.Is(err, control.ErrNoRunner) {
		return false, nil
	}
	return true, client.Reload(ctx)
}

// outcome waits until each recipient of a message was attempted, and tells what was said.
func (a *app) outcome(ctx context.Context, text string) error {
	id, err := spool.ParseID(text)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, outcomeWait)
	defer cancel()
	client := control.Dial(a.spool)
	defer client.Close()
	poll := time.NewTicker(outcomePoll)
	defer poll.Stop()
	for {
		if t, err := client.Show(ctx, id); err == nil && attempted(&t) {
			return a.tellOutcome(&t)
		}
		select {
		case <-ctx.Done():
			return &exitError{status: exFailure, err: fmt.Errorf("the test mail waits: postino trace %s tells what becomes of it", id)}
		case <-poll.C:
		}
	}
}

func attempted(t *control.Trace) bool {
	for _, r := range t.Recipients {
		if r.Reply == nil {
			return false
		}
	}
	return len(t.Recipients) > 0
}

func (a *app) tellOutcome(t *control.Trace) error {
	var failed error
	for _, r := range t.Recipients {
		line := fmt.Sprintf("%s: %s: %s %s", r.Address, r.Status, r.Reply.Status, r.Reply.Text)
		if r.Reply.Class() == spool.Success {
			a.say("test mail %s to %s", t.ID, line)
			continue
		}
		if r.Reply.Remedy != "" {
			line += ": " + r.Reply.Remedy
		}
		failed = errors.Join(failed, errors.New("test mail to "+line))
	}
	if failed != nil {
		return &exitError{status: exFailure, err: failed}
	}
	return nil
}
