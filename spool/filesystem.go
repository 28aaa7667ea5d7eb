package spool

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// doubtful says what is wrong with file systems of some kinds as the place of a
// spool, by the magic numbers of statfs(2). Those of local disks are not among them.
func doubtful(magic uint32) (name, why string) {
	const (
		memory  = "mail in it is lost when the machine stops"
		layer   = "mail in it is lost with the container"
		network = "whether its locks and syncs hold depends on a server"
		program = "whether its syncs hold depends on the program that serves it"
		weak    = "it has no journal, and a power cut may damage it"
	)
	switch magic {
	case unix.TMPFS_MAGIC:
		return "tmpfs", memory
	case unix.RAMFS_MAGIC:
		return "ramfs", memory
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs", layer
	case unix.NFS_SUPER_MAGIC:
		return "NFS", network
	case unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return "SMB", network
	case unix.CEPH_SUPER_MAGIC:
		return "CephFS", network
	case unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC:
		return "AFS", network
	case unix.CODA_SUPER_MAGIC:
		return "Coda", network
	case unix.V9FS_MAGIC:
		return "9p", network
	case unix.FUSE_SUPER_MAGIC:
		return "FUSE", program
	case unix.HOSTFS_SUPER_MAGIC:
		return "hostfs", program
	case unix.MSDOS_SUPER_MAGIC, unix.EXFAT_SUPER_MAGIC:
		return "FAT", weak
	}
	return "", ""
}

// Warnings says what a person should know of the spool as it is now, a line each:
// that its file system is none for mail, and that new mail is refused for want of
// room.
func (s *Spool) Warnings() []string {
	return slices.Concat(FilesystemWarnings(s.dir), s.roomWarnings())
}

// FilesystemWarnings says that a directory is on a file system that is none for mail.
func FilesystemWarnings(dir string) []string {
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil {
		return nil
	}
	if name, why := doubtful(uint32(fs.Type)); name != "" {
		return []string{fmt.Sprintf("%s is on %s: %s: put it on a local disk", dir, name, why)}
	}
	return nil
}

func (s *Spool) roomWarnings() []string {
	if err := s.Room(); err != nil {
		return []string{err.Error()}
	}
	return nil
}
