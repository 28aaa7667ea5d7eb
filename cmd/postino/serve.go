package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// How many messages are served at a time, as MaxConnections= in postino-mailbox.socket
// and postino-program.socket: programs may be large.
const (
	maxMailboxServes = 16
	maxProgramServes = 4
)

// serveEach is for a service manager that does not listen itself: it listens on path, and
// has command serve each connection, places of them at a time. Each has a process of its
// own, which goes on when we end.
func (a *app) serveEach(path string, places int, command ...string) error {
	l, err := listen(filepath.Dir(path), filepath.Base(path))
	if err != nil {
		return err
	}
	taken := make(chan struct{}, places)
	for {
		taken <- struct{}{}
		conn, err := l.AcceptUnix()
		if err != nil {
			return err
		}
		go func() {
			defer func() { <-taken }()
			defer conn.Close()
			if err := a.serveOn(conn, command); err != nil {
				a.report(err)
			}
		}()
	}
}

func (a *app) serveOn(conn *net.UnixConn, command []string) error {
	file, err := conn.File()
	if err != nil {
		return err
	}
	defer file.Close()
	cmd := exec.Command("/proc/self/exe", slices.Concat(command, []string{"--config", a.config, "--spool", a.spool})...)
	cmd.Args[0], cmd.Stdin, cmd.Stderr = a.name, file, os.Stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) { // it says why itself
		return err
	}
	return nil
}

// giveUpCapabilities leaves root no more capabilities than these, for good, and nothing
// that it executes gains any. Others stay as they are. Since both are matters of one
// thread and of what that executes, this program begins anew.
func giveUpCapabilities(but ...uintptr) error {
	if os.Geteuid() != 0 {
		return nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dropped := false
	for c := uintptr(0); ; c++ {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err != nil { // there is no such capability
			break
		}
		if has == 0 || slices.Contains(but, c) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return fmt.Errorf("capability %d cannot be given up: %w: it takes CAP_SETPCAP", c, err)
		}
		dropped = true
	}
	if !dropped {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return &os.PathError{Op: "exec", Path: self, Err: syscall.Exec(self, os.Args, os.Environ())}
}
