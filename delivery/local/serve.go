package local

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"syscall"
	"time"

	"postino/config"
	"postino/spool"
	"postino/spool/address"
)

// childGrace is what the delivery for one recipient may take beside the wait for a lock or
// for a program: for the disk.
const childGrace = 30 * time.Second

// Mailboxes are what a helper writes to, ViaMaildir, ViaMbox or ViaPipe.
type Mailboxes struct {
	To       config.Transport
	Hostname string   // in the names of files
	Program  []string // a program that calls Write, and its arguments
	// Forward is the file in which a user says where mail goes, with UserMark in it; empty:
	// none is read.
	Forward string
	// Wait is how long the delivery for one recipient may take; 0 is as its kind needs.
	// The process is the recipient's, who may stop it.
	Wait time.Duration
}

func (m *Mailboxes) wait() time.Duration {
	switch {
	case m.Wait > 0:
		return m.Wait
	case m.To.Kind == config.ViaPipe:
		return pipeWait + childGrace
	}
	return lockWait + childGrace
}

// Serve answers one order of a runner on conn, and returns when that is done. It is
// for a process that a service manager starts as root for the connection, so that no
// daemon has these rights. For each recipient it starts a process that is the user
// from its first instruction on, and that writes the one mailbox. The runner says what
// is delivered and to whom; where mailboxes are it cannot say.
func (m *Mailboxes) Serve(conn net.Conn) error {
	o, content, err := receive(conn)
	if err != nil {
		return err
	}
	defer content.Close()
	if o.Forward != "" {
		return m.serveForward(conn, o.Forward)
	}
	replies := make([]spool.Reply, len(o.Recipients))
	for i, to := range o.Recipients {
		one := o
		one.Recipients = []address.Address{to}
		replies[i] = m.writeAs(&one, content)
	}
	return writeLine(conn, replies)
}

// writeAs has a process of the recipient's write to the mailbox.
func (m *Mailboxes) writeAs(o *order, content *os.File) spool.Reply {
	owner, err := account(o.Recipients[0].Local)
	if err != nil {
		return reply(err)
	}
	who, shared, err := m.credential(owner, o.Recipients[0])
	if err != nil {
		return reply(err)
	}
	answer, err := m.runChild(who, task{Order: *o, To: m.To.String(), Hostname: m.Hostname, Shared: shared}, content)
	var r spool.Reply
	if err == nil {
		err = json.Unmarshal(answer, &r)
	}
	if err != nil {
		return reply(fmt.Errorf("as %s: %w", owner.Username, err))
	}
	return checked(r)
}

// credential is whom the process is. Its group is the user's; where mailboxes of many
// are in one directory that a group may write, as in /var/mail, it is that group.
func (m *Mailboxes) credential(owner *user.User, to address.Address) (who *syscall.Credential, shared bool, err error) {
	group := ""
	if m.To.Kind != config.ViaPipe {
		at, err := (&Store{to: m.To}).place(to)
		if err != nil {
			return nil, false, err
		}
		var st syscall.Stat_t
		if err := syscall.Stat(at.base, &st); err != nil {
			return nil, false, &os.PathError{Op: "stat", Path: at.base, Err: err}
		}
		if shared = st.Mode&0o020 != 0 && strconv.FormatUint(uint64(st.Uid), 10) != owner.Uid; shared {
			group = strconv.FormatUint(uint64(st.Gid), 10)
		}
	}
	who, err = credentialOf(owner, group)
	return who, shared, err
}

// credentialOf is whom a process of a user's is, in a group, or in the user's own where
// that is empty. It is nil where we are the user already.
func credentialOf(owner *user.User, group string) (*syscall.Credential, error) {
	uid, uidErr := strconv.ParseUint(owner.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(cmp.Or(group, owner.Gid), 10, 32)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		if uid != uint64(os.Geteuid()) {
			return nil, errors.New("the helper is not root")
		}
		return nil, nil
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// runChild runs the process that Write is in. It has the content as its standard
// input, the task as descriptor 3, and answers on its standard output, which a user who
// looks after his own processes could write to: nothing of it is believed unread.
func (m *Mailboxes) runChild(who *syscall.Credential, t task, content *os.File) (said []byte, err error) {
	in, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	ctx, cancel := context.WithTimeout(context.Background(), m.wait())
	defer cancel()
	child := exec.CommandContext(ctx, m.Program[0], m.Program[1:]...)
	child.Env, child.Dir = []string{"PATH=/usr/bin:/bin"}, "/"
	child.Stdin, child.ExtraFiles, child.Stderr = content, []*os.File{in}, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Credential: who, Setsid: true}
	answer, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	err = errors.Join(writeLine(out, t), out.Close()) // less than a pipe holds
	said, readErr := io.ReadAll(io.LimitReader(answer, maxAnswer))
	return said, errors.Join(err, readErr, child.Wait())
}

// maxAnswer is the longest answer of the process for one user, in octets: a file of
// maxForward, each octet of which may take six in JSON.
const maxAnswer = 8 * maxForward

// task is an order with one recipient, and where the mailboxes are.
type task struct {
	Order    order  `json:"order"`
	To       string `json:"to"`
	Hostname string `json:"hostname"`
	// Forward is a file of User's to be read, and all that is asked for then.
	Forward string `json:"forward,omitempty"`
	User    string `json:"user,omitempty"`
	// Shared: the mailbox is in a directory for many, whose group may use it.
	Shared bool `json:"shared"`
}

// Write does the one task that in has, and writes the reply. It is for a process that
// Mailboxes.Serve has started.
func Write(in io.Reader, content *os.File, out io.Writer) error {
	var t task
	if err := readLine(bufio.NewReader(in), &t); err != nil {
		return err
	}
	if t.Forward != "" {
		return writeForward(t, out)
	}
	var to config.Transport
	if err := to.UnmarshalText([]byte(t.To)); err != nil {
		return err
	}
	info, err := content.Stat()
	if err != nil {
		return err
	}
	mask := 0o077
	if t.Shared {
		mask = 0o007
	}
	syscall.Umask(mask)
	b := t.Order.batch(func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(content, 0, info.Size())), nil
	})
	replies := New(to, t.Hostname).Deliver(context.Background(), b)
	if len(replies) != 1 {
		return fmt.Errorf("%d recipients, want one", len(replies))
	}
	return writeLine(out, replies[0])
}

// checked is a reply of another process, with nothing in it that a Store does not say.
func checked(r spool.Reply) spool.Reply {
	said := spool.Reply{Status: "4.2.0", Text: spool.CleanText(r.Text), Command: "local"}
	if slices.Contains(storeStatuses(), r.Status) {
		said.Status = r.Status
	}
	if r.Command == "pipe" {
		said.Command = r.Command
	}
	return said
}

// storeStatuses are those of a Store.
func storeStatuses() []string {
	return []string{"2.0.0", "4.2.0", "4.2.2", "4.3.0", "4.3.1", "5.1.1", "5.1.2", "5.3.0", "5.6.0", "5.7.1"}
}
