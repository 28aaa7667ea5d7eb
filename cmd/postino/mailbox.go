package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"postino/config"
	mailbox "postino/delivery/local"
)

// runMailboxServe delivers what a runner sends on standard input, a socket. With an
// operand it listens there and serves each connection so.
func runMailboxServe(_ context.Context, a *app, _ options, operands []string) error {
	switch len(operands) {
	case 0:
	case 1:
		// As postino-mailbox@.service has it. CAP_KILL ends the process of a user who
		// stops it.
		if err := giveUpCapabilities(unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_KILL); err != nil {
			return err
		}
		return a.serveEach(operands[0], maxMailboxServes, "mailbox", "serve")
	default:
		return usageError("mailbox serve takes one socket to listen on, or none")
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
		return a.serveEach(operands[0], maxProgramServes, "program", "serve")
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
