package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"postino/config"
	"postino/delivery"
	"postino/spool"
	"postino/spool/spooltest"
)

// The watchdog is fed for a runner in which both loops turn, and not for one in which
// one of them does not: before the loop of the queue runs, and after it ended.
func TestWatchdogIsFedForLoopsThatTurn(t *testing.T) {
	c, err := config.Parse("postino.toml", []byte("hostname = \"web.test\"\nmode = \"hold\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	svc := &service{log: log, manager: &manager{watchdog: time.Second}, spool: spooltest.New(t, spool.Options{})}
	svc.config.Store(c)
	if svc.runner, err = delivery.New(c, log); err != nil {
		t.Fatal(err)
	}
	defer svc.runner.Close()
	stuck := func(when string) {
		t.Helper()
		for end := time.Now().Add(patience); ; {
			err := svc.alive(t.Context())
			late := errors.Is(err, context.DeadlineExceeded)
			if late && strings.Contains(err.Error(), "queue") {
				return
			}
			// The writer of the spool, which is asked first, is late on a machine that is.
			if !late || time.Now().After(end) {
				t.Fatalf("%s: alive = %v; want that the loop of the queue is stuck", when, err)
			}
		}
	}
	stuck("before it runs")

	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- svc.runner.Run(ctx, svc.spool) }()
	svc.manager.watchdog = time.Hour // it may take as long as it likes, on a busy machine
	if err := svc.alive(t.Context()); err != nil {
		t.Errorf("while it runs: alive = %v", err)
	}
	stop()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	svc.manager.watchdog = time.Second
	stuck("after it ended")
}
