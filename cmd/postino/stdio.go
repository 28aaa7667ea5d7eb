package main

import (
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"postino/spool/submit"
)

// stdio is sendmail -bs: SMTP on standard input and output, for as long as the
// client likes. It is the caller who speaks: of the configuration he may not be able to
// read, which may be broken too, nothing but the limits is of use here.
func stdio(a *app, noAliases bool) error {
	s := submit.Stdio{Dir: a.spool, NoAliases: noAliases, Handed: func(dropped bool) {
		if dropped {
			a.startUntilEmpty()
		}
	}}
	var err error
	if s.Hostname, err = os.Hostname(); err != nil {
		s.Hostname = "localhost"
	}
	s.MaxMessageSize, s.MaxRecipients = a.sessionLimits()
	if err := s.Serve(a.stdin, a.stdout); err != nil {
		return &exitError{status: exIO, err: err}
	}
	return nil
}

// sessionLimits are how many octets and recipients a message may have, 0 where the
// configuration does not tell.
func (a *app) sessionLimits() (octets int64, recipients int) {
	if info, err := os.Stat(a.config); err == nil && !info.Mode().IsRegular() {
		return 0, 0 // a pipe may have nothing to say, and let us wait for it
	}
	c, err := a.loadConfig()
	if err != nil {
		return 0, 0
	}
	return int64(c.MaxMessageSize), c.Limits.MaxRecipients
}

// startUntilEmpty starts a runner that ends when the queue is empty, for a spool
// that is our own and has no service to look after it. Nothing is said when it
// cannot start: the mail is safe, and the next submission tries again.
func (a *app) startUntilEmpty() {
	info, err := os.Stat(a.spool)
	if err != nil || !ownedBy(info, os.Geteuid()) {
		return
	}
	self, err := os.Executable()
	if err != nil {
		return
	}
	config, err := filepath.Abs(a.config)
	if err != nil {
		return
	}
	// What our caller left open must not live as long as the runner.
	const firstOther = 3
	_ = unix.CloseRange(firstOther, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	cmd := exec.Command(self, "run", "--until-empty", "--config", config, "--spool", a.spool)
	cmd.Args[0] = "postino"
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if cmd.Start() == nil {
		go cmd.Wait() // it may end before us
	}
}
