package local

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Rights of what is made, before umask or the default ACL of a directory: those of the
// group are what an ACL for a user is bounded by (acl(5)).
const (
	fileRights = 0o660
	dirRights  = 0o770
)

// writeMaildir puts a message into new/ of a Maildir, which is made where only its
// parent exists: written in tmp/, synced, renamed, and the directory synced. The name
// is that of the queue ID and the recipient, so that a second delivery finds the first.
func writeMaildir(base *os.Root, path string, l *letter, host string) (err error) {
	if err := makeMaildir(base, path); err != nil {
		return err
	}
	root, err := base.OpenRoot(path)
	if err != nil {
		return err
	}
	defer root.Close()
	name := l.fileName(host)
	if there, err := delivered(root, name); there || err != nil {
		return err
	}
	tmp := "tmp/" + name
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fileRights)
	if err != nil {
		return err
	}
	if err = l.write(f, false); err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = root.Rename(tmp, "new/"+name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(tmp))
	}
	return syncIn(root, "new")
}

// fileName has the form of Maildir: time, what is unique, host.
func (l *letter) fileName(host string) string {
	sum := fnv.New64a()
	sum.Write([]byte(l.to.Key()))
	host = strings.NewReplacer("/", `\057`, ":", `\072`).Replace(host)
	return fmt.Sprintf("%d.Q%sR%016x.%s", l.message.Arrived.Unix(), l.message.ID, sum.Sum64(), host)
}

// delivered reports whether the file is there already, seen by a reader or not. That
// it stays there is made sure of again.
func delivered(root *os.Root, name string) (bool, error) {
	for _, dir := range []string{"new", "cur"} {
		entries, err := fs.ReadDir(root.FS(), dir)
		if err != nil {
			return false, err
		}
		for _, e := range entries {
			// A reader adds flags, or a size.
			if rest, ok := strings.CutPrefix(e.Name(), name); ok && (rest == "" || rest[0] == ':' || rest[0] == ',') {
				return true, syncIn(root, dir)
			}
		}
	}
	return false, nil
}

func makeMaildir(base *os.Root, path string) error {
	made := false
	for _, dir := range []string{path, path + "/tmp", path + "/new", path + "/cur"} {
		err := base.Mkdir(dir, dirRights)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		made = made || err == nil
	}
	if !made {
		return nil
	}
	return errors.Join(syncIn(base, path), syncIn(base, filepath.Dir(path)))
}

func syncIn(root *os.Root, dir string) error {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
