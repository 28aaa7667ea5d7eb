package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"postino/config"
	"postino/delivery"
	"postino/delivery/control"
	"postino/spool"
	"postino/spool/submit"
)

const (
	// linger is how long a runner started for the moment waits for more mail before
	// it ends, so that a burst of submissions does not start one for each.
	linger = 2 * time.Second
	// idlePoll is how often such a runner looks whether it is done.
	idlePoll = 100 * time.Millisecond
	// intakeGrace is how long submissions under way may go on at the end.
	intakeGrace = 5 * time.Second
	// controlGrace is how long questions under way may go on at the end.
	controlGrace = time.Second
	// yieldWait is how long a full runner waits for one started for the moment to
	// give up the spool: its attempts may need their grace, and the machine may stand
	// still for a while.
	yieldWait = 70 * time.Second
	// silentWait is how long a full runner waits for somebody who has the spool and
	// answers no questions: a runner that begins or ends, or a command that reads. On a
	// machine that stands still for a while these do too.
	silentWait = 30 * time.Second
)

// service is a running `postino run`.
type service struct {
	app        *app
	untilEmpty bool
	log        *slog.Logger
	journal    *control.Journal
	metrics    *control.Metrics
	config     atomic.Pointer[config.Config]
	spool      *spool.Spool
	runner     *delivery.Runner
	intake     *submit.Server // the one that takes submissions now; replaced by the main goroutine alone
	stop       chan struct{}  // somebody with the right to asked us to end
	hangup     chan os.Signal
	reloads    chan chan error // those who ask for the same as SIGHUP, and want to know
	started    time.Time
	manager    *manager
}

// runRunner is the run command: it has the spool until it is told to stop, or,
// with --until-empty, until there is nothing left to do.
func runRunner(ctx context.Context, a *app, untilEmpty bool) error {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()
	forgetCaller()
	keepMemoryPrivate()
	manager, err := takeManager(untilEmpty)
	if err != nil {
		return err
	}
	signal.Ignore(unix.SIGPIPE) // a log that nobody reads any more is no reason to stop
	if err := prepareSpool(a.spool); err != nil {
		return err
	}
	out, err := logOutput(a, untilEmpty)
	if err != nil {
		return err
	}
	c, err := a.loadConfig()
	if err != nil {
		if out != a.stderr { // standard error goes nowhere
			slog.New(slog.NewTextHandler(out, nil)).Error("not started, mail waits in drop/", "err", err)
		}
		return err
	}
	target := logTarget(c.Log.To, untilEmpty, os.Stderr, a.env("JOURNAL_STREAM", ""))
	out = toTarget(target, out)
	lines, journal, metrics := newLogWriter(out), control.NewJournal(), control.NewMetrics()
	defer lines.close()
	log := slog.New(metrics.Handler(journal.Handler(newLogger(lines, target, c, a.zone).Handler())))
	svc := &service{app: a, untilEmpty: untilEmpty, manager: manager, journal: journal, metrics: metrics, log: log, stop: make(chan struct{}, 1), hangup: make(chan os.Signal, 1), reloads: make(chan chan error), started: time.Now()}
	svc.config.Store(c)
	if svc.runner, err = delivery.New(c, svc.log); err != nil {
		return &exitError{status: exConfig, err: err}
	}
	defer svc.runner.Close()
	if svc.spool, err = svc.open(ctx); err != nil || svc.spool == nil {
		return err
	}
	err = svc.run(ctx)
	if closeErr := svc.spool.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		svc.log.Info("stopped")
	} else if out != a.stderr {
		svc.log.Error("stopped", "err", err) // standard error goes nowhere
	}
	return err
}

// open opens the spool. A runner started for the moment gives way where another
// one has it, and the result is nil once that one has taken all there is.
func (svc *service) open(ctx context.Context) (*spool.Spool, error) {
	deadline, silent := time.Now().Add(yieldWait), time.Now().Add(silentWait)
	asked := false
	for {
		s, err := spool.Open(svc.app.spool, spool.Options{Queued: svc.runner.Queued, Compacted: svc.compacted})
		var locked *spool.LockedError
		if !errors.As(err, &locked) || ctx.Err() != nil || time.Now().After(deadline) {
			return s, err
		}
		if svc.untilEmpty {
			if waiting, dropErr := submit.DropsWaiting(svc.app.spool); dropErr != nil || !waiting {
				return nil, dropErr
			}
		} else if !asked {
			var answered bool
			asked, answered = askToYield(ctx, svc.app.spool)
			if !asked && (answered || time.Now().After(silent)) {
				return nil, err
			}
		}
		time.Sleep(idlePoll)
	}
}

// compacted is told when an idle spool has been made smaller.
func (svc *service) compacted(before, after int64, err error) {
	if err != nil {
		svc.log.Error("spool not compacted", "err", err)
		return
	}
	svc.log.Info("spool compacted", "before", before, "after", after)
}

// askToYield asks the runner that has the spool to end, if it was started for the
// moment alone. answered says that somebody is there to be asked.
func askToYield(ctx context.Context, dir string) (asked, answered bool) {
	client := control.Dial(dir)
	defer client.Close()
	status, err := client.Status(ctx)
	if err == nil && status.UntilEmpty {
		err = client.Yield(ctx)
		asked = err == nil
	}
	var remote *control.RemoteError
	return asked, err == nil || errors.As(err, &remote)
}

func (svc *service) run(ctx context.Context) error {
	svc.log.Info("started", "version", version, "spool", svc.app.spool, "mode", string(svc.config.Load().Mode))
	for _, warning := range svc.spool.Warnings() {
		svc.log.Warn("spool", "err", warning)
	}
	signal.Notify(svc.hangup, unix.SIGHUP)
	defer signal.Stop(svc.hangup)
	svc.runner.Load(svc.spool)

	ctrl, err := svc.serveControl()
	if err != nil {
		return err
	}
	defer ctrl()
	runCtx, stopRunner := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRunner()
	salvaged := svc.salvage(runCtx)
	defer func() { stopRunner(); <-salvaged }()
	ran := make(chan error, 1)
	go func() { ran <- svc.runner.Run(runCtx, svc.spool) }()
	fed := make(chan struct{})
	go func() { defer close(fed); svc.feed(runCtx) }()
	defer func() { stopRunner(); <-fed }()

	for again := true; again; {
		end, err := svc.takeIn()
		if err != nil {
			stopRunner()
			<-ran
			return err
		}
		svc.manager.tell("READY=1", svc.statusLine())
		if again = svc.wait(ctx, ran, salvaged); !again {
			svc.manager.tell("STOPPING=1", "STATUS=attempts under way end")
			stopRunner() // no new attempts, while submissions under way end
		}
		end(again)
		again = again && svc.runner.Pending() > 0
	}
	stopRunner()
	return <-ran
}

// wait returns when submissions have to stop: for good, or, when the result is
// true, to find out whether nothing is left to do.
func (svc *service) wait(ctx context.Context, ran chan error, salvaged <-chan struct{}) bool {
	poll := time.NewTicker(idlePoll)
	defer poll.Stop()
	busy := time.Now()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-svc.stop:
			return false
		case err := <-ran:
			ran <- err
			return false
		case <-svc.hangup:
			_ = svc.reload() // the log has it
		case asked := <-svc.reloads:
			asked <- svc.reload()
		case <-poll.C:
			if !svc.untilEmpty || svc.runner.Pending() > 0 || svc.dropsNeedRoom() || !closed(salvaged) {
				busy = time.Now()
			} else if time.Since(busy) > linger {
				return true
			}
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// salvage brings back what is in damaged spool files, while new mail is taken and
// delivered: that must not wait for the reading of a gigabyte. The channel is closed
// when it is done, or ctx is.
func (svc *service) salvage(ctx context.Context) <-chan struct{} {
	done := make(chan struct{})
	aside, err := svc.spool.SetAside()
	if err != nil {
		svc.log.Error("damaged spool files not found", "err", err)
	}
	for _, f := range aside {
		svc.log.Error("spool file damaged and set aside, its mail is being salvaged; check the disk", "file", f.Path, "err", f.Err)
	}
	go func() {
		defer close(done)
		for _, f := range aside {
			r, err := svc.spool.Salvage(ctx, f.Path)
			if err != nil {
				svc.log.Error("spool file not salvaged, the next start or \"postino spool salvage\" tries again", "file", f.Path, "err", err)
				continue
			}
			svc.log.Warn("spool file salvaged; look at what is held (postino queue --status held), keep the file until nothing is missed",
				"file", f.Path, "queued", r.Queued, "held", r.Held, "finished", r.Finished, "known", r.Known, "partial", len(r.Partial))
			for _, p := range r.Partial {
				svc.log.Warn("partly salvaged", "what", p)
			}
		}
	}()
	return done
}

func (svc *service) serveControl() (end func(), err error) {
	l, err := listen(svc.app.spool, spool.ControlSocket)
	if err != nil {
		return nil, err
	}
	srv := control.NewServer(control.Options{
		Spool: svc.spool, Runner: svc.runner, Owner: os.Geteuid(), Group: os.Getegid(), Version: version,
		UntilEmpty: svc.untilEmpty, Started: svc.started, Log: svc.log, Journal: svc.journal, Metrics: svc.metrics,
		Mode:     func() string { return string(svc.config.Load().Mode) },
		MailqAll: func() bool { return svc.config.Load().Limits.Mailq == config.MailqAll },
		Stop:     func() { nudge(svc.stop, struct{}{}) },
		Reload:   svc.askToReload,
	})
	endMetrics, err := svc.serveMetrics(srv)
	if err != nil {
		l.Close()
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	return func() {
		endMetrics()
		_ = os.Remove(filepath.Join(svc.app.spool, spool.ControlSocket))
		grace, cancel := context.WithTimeout(context.Background(), controlGrace)
		defer cancel()
		srv.Shutdown(grace)
		if err := <-done; err != nil {
			svc.log.Error("control socket", "err", err)
		}
	}, nil
}

// nudge sends v unless one is waiting already.
func nudge[T any](c chan<- T, v T) {
	select {
	case c <- v:
	default:
	}
}
