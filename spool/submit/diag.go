package submit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Of sock_diag(7) and linux/inet_diag.h.
const (
	diagByFamily = 20 // the type of question and answer
	diagQuestion = 56 // octets of struct inet_diag_req_v2
	diagAnswer   = 72 // octets of struct inet_diag_msg
)

// errClosed: the process has closed the socket, so that it is nobody's.
var errClosed = errors.New("the client has closed it already")

// diagnose asks the kernel for the socket with these addresses: for one, while the tables
// of /proc list all that there are, which any user can make many. The error is
// errNoSocket where there is none, or where the kernel cannot be asked about TCP.
func diagnose(local, remote netip.AddrPort) (uid int, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, diagRequest(local, remote), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, err
	}
	// The answer is there when Sendto returns.
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
	if err != nil {
		return 0, err
	}
	return parseDiag(buf[:n], local, remote)
}

// diagRequest is the message that asks for one socket.
func diagRequest(local, remote netip.AddrPort) []byte {
	native, b := binary.NativeEndian, make([]byte, 0, unix.SizeofNlMsghdr+diagQuestion)
	b = native.AppendUint32(b, unix.SizeofNlMsghdr+diagQuestion)
	b = native.AppendUint16(b, diagByFamily)
	b = native.AppendUint16(b, unix.NLM_F_REQUEST)
	b = append(b, make([]byte, 8)...) // sequence and port: there is one question
	family := byte(unix.AF_INET)
	if local.Addr().Is6() {
		family = unix.AF_INET6
	}
	b = append(b, family, unix.IPPROTO_TCP, 0, 0)
	b = native.AppendUint32(b, 0xffffffff) // in any state
	b = binary.BigEndian.AppendUint16(b, local.Port())
	b = binary.BigEndian.AppendUint16(b, remote.Port())
	for _, a := range []netip.Addr{local.Addr(), remote.Addr()} {
		room := [16]byte{}
		copy(room[:], a.AsSlice())
		b = append(b, room[:]...)
	}
	b = native.AppendUint32(b, 0)          // at any interface
	return native.AppendUint64(b, 1<<64-1) // no cookie
}

// parseDiag reads the answer. The kernel falls back to a socket that only listens at the
// port: it has to be the one that was asked for.
func parseDiag(b []byte, local, remote netip.AddrPort) (uid int, err error) {
	native := binary.NativeEndian
	if len(b) < unix.SizeofNlMsghdr+4 {
		return 0, fmt.Errorf("sock_diag: an answer of %d octets", len(b))
	}
	kind, b := native.Uint16(b[4:]), b[unix.SizeofNlMsghdr:]
	if kind == unix.NLMSG_ERROR {
		if errno := unix.Errno(-int32(native.Uint32(b))); errno != unix.ENOENT {
			return 0, fmt.Errorf("sock_diag: %w", errno)
		}
		return 0, errNoSocket
	}
	if kind != diagByFamily || len(b) < diagAnswer {
		return 0, fmt.Errorf("sock_diag: an answer of type %d, with %d octets", kind, len(b))
	}
	end := func(port, addr []byte) netip.AddrPort {
		a := netip.AddrFrom16([16]byte(addr))
		if b[0] == unix.AF_INET {
			a = netip.AddrFrom4([4]byte(addr[:4]))
		}
		return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(port))
	}
	if end(b[4:6], b[8:24]) != local || end(b[6:8], b[24:40]) != remote {
		return 0, errNoSocket
	}
	if native.Uint32(b[68:]) == 0 { // no inode
		return 0, errClosed
	}
	return int(native.Uint32(b[64:])), nil
}
