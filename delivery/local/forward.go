package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postino/config"
)

const (
	// maxForward is the largest file of a user that is read, in octets: some hundred
	// addresses.
	maxForward = 64 << 10
	// forwardWait bounds the reading of one by a helper. The process that reads is the
	// user's, who may stop it.
	forwardWait = 30 * time.Second
)

// forwarded is what a helper has found in the file of a user.
type forwarded struct {
	Text    string `json:"text"`
	Missing bool   `json:"missing,omitempty"`
	Err     string `json:"err,omitempty"`
}

// ReadForward is the function of that name, done as the user by the helper, which knows
// itself which file it is. The error is fs.ErrNotExist where there is none.
func (h *Helper) ReadForward(path string, owner *user.User) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), forwardWait)
	defer cancel()
	var found forwarded
	err := h.talk(ctx, order{Forward: owner.Username}, strings.NewReader(""), &found)
	switch {
	case err != nil:
		return "", fmt.Errorf("%s %s: %w: is its service running?", h.key, h.socket, err)
	case found.Missing:
		return "", &os.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	case found.Err != "":
		return "", errors.New(strings.ToValidUTF8(found.Err, "?"))
	case len(found.Text) > maxForward:
		return "", fmt.Errorf("%s is larger than %d octets", path, maxForward)
	}
	return found.Text, nil
}

// serveForward has a process of a user's read the user's file.
func (m *Mailboxes) serveForward(conn net.Conn, name string) error {
	found := forwarded{Err: "aliases.forward is not set"}
	if m.Forward != "" {
		found = m.readAs(name)
	}
	return writeLine(conn, found)
}

func (m *Mailboxes) readAs(name string) (found forwarded) {
	owner, err := account(name)
	var who *syscall.Credential
	if err == nil {
		who, err = credentialOf(owner, "")
	}
	var answer []byte
	if err == nil {
		read := *m
		read.Wait = forwardWait
		answer, err = read.runChild(who, task{Forward: strings.ReplaceAll(m.Forward, config.UserMark, owner.Username), User: owner.Username}, os.Stdin)
	}
	if err == nil {
		err = json.Unmarshal(answer, &found)
	}
	if err != nil {
		return forwarded{Err: err.Error()}
	}
	return found
}

// writeForward answers the task to read a file.
func writeForward(t task, out io.Writer) error {
	var found forwarded
	owner, err := user.Lookup(t.User)
	if err == nil {
		found.Text, err = ReadForward(t.Forward, owner)
	}
	found.Missing = errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
	if err != nil {
		found.Err = err.Error()
	}
	return writeLine(out, found)
}

// ReadForward reads a file that is a user's own: nobody else may write it, or put
// another in its place, and it is no link to what the user may not read.
func ReadForward(path string, owner *user.User) (string, error) {
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
