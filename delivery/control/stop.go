package control

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"time"

	"golang.org/x/sys/unix"
)

// endPoll is how often it is looked whether the runner's process is still there.
const endPoll = 100 * time.Millisecond

// Stop asks the runner to end, as SIGTERM does, and returns once its process is gone, or
// with the error of ctx. The kernel says which process that is, and nobody sends it, or
// any other, a signal: what the runner says of itself may be a lie. Where the kernel
// cannot tell (before Linux 5.3, or the runner is in another PID namespace) the end of
// its socket counts instead.
func (c *Client) Stop(ctx context.Context) error {
	process := -1
	defer func() { _ = unix.Close(process) }() // of none is harmless
	// The connection that we ask on: who is behind it is there until he is asked.
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		_ = unix.Close(process)
		process = processBehind(info.Conn.(*impatient).Conn.(*net.UnixConn))
	}}
	if err := c.call(httptrace.WithClientTrace(ctx, trace), http.MethodPost, "/stop", new(struct{})); err != nil {
		return err
	}
	c.Close()
	for {
		if gone, err := c.gone(ctx, process); gone || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(endPoll):
		}
	}
}

// processBehind is a pidfd of the process that listens, -1 when there is none to be had.
func processBehind(c *net.UnixConn) int {
	p, err := peerOf(c)
	if err != nil || p.pid <= 0 {
		return -1
	}
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return -1
	}
	return fd
}

// gone reports whether the process of a pidfd has ended, of -1 whether nobody listens.
func (c *Client) gone(ctx context.Context, process int) (bool, error) {
	if process < 0 {
		_, err := c.Status(ctx)
		return errors.Is(err, ErrNoRunner), nil
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, 0)
	if errors.Is(err, unix.EINTR) {
		err = nil
	}
	return n > 0, err
}
