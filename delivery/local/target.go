package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postino/spool"
)

// Targets gives mail to the programs and files that aliases name, which are the Target
// of a recipient. It may be used by many goroutines.
type Targets struct {
	as, helper, host string
}

// NewTargets returns a Targets that runs and writes as a user. With helper, a socket, it
// is the process behind that which does so: see ServeTargets. Hostname is in the names of
// files in a Maildir. Nothing is opened yet.
func NewTargets(as, helper, hostname string) *Targets {
	return &Targets{as: as, helper: helper, host: hostname}
}

// Hop names the programs and files as attempts and logs do.
func (t *Targets) Hop() string { return "programs and files as " + t.as }

// Deliver gives the message to the target of each recipient in turn. What a shell makes
// of the text of a command is the administrator's; nothing of the message is in it.
func (t *Targets) Deliver(ctx context.Context, b *spool.Batch) []spool.Reply {
	if t.helper != "" {
		return (&Helper{key: "aliases.helper", socket: t.helper, as: t.as}).Deliver(ctx, b)
	}
	replies := make([]spool.Reply, len(b.Recipients))
	who, err := t.credential()
	for i, n := range b.Recipients {
		rcpt := &b.Message.Recipients[n]
		l := &letter{message: b.Message, to: rcpt.Address, open: b.Open}
		command, isProgram := strings.CutPrefix(rcpt.Target, "|")
		switch {
		case err != nil:
			replies[i] = reply(err)
		case isProgram:
			replies[i] = t.run(ctx, command, l, who)
		case who != nil:
			replies[i] = reply(fmt.Errorf("%s: the runner writes no files as %s: %s", rcpt.Target, t.as, otherUser))
		default:
			replies[i] = reply(t.write(ctx, rcpt.Target, l))
		}
	}
	return replies
}

// otherUser is what to do about the user to run as.
const otherUser = "set aliases.helper, or aliases.run_as to the runner's own user"

// credential is whom a program is run as; nil is who we are.
func (t *Targets) credential() (*syscall.Credential, error) {
	u, err := user.Lookup(t.as)
	if err != nil {
		return nil, fmt.Errorf("aliases.run_as: %w", err)
	}
	uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return nil, err
	}
	switch {
	case uid == 0:
		return nil, fmt.Errorf("aliases.run_as: %s is root, who runs no programs for mail", t.as)
	case uid == uint64(os.Geteuid()):
		return nil, nil
	case os.Geteuid() != 0:
		return nil, fmt.Errorf("uid %d may not become %s: %s", os.Geteuid(), t.as, otherUser)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// run has a shell run a command, which reads the message as a file of mail has it. Its
// environment is what is here, and addresses in it have no character that means
// something to a shell.
func (t *Targets) run(ctx context.Context, command string, l *letter, who *syscall.Credential) spool.Reply {
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	cmd.Env = []string{
		"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C.UTF-8", "SHELL=/bin/sh", "HOME=/", "USER=" + t.as, "LOGNAME=" + t.as,
		"RECIPIENT=" + harmless(l.to.String()), "LOCAL=" + harmless(l.to.Local), "DOMAIN=" + harmless(l.to.Domain),
		"SENDER=" + harmless(l.message.Sender.String()),
	}
	return feed(ctx, cmd, func(w io.Writer) error {
		if _, err := io.WriteString(w, l.begin()); err != nil {
			return err
		}
		return l.write(w, false)
	})
}

// harmless is text with "_" for whatever a shell may take for more than a letter.
func harmless(text string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.ContainsRune("!@%-_=+:,./", c):
			return c
		}
		return '_'
	}, text)
}

// write appends the message to a file, an mbox, or puts it into the Maildir whose name
// ends in a slash. Links are not followed out of the directory it is in.
func (t *Targets) write(ctx context.Context, path string, l *letter) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	dir, base := filepath.Split(filepath.Clean(path))
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if strings.HasSuffix(path, "/") {
		return writeMaildir(root, base, l, t.host)
	}
	return appendMbox(ctx, root, base, true, l)
}

// ServeTargets answers one order of a runner on conn, and returns when that is done. It
// is for a process that a service manager starts for the connection, as the user that
// aliases.run_as names, so that nobody needs the right to become that user. What it runs
// is what the runner says, and with no rights but that user's. Hostname is as in
// NewTargets.
func ServeTargets(conn net.Conn, hostname string) error {
	o, content, err := receive(conn)
	if err != nil {
		return err
	}
	defer content.Close()
	if len(o.Targets) != len(o.Recipients) {
		return fmt.Errorf("%d targets for %d recipients", len(o.Targets), len(o.Recipients))
	}
	t := NewTargets(o.As, "", hostname)
	who, err := t.credential()
	if err == nil && who != nil {
		err = fmt.Errorf("aliases.run_as is %s, and the service behind aliases.helper is uid %d: make them the same", o.As, os.Geteuid())
	}
	if err != nil {
		replies := make([]spool.Reply, len(o.Recipients))
		for i := range replies {
			replies[i] = reply(err)
		}
		return writeLine(conn, replies)
	}
	info, err := content.Stat()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), helperWait)
	defer cancel()
	return writeLine(conn, t.Deliver(ctx, o.batch(func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(content, 0, info.Size())), nil
	})))
}

// receive reads an order and its content, which is in a file without a name. It can only be
// read: a recipient who looks after the process for his mailbox (ptrace(2)) must not write
// what the next one gets.
func receive(conn net.Conn) (o order, content *os.File, err error) {
	if err := conn.SetDeadline(time.Now().Add(helperWait)); err != nil {
		return o, nil, err
	}
	in := bufio.NewReaderSize(conn, maxPiece)
	if err := readLine(in, &o); err != nil {
		return o, nil, err
	}
	draft, err := os.CreateTemp("", "postino-mail")
	if err != nil {
		return o, nil, err
	}
	defer draft.Close()
	content, err = os.Open(draft.Name())
	if err := errors.Join(err, os.Remove(draft.Name())); err != nil {
		return o, nil, errors.Join(err, content.Close())
	}
	if err := readContent(draft, in); err != nil {
		content.Close()
		return o, nil, err
	}
	return o, content, nil
}
