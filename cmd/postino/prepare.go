package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"postino/spool"
)

// forgetCaller undoes what a caller of sendmail may have set for itself and handed
// down to the runner that its front end started: a umask, and a limit on the size
// of files that the spool would run into.
func forgetCaller() {
	unix.Umask(0o022)
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_FSIZE, &l) == nil {
		l.Cur = l.Max
		_ = unix.Setrlimit(unix.RLIMIT_FSIZE, &l)
	}
}

// keepMemoryPrivate keeps passwords and mail out of core files and from processes of
// the same user that would look into ours. It fails on no system that we run on, and
// without it nothing else changes.
func keepMemoryPrivate() {
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

// dropMode is that of drop/: sticky, so that nobody takes another's file away; setgid,
// so that the files are readable by the runner's group.
const dropMode = 0o733 | fs.ModeDir | fs.ModeSticky | fs.ModeSetgid

// prepareSpool makes the spool directory usable by callers before anything can go
// wrong with the configuration: whoever submits needs drop/ and nothing else.
func prepareSpool(dir string) error {
	if err := makeSpoolDir(dir); err != nil {
		return fmt.Errorf("spool directory: %w", err)
	}
	if err := becomeOwner(dir); err != nil {
		return err
	}
	drop := filepath.Join(dir, spool.DropDir)
	if err := os.Mkdir(drop, 0o733); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(drop)
	if err != nil {
		return err
	}
	// Only where it is needed: who runs us may allow nobody to set that bit.
	if info.Mode() != dropMode {
		if err := os.Chmod(drop, dropMode&^fs.ModeDir); err != nil {
			return err
		}
	}
	return syncDir(dir) // what is left in drop/ must not go with it in a power cut
}

// makeSpoolDir makes the spool directory if it is missing. Its name is synced each
// time: the runner that made it may have ended before it got so far.
func makeSpoolDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	err := syncDir(filepath.Dir(dir))
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EINVAL) {
		return nil // who may not read it, or a file system that cannot sync directories
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
