package submit

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"postino/spool"
)

// socketListener asks the kernel who is calling.
type socketListener struct {
	*net.UnixListener
	srv *Server
}

func (l *socketListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		cred, err := peer(c)
		if err != nil {
			c.Close()
			continue
		}
		pid, program := caller(int(cred.Pid))
		origin := spool.Origin{Via: spool.ViaSocket, UID: int(cred.Uid), PID: pid, Program: program}
		if admitted := l.srv.admit(c, origin, idleTimeout, sessionTimeout); admitted != nil {
			return admitted, nil
		}
	}
}

func peer(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = credErr
	}
	return cred, err
}

// maxShells is how many shells between a program and the front end are looked
// through: PHP and cron start sendmail by "sh -c".
const maxShells = 3

// caller names the program that called the front end with this pid. It is for
// people to read; nothing is decided by it. What /proc does not show is left out, and
// a service manager above a shell: the shell then is what it started.
func caller(pid int) (int, string) {
	name := ""
	for range maxShells + 1 {
		parent := parentOf(pid)
		if parent <= 0 {
			break
		}
		above := programOf(parent)
		if name != "" && isManager(above) {
			break
		}
		pid, name = parent, above
		if !isShell(name) {
			break
		}
	}
	if name == "" {
		return 0, ""
	}
	return pid, name
}

func isShell(name string) bool {
	switch name {
	case "sh", "dash", "bash", "ash", "ksh", "zsh":
		return true
	}
	return false
}

func isManager(name string) bool {
	switch name {
	case "systemd", "init", "supervise-daemon", "runsv":
		return true
	}
	return false
}

func programOf(pid int) string {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	return spool.CleanText(string(comm))
}

func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// pid (comm) state ppid …, where comm may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return parent
}
