package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// portAgain is how long a port that cannot be had is left alone.
const portAgain = 5 * time.Second

// port is one of TCP that a key of the configuration asks for.
type port struct {
	key, address string
	*net.TCPListener
}

// openPort opens a port. Any user can take one while the runner is not there, and an
// address of the network may come later: no mail but what is to come by that port shall
// wait for it. So there is no listener then, and serve goes on trying.
func openPort(key, address string, log *slog.Logger) (*port, error) {
	p := &port{key: key, address: address}
	err := p.open()
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s: %w: ports below 1024 are root's: take another, or lower net.ipv4.ip_unprivileged_port_start", key, err)
	case errors.Is(err, unix.EADDRINUSE), errors.Is(err, unix.EADDRNOTAVAIL):
		log.Error("port not open, it is tried again until it is", "key", key, "err", err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return p, nil
}

func (p *port) open() error {
	l, err := net.Listen("tcp", p.address)
	if err == nil {
		p.TCPListener = l.(*net.TCPListener)
	}
	return err
}

// serve has the port served until ctx ends.
func (p *port) serve(ctx context.Context, log *slog.Logger, serve func(*net.TCPListener) error) error {
	for p.TCPListener == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(portAgain):
		}
		if p.open() == nil {
			log.Info("port open at last", "key", p.key, "listen", p.address)
		}
	}
	defer context.AfterFunc(ctx, func() { p.Close() })()
	return serve(p.TCPListener)
}

func closeAll(list []*port) {
	for _, p := range list {
		if p.TCPListener != nil {
			p.Close()
		}
	}
}
