// Package local puts mail into the mailboxes of this machine, Maildir and mbox, or gives
// it to a program. A Store
// writes them as the runner's user, with no privileges of its own; a Helper has another
// process write them, which is started with those of root and becomes the user.
package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"postino/config"
	"postino/spool"
	"postino/spool/address"
)

// Store delivers to the mailboxes that a path names, or to a program. It may be used by many goroutines.
type Store struct {
	to   config.Transport
	host string
}

// New returns a Store for a transport of kind ViaMaildir, ViaMbox or ViaPipe. Hostname is in the
// names of files. Nothing is opened yet.
func New(to config.Transport, hostname string) *Store {
	return &Store{to: to, host: hostname}
}

// Hop names the store as attempts and logs do: "maildir:/home/{user}/Maildir".
func (s *Store) Hop() string { return s.to.String() }

// Deliver writes the message to the mailbox of each recipient in turn. A recipient
// that has it from an attempt whose outcome was lost does not get it again, as long as
// it is found.
func (s *Store) Deliver(ctx context.Context, b *spool.Batch) []spool.Reply {
	replies := make([]spool.Reply, len(b.Recipients))
	for i, n := range b.Recipients {
		l := &letter{message: b.Message, to: b.Message.Recipients[n].Address, open: b.Open}
		if s.to.Kind == config.ViaPipe {
			replies[i] = s.runPipe(ctx, l)
			continue
		}
		at, err := s.place(l.to)
		if err == nil {
			err = s.deliver(ctx, at, l)
		}
		replies[i] = reply(err)
	}
	return replies
}

func (s *Store) deliver(ctx context.Context, at place, l *letter) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	root, err := os.OpenRoot(at.base)
	if err != nil {
		return err
	}
	defer root.Close()
	if s.to.Kind == config.ViaMbox {
		return appendMbox(ctx, root, at.rest, mayMake(root, at.owner), l)
	}
	return writeMaildir(root, at.rest, l, s.host)
}

// place is a mailbox: base is a directory that the administrator names, rest what is
// below it, where the user may have put links. None leads out of base. Owner is whose
// it is, nil where it is not one user's.
type place struct {
	base, rest string
	owner      *user.User
}

// mayMake reports whether a file made in root by us can be read by its owner: we are the
// owner, or all mailboxes there are ours, and read by a server that is us as well.
func mayMake(root *os.Root, owner *user.User) bool {
	if owner == nil || owner.Uid == strconv.Itoa(os.Geteuid()) {
		return true
	}
	info, err := root.Stat(".")
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// errNoUser is why mail fails rather than waits.
var errNoUser = errors.New("no such user here")

// place is the mailbox of a recipient. Where the user is part of it there must be one.
// What is below the directory of a user is the user's.
func (s *Store) place(to address.Address) (place, error) {
	path := s.to.Path
	before, _, marked := strings.Cut(path, config.UserMark)
	if !marked {
		return place{filepath.Dir(path), filepath.Base(path), nil}, nil
	}
	owner, err := account(to.Local)
	if err != nil {
		return place{}, err
	}
	path = strings.ReplaceAll(path, config.UserMark, owner.Username)
	end := strings.IndexByte(path[len(before):], '/')
	if end < 0 {
		return place{filepath.Dir(path), filepath.Base(path), owner}, nil
	}
	end += len(before)
	return place{path[:end], path[end+1:], owner}, nil
}

// account is a user as the system has it: mail to Root is for root.
func account(name string) (*user.User, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return nil, fmt.Errorf("%q: %w", name, errNoUser)
	}
	var unknown user.UnknownUserError
	for _, n := range []string{name, strings.ToLower(name)} {
		u, err := user.Lookup(n)
		if err == nil && u.Username == n {
			return u, nil
		}
		if err != nil && !errors.As(err, &unknown) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%q: %w", name, errNoUser)
}

// reply is what an error means for the recipient. All but a missing user is something
// that somebody can mend while the mail waits.
func reply(err error) spool.Reply {
	r := spool.Reply{Status: "2.0.0", Text: "in the mailbox", Command: "local"}
	if err == nil {
		return r
	}
	r.Text = spool.CleanText(err.Error())
	switch {
	case errors.Is(err, errNoUser):
		r.Status = "5.1.1"
	case errors.Is(err, syscall.EDQUOT):
		r.Status = "4.2.2"
	case errors.Is(err, syscall.ENOSPC):
		r.Status = "4.3.1"
	default:
		r.Status = "4.2.0"
	}
	return r
}

// reversePath is the sender as Return-Path has it.
func reversePath(m *spool.Message) string {
	if m.Sender.IsNull() {
		return "<>"
	}
	return "<" + m.Sender.String() + ">"
}

// isFrom reports whether a line would be taken for the begin of a message in an mbox,
// or for one that was quoted.
func isFrom(line []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(line, ">"), []byte("From "))
}
