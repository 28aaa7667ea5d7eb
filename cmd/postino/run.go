package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
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
	// give up the spool: its attempts may need their grace.
	yieldWait = 40 * time.Second
	// silentWait is how long a full runner waits for somebody who has the spool and
	// answers no questions: a runner that begins or ends, or a command that reads.
	silentWait = 5 * time.Second
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

// forgetCaller undoes what a caller of sendmail may have set for itself and handed
// down to the runner that its front end started: a umask, and a limit on the size
// of files that the spool would run into.
func forgetCaller() {
	unix.Umask(0o022)
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_FSIZE, &l) == nil {
		l.Cur = l.Max
		_ = unix.Setrlimit(unix.RLIMIT_FSIZE, &l)
	}
}

// keepMemoryPrivate keeps passwords and mail out of core files and from processes of
// the same user that would look into ours. It fails on no system that we run on, and
// without it nothing else changes.
func keepMemoryPrivate() {
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

// dropMode is that of drop/: sticky, so that nobody takes another's file away; setgid,
// so that the files are readable by the runner's group.
const dropMode = 0o733 | fs.ModeDir | fs.ModeSticky | fs.ModeSetgid

// prepareSpool makes the spool directory usable by callers before anything can go
// wrong with the configuration: whoever submits needs drop/ and nothing else.
func prepareSpool(dir string) error {
	if err := makeSpoolDir(dir); err != nil {
		return fmt.Errorf("spool directory: %w", err)
	}
	if err := becomeOwner(dir); err != nil {
		return err
	}
	drop := filepath.Join(dir, spool.DropDir)
	if err := os.Mkdir(drop, 0o733); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(drop)
	if err != nil {
		return err
	}
	// Only where it is needed: who runs us may allow nobody to set that bit.
	if info.Mode() != dropMode {
		if err := os.Chmod(drop, dropMode&^fs.ModeDir); err != nil {
			return err
		}
	}
	return syncDir(dir) // what is left in drop/ must not go with it in a power cut
}

// makeSpoolDir makes the spool directory if it is missing. Its name is synced each
// time: the runner that made it may have ended before it got so far.
func makeSpoolDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	err := syncDir(filepath.Dir(dir))
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EINVAL) {
		return nil // who may not read it, or a file system that cannot sync directories
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
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
	return asked, !errors.Is(err, control.ErrNoRunner)
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

// dropsNeedRoom reports whether mail waits in drop/ for a full disk to have room.
func (svc *service) dropsNeedRoom() bool {
	if svc.spool.Room() == nil {
		return false
	}
	waiting, err := submit.DropsWaiting(svc.app.spool)
	return err == nil && waiting
}

// takeIn begins to take submissions. The function it returns ends that; with
// last, it looks into drop/ once more when nobody can reach the socket any more.
func (svc *service) takeIn() (end func(last bool), err error) {
	srv := submit.New(svc.spool, policy(svc.config.Load()), svc.log)
	svc.intake = srv
	ports := slices.Clone(svc.manager.ports)
	if !svc.untilEmpty { // which is not there when programs connect
		for _, address := range svc.config.Load().SMTP.Listen {
			p, err := openPort("smtp.listen", address, svc.log)
			if err != nil {
				closeAll(ports)
				return nil, err
			}
			ports = append(ports, p)
		}
	}
	l := svc.manager.submit
	if l == nil {
		if l, err = listen(svc.app.spool, spool.SubmitSocket); err != nil {
			closeAll(ports)
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2+len(ports))
	for _, p := range ports {
		go func() { done <- p.serve(ctx, svc.log, srv.ServeTCP) }()
	}
	go func() { done <- srv.Serve(l) }()
	go func() { done <- srv.Drops(ctx) }()
	return func(last bool) {
		if svc.manager.submit == nil { // else the name is the service manager's, and who connects now waits for our successor
			_ = os.Remove(filepath.Join(svc.app.spool, spool.SubmitSocket))
		}
		l.Close()
		cancel() // closes the ports
		for range cap(done) {
			if err := <-done; err != nil {
				svc.log.Error("submissions ended", "err", err)
			}
		}
		grace, cancel := context.WithTimeout(context.Background(), intakeGrace)
		defer cancel()
		srv.Shutdown(grace)
		if last {
			svc.lastLook()
		}
	}, nil
}

// lastLook takes what is in drop/ when nobody can reach the socket any more.
func (svc *service) lastLook() {
	srv := submit.New(svc.spool, policy(svc.config.Load()), svc.log)
	if err := srv.ScanDrops(context.Background()); err != nil {
		svc.log.Error("drop directory not read", "err", err)
	}
	grace, cancel := context.WithTimeout(context.Background(), intakeGrace)
	defer cancel()
	srv.Shutdown(grace)
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

// askToReload has the main goroutine reload, and waits for it.
func (svc *service) askToReload(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case svc.reloads <- answer:
		return <-answer
	case <-ctx.Done():
		return errors.New("the runner is ending")
	}
}

// reload takes the configuration anew and keeps the old one if that is wrong.
func (svc *service) reload() error {
	svc.manager.tell(reloading())
	defer func() { svc.manager.tell("READY=1", svc.statusLine()) }()
	c, err := svc.app.loadConfig()
	if err == nil {
		err = svc.runner.SetConfig(c)
	}
	if err != nil {
		svc.log.Error("configuration not reloaded, the old one stays", "err", err)
		return err
	}
	svc.config.Store(c)
	svc.intake.SetPolicy(policy(c))
	svc.log.Info("configuration reloaded", "mode", string(c.Mode))
	return nil
}

func policy(c *config.Config) submit.Policy {
	return submit.Policy{
		Hostname: c.Hostname, Domain: c.Domain,
		MaxMessageSize: int64(c.MaxMessageSize), MaxRecipients: c.Limits.MaxRecipients,
		PerUID: submit.Rate(c.Limits.PerUID), RecipientsPerUID: submit.Rate(c.Limits.RecipientsPerUID),
		From: submit.From{Envelope: rewriting(c.From.Envelope), Header: rewriting(c.From.Header), Address: c.From.Address, Name: c.From.Name,
			Generic: c.From.Generic, KeepAs: string(c.From.KeepAs)},
		LocalDomains: c.LocalDomains, AllowFrom: c.Limits.AllowFrom,
	}
}

func rewriting(r config.Rewrite) submit.Rewrite {
	if r == config.Qualify {
		return submit.Qualify
	}
	return submit.Rewrite(r)
}
