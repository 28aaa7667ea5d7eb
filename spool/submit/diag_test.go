package submit

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel tells whose the other end of a connection is, however the client made its
// socket, as its tables do; and of one that was closed nothing.
func TestKernelTellsWhoseAConnectionIs(t *testing.T) {
	t.Parallel()
	for network, address := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"} {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Logf("%s: %v", network, err) // a machine without IPv6
			continue
		}
		defer l.Close()
		client, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		asks := &tcpListener{}
		if uid, err := asks.ownerOf(server.(*net.TCPConn)); err != nil || uid != os.Getuid() {
			t.Errorf("%s: %d, %v", network, uid, err)
		}
		local, remote := netip.MustParseAddrPort(client.LocalAddr().String()), netip.MustParseAddrPort(client.RemoteAddr().String())
		if uid, err := diagnose(local, remote); asks.diag && (err != nil || uid != os.Getuid()) {
			t.Errorf("%s, of the kernel: %d, %v", network, uid, err)
		}
		client.Close()
		if uid, err := asks.ownerOf(server.(*net.TCPConn)); err == nil {
			t.Errorf("%s: it was closed and is of %d", network, uid)
		}
	}
}

// Only an answer about the very socket counts.
func TestAnswersOfSockDiag(t *testing.T) {
	t.Parallel()
	a, b := netip.MustParseAddrPort("127.0.0.1:40000"), netip.MustParseAddrPort("127.0.0.1:25")
	answer := func(kind uint16, local, remote netip.AddrPort, uid, inode uint32) []byte {
		m := make([]byte, unix.SizeofNlMsghdr+diagAnswer)
		binary.NativeEndian.PutUint16(m[4:], kind)
		body := m[unix.SizeofNlMsghdr:]
		body[0] = unix.AF_INET
		binary.BigEndian.PutUint16(body[4:], local.Port())
		binary.BigEndian.PutUint16(body[6:], remote.Port())
		copy(body[8:], local.Addr().AsSlice())
		copy(body[24:], remote.Addr().AsSlice())
		binary.NativeEndian.PutUint32(body[64:], uid)
		binary.NativeEndian.PutUint32(body[68:], inode)
		return m
	}
	mapped := answer(diagByFamily, a, b, 1000, 8)
	mapped[unix.SizeofNlMsghdr] = unix.AF_INET6
	for at, addr := range map[int]netip.Addr{8: a.Addr(), 24: b.Addr()} {
		wide := addr.As16()
		copy(mapped[unix.SizeofNlMsghdr+at:], wide[:])
	}
	none := make([]byte, unix.SizeofNlMsghdr+4)
	binary.NativeEndian.PutUint16(none[4:], unix.NLMSG_ERROR)
	refused := append([]byte(nil), none...)
	enoent, eperm := -int32(unix.ENOENT), -int32(unix.EPERM)
	binary.NativeEndian.PutUint32(none[unix.SizeofNlMsghdr:], uint32(enoent))
	binary.NativeEndian.PutUint32(refused[unix.SizeofNlMsghdr:], uint32(eperm))
	for name, tt := range map[string]struct {
		answer []byte
		uid    int
		want   error
	}{
		"found":         {answer(diagByFamily, a, b, 1000, 8), 1000, nil},
		"for both":      {mapped, 1000, nil},
		"closed":        {answer(diagByFamily, a, b, 0, 0), 0, errClosed},
		"a listener":    {answer(diagByFamily, a, netip.AddrPortFrom(b.Addr(), 0), 0, 8), 0, errNoSocket},
		"another":       {answer(diagByFamily, b, a, 0, 8), 0, errNoSocket},
		"none":          {none, 0, errNoSocket},
		"not permitted": {refused, 0, unix.EPERM},
		"cut":           {answer(diagByFamily, a, b, 1000, 8)[:80], 0, nil},
		"nothing":       {nil, 0, nil},
		"another type":  {answer(3, a, b, 1000, 8), 0, nil},
	} {
		uid, err := parseDiag(tt.answer, a, b)
		if uid != tt.uid || tt.want != nil && !errors.Is(err, tt.want) || (err == nil) != (tt.uid != 0) {
			t.Errorf("%s: %d, %v", name, uid, err)
		}
	}
}
