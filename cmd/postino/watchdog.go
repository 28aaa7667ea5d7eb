package main

import (
	"context"
	"fmt"
	"time"
)

// beats is how often, within the time that a watchdog allows, we say that we live.
const beats = 3

// feed tells the service manager's watchdog that we live, for as long as both the
// loop that starts attempts and the one that writes the spool answer: a process in
// which one of them is stuck looks alive and is of no use. It returns when ctx ends.
func (svc *service) feed(ctx context.Context) {
	if svc.manager.watchdog == 0 {
		return
	}
	tick := time.NewTicker(svc.manager.watchdog / beats)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := svc.alive(ctx); err != nil {
			if ctx.Err() == nil {
				svc.log.Error("a part of the runner does not answer, the service manager is going to end it", "err", err)
			}
			continue
		}
		svc.manager.tell("WATCHDOG=1", svc.statusLine())
	}
}

// alive asks the loops of the runner for a sign of life.
func (svc *service) alive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, svc.manager.watchdog/beats)
	defer cancel()
	if err := svc.spool.Alive(ctx); err != nil {
		return fmt.Errorf("the writer of the spool: %w", err)
	}
	if err := svc.runner.Alive(ctx); err != nil {
		return fmt.Errorf("the loop of the queue: %w", err)
	}
	return nil
}

// statusLine is what `systemctl status` shows.
func (svc *service) statusLine() string {
	return fmt.Sprintf("STATUS=mode %s, %d messages to attempt", svc.config.Load().Mode, svc.runner.Pending())
}
