package delivery

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"postino/config"
	"postino/delivery/aliases"
)

// maxForward is the largest file of a user that is read, in octets: some hundred
// addresses.
const maxForward = 64 << 10

// forward finds whom a user forwards mail to, in the user's own file; none is nobody. A
// file that is not there, or of nobody here, is an empty one.
func forward(path, name string) ([]aliases.Target, error) {
	name = strings.ToLower(name)
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\x00") {
		return nil, nil
	}
	owner, err := user.Lookup(name)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) || err == nil && owner.Username != name {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	path = strings.ReplaceAll(path, config.UserMark, name)
	text, err := readForward(path, owner)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("aliases.forward: %w", err)
	}
	return aliases.ParseList(path, text)
}

// readForward reads a file that is a user's own: nobody else may write it, or put
// another in its place, and it is no link to what the user may not read.
func readForward(path string, owner *user.User) (string, error) {
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	defer dir.Close()
	info, err := dir.Stat(".")
	if err != nil {
		return "", err
	}
	if err := ownedSafely(filepath.Dir(path), info, owner); err != nil {
		return "", err
	}
	f, err := dir.OpenFile(filepath.Base(path), os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a file", path)
	}
	if err := ownedSafely(path, info, owner); err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxForward+1))
	if err == nil && len(text) > maxForward {
		err = fmt.Errorf("%s is larger than %d octets", path, maxForward)
	}
	return string(text), err
}

// ownedSafely refuses what others than the user and root may write.
func ownedSafely(path string, info fs.FileInfo, owner *user.User) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && (st.Uid == 0 || strconv.FormatUint(uint64(st.Uid), 10) == owner.Uid) && info.Mode()&0o022 == 0 {
		return nil
	}
	return fmt.Errorf("%s may be written by others than %s: make it the user's own, with mode 0644 (0755 of a directory)", path, owner.Username)
}
