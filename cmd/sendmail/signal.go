package main

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// defaultAction gives a signal back to the kernel, for which Go has no function.
// It is for SIGQUIT alone, at which Go prints the stacks of its goroutines. The
// others are well: SIGINT, SIGTERM and SIGHUP kill, and SIGPIPE and SIGXFSZ are
// caught and become the errors EPIPE and EFBIG.
//
// The kernel's struct sigaction, all zero, asks for the default action on every
// architecture. Only MIPS has a larger signal set than 8 octets; there the call
// fails and Go's handler stays.
func defaultAction(sig syscall.Signal) {
	const signalSet = 8
	var action [64]byte // longer than any architecture's
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig),
		uintptr(unsafe.Pointer(&action)), 0, signalSet, 0, 0)
}
