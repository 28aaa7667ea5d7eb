package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"postino/delivery/control"
	"postino/spool"
)

const (
	// readyWait is how long -bd waits for the runner that it starts to answer; it may
	// first have to wait for another to end.
	readyWait = yieldWait + 10*time.Second
	readyPoll = 50 * time.Millisecond
)

// daemon is -bd: it starts a runner of its own session and returns when that
// answers. A runner that is there already is as good.
func (a *app) daemon(ctx context.Context) error {
	if err := a.mayRun(); err != nil {
		return err
	}
	client := control.Dial(a.spool)
	status, err := client.Status(ctx)
	client.Close()
	if err == nil && !status.UntilEmpty {
		return nil
	}
	if err := prepareSpool(a.spool); err != nil {
		return err
	}
	// Not our standard error: whoever waits for its end would wait for the runner's.
	log, err := os.OpenFile(filepath.Join(a.spool, spool.LogFile), os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return err
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if a.spool, err = filepath.Abs(a.spool); err != nil {
		return err
	}
	if a.config, err = filepath.Abs(a.config); err != nil {
		return err
	}
	cmd := exec.Command(self, "run", "--config", a.config, "--spool", a.spool)
	cmd.Args[0] = "postino"
	cmd.Dir = "/"
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return &exitError{status: exOS, err: err}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return a.awaitRunner(ctx, cmd.Process.Pid, ended)
}

// awaitRunner returns when the runner that was started answers, or has ended. An
// answer from another one is not enough: that may be about to give up the spool.
func (a *app) awaitRunner(ctx context.Context, pid int, ended <-chan error) error {
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	client := control.Dial(a.spool)
	defer client.Close()
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	for {
		if st, err := client.Status(ctx); err == nil && st.PID == pid {
			return nil
		}
		select {
		case <-ctx.Done():
			return &exitError{status: exUnavailable, err: fmt.Errorf("the runner was started (pid %d) and does not answer yet", pid)}
		case <-ended:
			return a.endedEarly(ctx, client)
		case <-poll.C:
		}
	}
}

// endedEarly is nil where another runner has the spool.
func (a *app) endedEarly(ctx context.Context, client *control.Client) error {
	if _, err := client.Status(ctx); err == nil {
		return nil
	}
	return &exitError{status: exUnavailable, err: errors.New("the runner ended at once: " +
		filepath.Join(a.spool, spool.LogFile) + " says why")}
}

func ownedBy(info fs.FileInfo, uid int) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == uid
}
