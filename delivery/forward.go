package delivery

import (
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"strings"
	"syscall"

	"postino/config"
	"postino/delivery/aliases"
	"postino/delivery/local"
)

// reader reads the file in which a user says where mail goes.
type reader func(path string, owner *user.User) (string, error)

// forwards is how the files of users are read: as the users, where there is a helper for
// that, else by the runner.
func forwards(c *config.Config) reader {
	if c.Local.Helper == "" {
		return local.ReadForward
	}
	return local.NewHelper(c.Local.Deliver.Transport, c.Local.Helper).ReadForward
}

// forward finds whom a user forwards mail to, in the user's own file; none is nobody. A
// file that is not there, or of nobody here, is an empty one.
func forward(read reader, path, name string) ([]aliases.Target, error) {
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
	text, err := read(path, owner)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("aliases.forward: %w", err)
	}
	return aliases.ParseList(path, text)
}
