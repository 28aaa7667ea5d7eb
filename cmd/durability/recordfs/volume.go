//go:build !386

package main

import (
	"cmp"
	"slices"
	"sync"
	"syscall"
	"time"

	"postino/cmd/durability/disk"
)

// volume is the files, as programs see them, and the log of how they came to be.
type volume struct {
	mu      sync.Mutex
	log     *disk.Log
	err     error // of the log, the first one
	nodes   map[uint64]*node
	last    uint64 // file number given
	syncs   int
	failing int // which sync fails
	forget  bool
}

// node is a file, a directory or a socket.
type node struct {
	number       uint64
	mode         uint32 // with its type, as in struct stat
	uid, gid     uint32
	links        uint32
	data         []byte
	synced       []byte // data as of the last sync, where it may be asked for
	names        map[string]*node
	atime, mtime time.Time
	ctime        time.Time
}

func newVolume(log *disk.Log, failing int, forget bool) *volume {
	v := &volume{log: log, nodes: make(map[uint64]*node), last: disk.Root, failing: failing, forget: forget}
	root := v.newNode(disk.Root, syscall.S_IFDIR|0o755, 0, 0)
	root.links = 2
	return v
}

func (v *volume) newNode(number uint64, mode, uid, gid uint32) *node {
	now := time.Now()
	n := &node{number: number, mode: mode, uid: uid, gid: gid, atime: now, mtime: now, ctime: now}
	if n.directory() {
		n.names = make(map[string]*node)
	}
	v.nodes[number] = n
	return n
}

func (n *node) directory() bool { return n.mode&syscall.S_IFMT == syscall.S_IFDIR }

func (n *node) regular() bool { return n.mode&syscall.S_IFMT == syscall.S_IFREG }

// add logs o. v.mu is held, as in all that follows: the log has one order, and
// what it says was done before a sync was.
func (v *volume) add(o disk.Op) {
	if err := v.log.Add(&o); err != nil && v.err == nil {
		v.err = err
	}
}

func (v *volume) mark(text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.add(disk.Op{Kind: disk.Mark, Name: text})
}

func (v *volume) close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.log.Flush(); v.err == nil {
		v.err = err
	}
	return v.err
}

// create makes a node in dir, in which it gets a name unless that is empty.
func (v *volume) create(dir *node, name string, mode, uid, gid uint32) (*node, syscall.Errno) {
	if name != "" && dir.names[name] != nil {
		return nil, syscall.EEXIST
	}
	if dir.mode&syscall.S_ISGID != 0 {
		gid = dir.gid
		if mode&syscall.S_IFMT == syscall.S_IFDIR {
			mode |= syscall.S_ISGID
		}
	}
	v.last++
	n := v.newNode(v.last, mode, uid, gid)
	v.add(disk.Op{Kind: disk.Make, File: n.number, Directory: n.directory()})
	if name != "" {
		v.link(dir, name, n)
	}
	if n.directory() {
		n.links++
		dir.links++
	}
	return n, 0
}

func (v *volume) link(dir *node, name string, n *node) {
	dir.names[name] = n
	n.links++
	dir.changed()
	n.ctime = time.Now()
	v.add(disk.Op{Kind: disk.Link, Dir: dir.number, Name: name, File: n.number})
}

func (v *volume) unlink(dir *node, name string, directory bool) syscall.Errno {
	n := dir.names[name]
	switch {
	case n == nil:
		return syscall.ENOENT
	case directory && !n.directory():
		return syscall.ENOTDIR
	case !directory && n.directory():
		return syscall.EISDIR
	case len(n.names) > 0:
		return syscall.ENOTEMPTY
	}
	delete(dir.names, name)
	v.unlinked(dir, n)
	v.add(disk.Op{Kind: disk.Unlink, Dir: dir.number, Name: name, File: n.number})
	return 0
}

func (v *volume) unlinked(dir, n *node) {
	n.links--
	n.ctime = time.Now()
	dir.changed()
	if n.directory() {
		n.links--
		dir.links--
	}
}

func (v *volume) rename(dir *node, name string, to *node, toName string) syscall.Errno {
	n, old := dir.names[name], to.names[toName]
	switch {
	case n == nil:
		return syscall.ENOENT
	case n == old:
		return 0
	case old != nil && old.directory() != n.directory():
		return syscall.EISDIR
	case old != nil && len(old.names) > 0:
		return syscall.ENOTEMPTY
	}
	if old != nil {
		v.unlinked(to, old)
	}
	delete(dir.names, name)
	to.names[toName] = n
	if n.directory() && dir != to {
		dir.links--
		to.links++
	}
	dir.changed()
	to.changed()
	v.add(disk.Op{Kind: disk.Rename, Dir: dir.number, Name: name, ToDir: to.number, ToName: toName})
	return 0
}

func (n *node) changed() {
	n.mtime = time.Now()
	n.ctime = n.mtime
}

func (v *volume) write(n *node, offset int64, data []byte) {
	if end := offset + int64(len(data)); end > int64(len(n.data)) {
		n.data = resize(n.data, end)
	}
	copy(n.data[offset:], data)
	n.changed()
	v.add(disk.Op{Kind: disk.Write, File: n.number, Offset: offset, Data: data})
}

func (v *volume) truncate(n *node, size int64) {
	n.data = resize(n.data, size)
	n.changed()
	v.add(disk.Op{Kind: disk.Truncate, File: n.number, Size: size})
}

func resize(data []byte, size int64) []byte {
	if size <= int64(len(data)) {
		clear(data[size:]) // nothing of it comes back should the file grow again
		return data[:size]
	}
	return append(data, make([]byte, size-int64(len(data)))...)
}

// sync syncs n, unless it is this one's turn to fail. stale says that the kernel
// has data of n in memory that is no longer true.
func (v *volume) sync(n *node) (errno syscall.Errno, stale bool) {
	v.syncs++
	if v.syncs != v.failing {
		v.add(disk.Op{Kind: disk.Sync, File: n.number})
		if v.forget {
			n.synced = slices.Clone(n.data)
		}
		return 0, false
	}
	v.add(disk.Op{Kind: disk.Fail, File: n.number, Forgotten: v.forget})
	if v.forget && n.regular() {
		// The size is in another place, and stays.
		size := int64(len(n.data))
		n.data = resize(slices.Clone(n.synced), size)
		return syscall.EIO, true
	}
	return syscall.EIO, false
}

// entry is a name in a directory.
type entry struct {
	name string
	*node
}

// entries are the names in n, the oldest file's first.
func (n *node) entries() []entry {
	list := make([]entry, 0, len(n.names))
	for name, of := range n.names {
		list = append(list, entry{name, of})
	}
	slices.SortFunc(list, func(a, b entry) int { return cmp.Compare(a.number, b.number) })
	return list
}
