package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"postino/config"
	mailbox "postino/delivery/local"
)

// runMailboxServe delivers what a runner sends on standard input, a socket.
func runMailboxServe(_ context.Context, a *app, _ options, operands []string) error {
	if len(operands) > 0 {
		return usageError("mailbox serve takes no operands")
	}
	conn, err := a.peer()
	if err != nil {
		return err
	}
	defer conn.Close()
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	to := c.Local.Deliver.Transport
	if to.Kind != config.ViaMaildir && to.Kind != config.ViaMbox && to.Kind != config.ViaPipe {
		return &exitError{status: exConfig, err: errors.New("local.deliver: want maildir:, mbox: or pipe: where there is a helper")}
	}
	m := &mailbox.Mailboxes{To: to, Hostname: c.Hostname, Forward: c.Aliases.Forward, Program: []string{"/proc/self/exe", "mailbox", "write"}}
	return m.Serve(conn)
}

// runProgramServe runs the programs, and writes the files, that a runner sends on
// standard input, a socket. It reads no configuration, which whoever runs programs for
// mail had better not be able to. With an operand it listens there and serves each
// connection so.
func runProgramServe(_ context.Context, a *app, _ options, operands []string) error {
	switch len(operands) {
	case 0:
	case 1:
		return a.listenForPrograms(operands[0])
	default:
		return usageError("program serve takes one socket to listen on, or none")
	}
	conn, err := a.peer()
	if err != nil {
		return err
	}
	defer conn.Close()
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "localhost"
	}
	return mailbox.ServeTargets(conn, hostname)
}

// maxProgramServes is how many messages are served at a time, as MaxConnections= in
// postino-program.socket: programs may be large.
const maxProgramServes = 4

// listenForPrograms is for a service manager that does not listen itself. Each connection
// has a process of its own, which goes on when we end.
func (a *app) listenForPrograms(path string) error {
	l, err := listen(filepath.Dir(path), filepath.Base(path))
	if err != nil {
		return err
	}
	places := make(chan struct{}, maxProgramServes)
	for {
		places <- struct{}{}
		conn, err := l.AcceptUnix()
		if err != nil {
			return err
		}
		go func() {
			defer func() { <-places }()
			defer conn.Close()
			if err := a.serveProgramOn(conn); err != nil {
				a.report(err)
			}
		}()
	}
}

func (a *app) serveProgramOn(conn *net.UnixConn) error {
	file, err := conn.File()
	if err != nil {
		return err
	}
	defer file.Close()
	cmd := exec.Command("/proc/self/exe", "program", "serve", "--spool", a.spool)
	cmd.Args[0], cmd.Stdin, cmd.Stderr = a.name, file, os.Stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) { // it says why itself
		return err
	}
	return nil
}

// peer is the runner on standard input.
func (a *app) peer() (net.Conn, error) {
	conn, err := net.FileConn(os.Stdin)
	if err != nil {
		return nil, usageError("standard input is no socket: a service manager starts this, for each connection to local.helper or aliases.helper")
	}
	if err := a.checkRunner(); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// checkRunner refuses a peer on standard input that is neither root nor the owner of
// the spool, beside what the rights of the socket's file say.
func (a *app) checkRunner() error {
	peer, err := unix.GetsockoptUcred(int(os.Stdin.Fd()), unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return fmt.Errorf("standard input: who is the peer: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(a.spool, &st); err != nil {
		return &os.PathError{Op: "stat", Path: a.spool, Err: err}
	}
	if peer.Uid != 0 && peer.Uid != st.Uid {
		return &exitError{status: exNoPerm, err: fmt.Errorf("uid %d is not the runner's: the socket of a helper has to have mode 0600", peer.Uid)}
	}
	return nil
}

// runMailboxWrite writes one message to one mailbox, as the user that mailbox serve
// started it as.
func runMailboxWrite(_ context.Context, a *app, _ options, _ []string) error {
	const taskFD = 3
	return mailbox.Write(os.NewFile(taskFD, "task"), os.Stdin, a.stdout)
}
