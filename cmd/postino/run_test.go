package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"postino/spool"
)

// A runner that ends takes a question and gives no answer any more. Whoever begins
// then waits for its end, and does not take it for one that has the spool for good.
func TestRunnerWaitsForOneThatEnds(t *testing.T) {
	p := newPlace(t)
	_, release := p.hold(t)
	socket := filepath.Join(p.spool, spool.ControlSocket)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: socket})
	if err == nil {
		err = os.Chmod(socket, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	released := make(chan struct{})
	go func() {
		defer close(released)
		defer release()
		defer l.Close()
		for {
			pid, err := silent(l)
			if err != nil {
				t.Error(err)
				return
			}
			if pid != os.Getpid() { // we ask too, whether the runner is there
				return
			}
		}
	}()
	p.start(t, 0) // and it answers
	<-released
}

// silent takes a connection, closes it without a word, and returns whose it was.
func silent(l *net.UnixListener) (pid int, err error) {
	c, err := l.AcceptUnix()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) { peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if peerErr != nil {
		return 0, peerErr
	}
	return int(peer.Pid), nil
}
