package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
)

// listenTCP opens the ports for programs that only speak SMTP.
func listenTCP(addresses []string) (list []*net.TCPListener, err error) {
	for _, address := range addresses {
		l, err := net.Listen("tcp", address)
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w: ports below 1024 are root's: take another, or lower net.ipv4.ip_unprivileged_port_start", err)
		}
		if err != nil {
			closeAll(list)
			return nil, fmt.Errorf("smtp.listen: %w", err)
		}
		list = append(list, l.(*net.TCPListener))
	}
	return list, nil
}

func closeAll(list []*net.TCPListener) {
	for _, l := range list {
		l.Close()
	}
}
