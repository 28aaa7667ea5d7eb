package submit

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"postino/spool"
)

const (
	// tcpIdle bounds one read of a client that speaks SMTP itself (RFC 5321 §4.5.3.2.7),
	// and tcpSession the whole: programs keep connections open to use them again.
	tcpIdle    = 5 * time.Minute
	tcpSession = time.Hour
)

// tcpListener asks the kernel whose socket is at the other end of a connection, which
// it knows of those of this machine alone. Others are closed.
type tcpListener struct {
	*net.TCPListener
	srv *Server
	// diag: the kernel has answered diagnose, so that what it does not know there is not.
	diag bool
}

func (l *tcpListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		uid, err := l.ownerOf(c)
		if err != nil {
			l.srv.often.Warn("connection refused", "from", c.RemoteAddr(), "err", err)
			c.Close()
			continue
		}
		if admitted := l.srv.admit(c, spool.Origin{Via: spool.ViaTCP, UID: uid}, tcpIdle, tcpSession); admitted != nil {
			return admitted, nil
		}
	}
}

// ownerOf is the uid that made the socket at the other end of a connection within this
// machine.
func (l *tcpListener) ownerOf(c *net.TCPConn) (uid int, err error) {
	client, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return 0, err
	}
	server, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return 0, err
	}
	client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
	server = netip.AddrPortFrom(server.Addr().Unmap(), server.Port())
	if !client.Addr().IsLoopback() {
		return 0, errors.New("not from this machine")
	}
	uid, err = diagnose(client, server)
	l.diag = l.diag || err == nil
	if err == nil || errors.Is(err, errClosed) || l.diag && errors.Is(err, errNoSocket) {
		return uid, err
	}
	// A client that has a socket for both families is in the table of the other one.
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		uid, err := findSocket(table, client, server)
		if !errors.Is(err, errNoSocket) {
			return uid, err
		}
	}
	return 0, errNoSocket
}

var errNoSocket = errors.New("the kernel does not tell whose the connection is")

// findSocket looks for the socket with these addresses in a table of the kernel's.
func findSocket(table string, local, remote netip.AddrPort) (uid int, err error) {
	f, err := os.Open(table)
	if errors.Is(err, os.ErrNotExist) {
		return 0, errNoSocket // without IPv6
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return findLine(f, local, remote)
}

// findLine reads a table: a line of titles, then for each socket its number, its own
// and the other address, state, queues, timers, retransmissions, uid, timeout, inode.
// Without an inode the process has closed the socket, and the uid says nothing.
func findLine(table io.Reader, local, remote netip.AddrPort) (uid int, err error) {
	want := []string{inTable(local), inTable(remote)}
	wide := []string{inTable(mapped(local)), inTable(mapped(remote))}
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || !slices.Equal(fields[1:3], want) && !slices.Equal(fields[1:3], wide) {
			continue
		}
		if fields[9] == "0" {
			return 0, errClosed
		}
		return strconv.Atoi(fields[7])
	}
	return 0, cmp.Or(lines.Err(), errNoSocket)
}

// mapped is an IPv4 address as a socket for IPv6 has it.
func mapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
}

// inTable is an address as it stands in the tables: each 32 bits as the number that
// this machine takes them for.
func inTable(a netip.AddrPort) string {
	var b strings.Builder
	for word := range slices.Chunk(a.Addr().AsSlice(), 4) {
		fmt.Fprintf(&b, "%08X", binary.NativeEndian.Uint32(word))
	}
	return fmt.Sprintf("%s:%04X", b.String(), a.Port())
}

// errHTTP ends a session in which somebody speaks HTTP. Programs can be made to send
// requests to addresses that others choose, browsers and servers alike, and what is in
// one would be taken for commands of their user.
var errHTTP = errors.New("a request of HTTP on a port for SMTP")

// isHTTP reports whether a line begins as a request of HTTP does, with a method
// (RFC 9110 §9.3, RFC 5789), which no command of SMTP is.
func isHTTP(line []byte) bool {
	verb, _, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), " ")
	return slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}, strings.ToUpper(verb))
}
