//go:build !386

package main

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// fileSystem is a volume as the kernel asks for it.
type fileSystem struct {
	fuse.RawFileSystem // what is not here is not supported
	volume             *volume
	server             *fuse.Server
	slow               time.Duration
}

// Init keeps the way back to the kernel.
func (fs *fileSystem) Init(s *fuse.Server) { fs.server = s }

func (*fileSystem) String() string { return "recordfs" }

// with calls f with a node, and nothing else happens meanwhile.
func (fs *fileSystem) with(number uint64, f func(*node) syscall.Errno) fuse.Status {
	fs.volume.mu.Lock()
	defer fs.volume.mu.Unlock()
	n := fs.volume.nodes[number]
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	return fuse.Status(f(n))
}

// attr is struct stat. All changes go through the kernel, and it may keep what it
// is told; it asks again where it has doubts.
func (n *node) attr(a *fuse.Attr) {
	a.Ino, a.Size, a.Blocks = n.number, uint64(len(n.data)), uint64(len(n.data)+511)/512
	a.Mode, a.Nlink, a.Blksize = n.mode, n.links, 4096
	a.Uid, a.Gid = n.uid, n.gid
	a.SetTimes(&n.atime, &n.mtime, &n.ctime)
}

func (n *node) entry(out *fuse.EntryOut) {
	out.NodeId, out.Generation = n.number, 1
	out.SetEntryTimeout(time.Hour)
	n.attr(&out.Attr)
}

func (fs *fileSystem) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return fs.with(h.NodeId, func(dir *node) syscall.Errno {
		n := dir.names[name]
		if n == nil {
			return syscall.ENOENT
		}
		n.entry(out)
		return 0
	})
}

func (fs *fileSystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return fs.with(in.NodeId, func(n *node) syscall.Errno {
		n.attr(&out.Attr)
		return 0
	})
}

func (fs *fileSystem) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	return fs.with(in.NodeId, func(n *node) syscall.Errno {
		if mode, ok := in.GetMode(); ok {
			n.mode = n.mode&syscall.S_IFMT | mode&^syscall.S_IFMT
		}
		if uid, ok := in.GetUID(); ok {
			n.uid = uid
		}
		if gid, ok := in.GetGID(); ok {
			n.gid = gid
		}
		if size, ok := in.GetSize(); ok {
			fs.volume.truncate(n, int64(size))
		}
		if t, ok := in.GetMTime(); ok {
			n.mtime = t
		}
		if t, ok := in.GetATime(); ok {
			n.atime = t
		}
		n.ctime = time.Now()
		n.attr(&out.Attr)
		return 0
	})
}

// make creates a node; h says who does and in which directory.
func (fs *fileSystem) make(h *fuse.InHeader, name string, mode uint32, out *fuse.EntryOut) fuse.Status {
	return fs.with(h.NodeId, func(dir *node) syscall.Errno {
		n, errno := fs.volume.create(dir, name, mode, h.Uid, h.Gid)
		if errno == 0 {
			n.entry(out)
		}
		return errno
	})
}

func (fs *fileSystem) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return fs.make(&in.InHeader, name, in.Mode, out)
}

func (fs *fileSystem) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return fs.make(&in.InHeader, name, in.Mode&^syscall.S_IFMT|syscall.S_IFDIR, out)
}

func (fs *fileSystem) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return fs.make(&in.InHeader, name, in.Mode&^syscall.S_IFMT|syscall.S_IFREG, &out.EntryOut)
}

// Tmpfile makes a file without a name. The kernel counts its one link down itself.
func (fs *fileSystem) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	status := fs.make(&in.InHeader, "", in.Mode&^syscall.S_IFMT|syscall.S_IFREG, &out.EntryOut)
	out.Nlink = 1
	return status
}

func (fs *fileSystem) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	return fs.with(in.NodeId, func(dir *node) syscall.Errno {
		n := fs.volume.nodes[in.Oldnodeid]
		if n == nil {
			return syscall.ESTALE
		}
		if dir.names[name] != nil {
			return syscall.EEXIST
		}
		fs.volume.link(dir, name, n)
		n.entry(out)
		return 0
	})
}

func (fs *fileSystem) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return fs.with(h.NodeId, func(dir *node) syscall.Errno { return fs.volume.unlink(dir, name, false) })
}

func (fs *fileSystem) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return fs.with(h.NodeId, func(dir *node) syscall.Errno { return fs.volume.unlink(dir, name, true) })
}

func (fs *fileSystem) Rename(_ <-chan struct{}, in *fuse.RenameIn, name, toName string) fuse.Status {
	if in.Flags != 0 {
		return fuse.EINVAL
	}
	return fs.with(in.NodeId, func(dir *node) syscall.Errno {
		to := fs.volume.nodes[in.Newdir]
		if to == nil {
			return syscall.ESTALE
		}
		return fs.volume.rename(dir, name, to, toName)
	})
}

func (fs *fileSystem) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	var got int
	status := fs.with(in.NodeId, func(n *node) syscall.Errno {
		if in.Offset < uint64(len(n.data)) {
			got = copy(buf, n.data[in.Offset:])
		}
		return 0
	})
	return fuse.ReadResultData(buf[:got]), status
}

func (fs *fileSystem) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	return uint32(len(data)), fs.with(in.NodeId, func(n *node) syscall.Errno {
		fs.volume.write(n, int64(in.Offset), data)
		return 0
	})
}

// Fallocate grows a file. The blocks themselves are not of interest.
func (fs *fileSystem) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	const keepSize = 1
	return fs.with(in.NodeId, func(n *node) syscall.Errno {
		end := int64(in.Offset + in.Length)
		switch {
		case in.Mode == 0 && end > int64(len(n.data)):
			fs.volume.truncate(n, end)
		case in.Mode&^keepSize != 0:
			return syscall.EOPNOTSUPP
		}
		return 0
	})
}

func (fs *fileSystem) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	time.Sleep(fs.slow)
	stale := false
	status := fs.with(in.NodeId, func(n *node) (errno syscall.Errno) {
		errno, stale = fs.volume.sync(n)
		return errno
	})
	if stale {
		fs.server.InodeNotify(in.NodeId, 0, 0)
	}
	return status
}

func (fs *fileSystem) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return fs.Fsync(cancel, in)
}

func (fs *fileSystem) Open(_ <-chan struct{}, in *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	return fs.with(in.NodeId, func(n *node) syscall.Errno {
		if in.Flags&syscall.O_TRUNC != 0 {
			fs.volume.truncate(n, 0)
		}
		return 0
	})
}

func (fs *fileSystem) OpenDir(_ <-chan struct{}, _ *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	return fuse.OK
}

func (fs *fileSystem) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.with(in.NodeId, func(dir *node) syscall.Errno {
		for _, e := range dir.entries() {
			// Places in the list are those of the files, so that none is passed over when
			// others go away meanwhile.
			if e.number > in.Offset && !out.AddDirEntry(fuse.DirEntry{Name: e.name, Mode: e.mode, Ino: e.number, Off: e.number}) {
				break
			}
		}
		return 0
	})
}

func (*fileSystem) Flush(_ <-chan struct{}, _ *fuse.FlushIn) fuse.Status { return fuse.OK }

// StatFs tells of a disk with plenty of room.
func (*fileSystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	const blocks = 1 << 24
	*out = fuse.StatfsOut{Blocks: blocks, Bfree: blocks, Bavail: blocks, Files: blocks, Ffree: blocks, Bsize: 4096, Frsize: 4096, NameLen: 255}
	return fuse.OK
}
