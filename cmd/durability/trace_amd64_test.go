package durability_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"postino/spool/standstill"
)

// fault is what happens to one system call of a process. Its calls are counted
// over all threads together, as strace cannot.
type fault struct {
	call string // its name; "" is any
	on   string // part of the path of its descriptor; "" is any
	nth  int    // which one of these, from 1; 0 is none
	// One of them: the process dies at the call's entry, the call fails with this
	// error and does nothing, or a write is given half of its octets.
	kill  bool
	errno syscall.Errno
	short bool
}

func (f fault) String() string {
	what := "kill"
	switch {
	case f.short:
		what = "half"
	case f.errno != 0:
		what = unix.ErrnoName(f.errno)
	}
	return fmt.Sprintf("%s at %s%s %d", what, f.call, f.on, f.nth)
}

// traced is a process whose system calls are watched.
type traced struct {
	pid    int
	done   chan struct{} // closed when it has ended
	status int           // exit status, -1 after a signal; good after done
	// hit: the fault was met. nudge is what is left of nudgeTime, which begins then.
	hit   atomic.Bool
	nudge time.Duration
	// calls counts what was called, by name. Good after done.
	calls map[string]int
	at    string // what the call's descriptor was, when the fault was met; likewise
	err   error
}

// trace starts cmd's program, made by box.command, under a fault. Its output goes
// to the box's log.
func (b *box) trace(stdin string, f fault, path string, args ...string) *traced {
	b.t.Helper()
	cmd := b.command("", path, args...)
	input := filepath.Join(b.dir, "stdin")
	if err := os.WriteFile(input, []byte(stdin), 0o600); err != nil {
		b.t.Fatal(err)
	}
	in, err := os.Open(input)
	if err != nil {
		b.t.Fatal(err)
	}
	p := &traced{done: make(chan struct{}), nudge: nudgeTime, calls: make(map[string]int)}
	started := make(chan error, 1)
	go func() {
		defer close(p.done)
		defer in.Close()
		// A tracer is a thread: the one that forked.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		pid, err := syscall.ForkExec(path, cmd.Args, &syscall.ProcAttr{
			Dir: cmd.Dir, Env: cmd.Env, Files: []uintptr{in.Fd(), b.log.Fd(), b.log.Fd()},
			Sys: &syscall.SysProcAttr{Ptrace: true, Setpgid: true, Pdeathsig: syscall.SIGKILL},
		})
		p.pid = pid
		started <- err
		if err == nil {
			p.err = p.follow(f)
		}
	}()
	if err := <-started; err != nil {
		if err == syscall.EPERM {
			skip(b.t, "no process may be traced here: %v", err)
		}
		b.t.Fatal(err)
	}
	b.t.Cleanup(p.kill)
	return p
}

// kill ends it at once, if it has not ended yet.
func (p *traced) kill() {
	select {
	case <-p.done:
	default:
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
		<-p.done
	}
}

// wait waits for its end, and ends it where that does not come.
func (p *traced) wait(t testing.TB) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Errorf("pid %d has not ended within %v\n%s", p.pid, patience, standstill.Of(p.pid))
		p.kill()
	}
	if p.err != nil {
		t.Errorf("tracing: %v", p.err)
	}
}

const (
	// waitOwn: of threads too, and only of those that this thread traces.
	waitOwn = syscall.WALL | unix.WNOTHREAD
	// sysgood marks a stop at a system call.
	sysgood = syscall.SIGTRAP | 0x80
)

// follow lets the process run, and counts at the entry of each call.
func (p *traced) follow(f fault) error {
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(p.pid, &ws, waitOwn, nil); err != nil {
		return err
	}
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL
	if err := syscall.PtraceSetOptions(p.pid, options); err != nil {
		return err
	}
	known := map[int]bool{p.pid: true}
	broken := make(map[int]bool) // threads in the call that is to fail
	seen := 0
	for tid, signal := p.pid, 0; ; {
		// A thread that was killed meanwhile is gone, which Wait4 will tell.
		if err := syscall.PtraceSyscall(tid, signal); err != nil && err != syscall.ESRCH {
			return err
		}
		var err error
		if tid, ws, err = p.next(); err != nil {
			return err
		}
		signal = 0
		switch {
		case ws.Exited():
			p.status = ws.ExitStatus()
			return nil
		case ws.Signaled():
			p.status = -1
			return nil
		case ws.StopSignal() == sysgood:
			if err := p.call(tid, f, &seen, broken); err != nil && err != syscall.ESRCH {
				return err
			}
		case ws.StopSignal() == syscall.SIGSTOP && !known[tid]: // a new thread
			known[tid] = true
		case ws.StopSignal() == syscall.SIGTRAP && ws.TrapCause() > 0: // one was made, or exec
		default:
			signal = int(ws.StopSignal())
		}
	}
}

// next waits for a stop of one of its threads, or for the end of them all. It waits
// for its process group alone, since the test has other children.
func (p *traced) next() (tid int, ws syscall.WaitStatus, err error) {
	for {
		tid, err = syscall.Wait4(-p.pid, &ws, waitOwn, nil)
		ofThread := err == nil && tid != p.pid && (ws.Exited() || ws.Signaled())
		if err != syscall.EINTR && !ofThread {
			return tid, ws, err
		}
	}
}

// call is a stop at the entry or the exit of a system call.
func (p *traced) call(tid int, f fault, seen *int, broken map[int]bool) error {
	var regs syscall.PtraceRegs
	if broken[tid] { // at the exit of the call that fails
		delete(broken, tid)
		if err := syscall.PtraceGetRegs(tid, &regs); err != nil {
			return err
		}
		regs.Rax = -uint64(f.errno)
		return syscall.PtraceSetRegs(tid, &regs)
	}
	// struct ptrace_syscall_info of ptrace(2): op, …, and at an entry nr and args.
	var info struct {
		op   uint8
		_    [3]uint8
		arch uint32
		_    [2]uint64 // ip, sp
		nr   uint64
		args [6]uint64
	}
	const getSyscallInfo, entry = 0x420e, 1
	_, _, e := syscall.Syscall6(syscall.SYS_PTRACE, getSyscallInfo, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if e != 0 {
		return e
	}
	if info.op != entry {
		return nil
	}
	name := callName(info.nr)
	p.calls[name]++
	if p.hit.Load() || f.nth == 0 || f.call != "" && f.call != name {
		return nil
	}
	at := ""
	if f.on != "" || *seen+1 == f.nth {
		at = p.object(name, info.args)
	}
	if !strings.Contains(at, f.on) {
		return nil
	}
	if *seen++; *seen != f.nth {
		return nil
	}
	p.at = at
	p.hit.Store(true)
	if f.kill {
		return syscall.Kill(p.pid, syscall.SIGKILL)
	}
	if err := syscall.PtraceGetRegs(tid, &regs); err != nil {
		return err
	}
	if f.short {
		regs.Rdx /= 2
	} else {
		regs.Orig_rax = ^uint64(0) // no call at all
		broken[tid] = true
	}
	return syscall.PtraceSetRegs(tid, &regs)
}

// object is what a call is about: the file of its descriptor, if it has one, and its
// path, if it takes one behind that.
func (p *traced) object(name string, args [6]uint64) string {
	at, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", p.pid, args[0]))
	switch name {
	case "openat", "stat", "unlink", "mkdir", "rename":
		memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", p.pid))
		if err != nil {
			return at
		}
		defer memory.Close()
		text := make([]byte, 256)
		n, _ := memory.ReadAt(text, int64(args[1])) // of fstat it is none
		path, _, found := bytes.Cut(text[:n], []byte{0})
		if found {
			at += " " + strings.ToValidUTF8(string(path), "?")
		}
	}
	return at
}

// callName names the calls that a fault can be aimed at; others are numbers.
func callName(nr uint64) string {
	switch nr {
	case unix.SYS_READ:
		return "read"
	case unix.SYS_WRITE:
		return "write"
	case unix.SYS_WRITEV:
		return "writev"
	case unix.SYS_PREAD64:
		return "pread64"
	case unix.SYS_PWRITE64:
		return "pwrite64"
	case unix.SYS_OPENAT:
		return "openat"
	case unix.SYS_OPEN:
		return "open"
	case unix.SYS_FSYNC:
		return "fsync"
	case unix.SYS_FDATASYNC:
		return "fdatasync"
	case unix.SYS_SYNCFS:
		return "syncfs"
	case unix.SYS_FTRUNCATE:
		return "ftruncate"
	case unix.SYS_FALLOCATE:
		return "fallocate"
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_RENAME:
		return "rename"
	case unix.SYS_LINKAT:
		return "linkat"
	case unix.SYS_UNLINKAT, unix.SYS_UNLINK:
		return "unlink"
	case unix.SYS_MKDIRAT, unix.SYS_MKDIR:
		return "mkdir"
	case unix.SYS_FCHMOD, unix.SYS_FCHMODAT:
		return "chmod"
	case unix.SYS_FSTAT, unix.SYS_NEWFSTATAT, unix.SYS_STAT, unix.SYS_LSTAT:
		return "stat"
	case unix.SYS_STATFS, unix.SYS_FSTATFS:
		return "statfs"
	case unix.SYS_GETDENTS64:
		return "getdents64"
	case unix.SYS_FLOCK:
		return "flock"
	case unix.SYS_SOCKET:
		return "socket"
	case unix.SYS_BIND:
		return "bind"
	case unix.SYS_LISTEN:
		return "listen"
	case unix.SYS_CONNECT:
		return "connect"
	case unix.SYS_ACCEPT4:
		return "accept4"
	case unix.SYS_SENDTO:
		return "sendto"
	case unix.SYS_GETSOCKOPT:
		return "getsockopt"
	case unix.SYS_SETSOCKOPT:
		return "setsockopt"
	case unix.SYS_INOTIFY_INIT1:
		return "inotify_init1"
	case unix.SYS_INOTIFY_ADD_WATCH:
		return "inotify_add_watch"
	}
	return strconv.FormatUint(nr, 10)
}
