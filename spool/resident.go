package spool

import (
	"bytes"
	"os"
	"strconv"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// maxResident is how many octets of files the process has mapped into its memory
// before those of the spool file are given back: enough for what is read again and
// again, and as much with a queue of a million as with none.
const maxResident = 32 << 20

// residence bounds how much of the mapped spool file counts as the process's memory.
// bbolt leaves every page that was ever looked at in there until the kernel wants it
// back. The zero value bounds nothing, as where there is no /proc.
type residence struct {
	statm *os.File // read again and again
}

func newResidence() residence {
	f, err := os.Open("/proc/self/statm")
	if err != nil {
		return residence{}
	}
	return residence{statm: f}
}

// mapped is how many octets of files are in the process's memory, statm(5)'s third
// figure; 0 when it cannot be told.
func (r residence) mapped() int64 {
	var b [128]byte
	n, _ := r.statm.ReadAt(b[:], 0)
	fields := bytes.Fields(b[:n])
	if len(fields) < 3 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[2]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// bound gives the pages of tx's file back when there are too many. What is read again
// comes from the kernel's cache. tx keeps the map where it is, and all of the octets
// that it knows of are in the map.
func (r residence) bound(tx *bolt.Tx) {
	if r.statm == nil || r.mapped() <= maxResident {
		return
	}
	start := tx.DB().Info().Data
	// The octets of a shared map are the file's, whatever is mapped: nothing can be lost,
	// and what fails costs memory alone.
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, uintptr(tx.Size()), unix.MADV_DONTNEED)
}

func (r residence) close() {
	if r.statm != nil {
		r.statm.Close()
	}
}
