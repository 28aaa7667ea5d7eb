package delivery

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"postino/config"
	"postino/delivery/aliases"
	"postino/spool"
	"postino/spool/address"
)

// aliasFile is an aliases file, read anew whenever it has changed.
type aliasFile struct {
	path string

	mu    sync.Mutex
	table *aliases.Table // guarded by mu
	info  fs.FileInfo    // guarded by mu: of the file that table is of; nil is none
}

// open returns what is in the file now.
func (f *aliasFile) open() (*aliases.Table, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err == nil && f.info != nil && os.SameFile(info, f.info) && info.Size() == f.info.Size() && info.ModTime().Equal(f.info.ModTime()) {
		return f.table, nil
	}
	// What changes while it is read is read again next time: its time is that of before.
	table, openErr := aliases.Open(f.path)
	if openErr != nil {
		return nil, openErr
	}
	f.table, f.info = table, nil
	if err == nil {
		f.info = info
	}
	return table, nil
}

// isLocal reports whether a domain is this machine's own.
func isLocal(c *config.Config, domain string) bool {
	if c.LocalDomains == nil {
		return strings.EqualFold(domain, c.Hostname)
	}
	return slices.Contains(c.LocalDomains, strings.ToLower(domain))
}

// expand finds out for which of the recipients to attempt there is an alias. The
// attempt, which has no next hop, says what becomes of them; nil is nothing. The rest
// goes on as it is.
func (p *plan) expand(m *spool.Message, list []int, now time.Time) (a *spool.Attempt, rest []int) {
	a = &spool.Attempt{At: now, Hop: "aliases " + p.aliases.path}
	for _, n := range list {
		rcpt := &m.Recipients[n]
		if !p.isHere(rcpt) || rcpt.Target != "" {
			rest = append(rest, n)
			continue
		}
		var x aliases.Expansion
		var found bool
		var err error
		if !rcpt.Final {
			x, found, err = p.lookup(rcpt.Address.Local, m.NoAliases)
		}
		switch {
		case err != nil:
			a.Outcomes = append(a.Outcomes, outcome(m, n, aliasTrouble(err), spool.Expanded, p.config.Retry, now))
		case !found && p.forwards(rcpt):
			o, child := p.forwarded(rcpt)
			o.Recipient = n
			a.Outcomes, a.Children = append(a.Outcomes, o), append(a.Children, child)
		case !found:
			rest = append(rest, n)
		default:
			o, children := p.expanded(m, rcpt, x)
			if o.Recipient = n; o.Final {
				rest = append(rest, n)
			}
			a.Outcomes, a.Children = append(a.Outcomes, o), append(a.Children, children...)
		}
	}
	if len(a.Outcomes) == 0 {
		return nil, rest
	}
	a.Took = time.Since(now)
	return a, rest
}

// asksUsers is the gate of an attempt for which processes of users read their files, and
// how many may be in it; "" where there are none. A user may stop such a process, which
// is waited for, and then there are attempts left for the others.
func (p *plan) asksUsers(m *spool.Message, list []int) (gate string, most int) {
	if p.config.Aliases.Forward == "" || p.config.Local.Helper == "" {
		return "", 0
	}
	for _, n := range list {
		rcpt := &m.Recipients[n]
		name := "file of " + strings.ToLower(rcpt.Address.Local)
		switch {
		case !p.isHere(rcpt) || rcpt.Target != "" || rcpt.Final || name == gate:
		case gate != "":
			return "files of several", severalMailboxes
		default:
			gate, most = name, 1
		}
	}
	return gate, most
}

// lookup is what takes the place of a name of this machine. Without aliases it is what
// its user's own file says, if those are read.
func (p *plan) lookup(name string, noAliases bool) (aliases.Expansion, bool, error) {
	table, err := new(aliases.Table), error(nil)
	if !noAliases {
		table, err = p.aliases.open()
	}
	if err != nil {
		return aliases.Expansion{}, false, err
	}
	x, found, err := table.Expand(name, Machine(p.config))
	isTarget := func(m aliases.Member) bool { return m.Kind != aliases.Mailbox && m.Text != os.DevNull }
	if err == nil && p.config.Aliases.Programs && slices.ContainsFunc(x.Members, isTarget) {
		err = p.aliases.safe()
	}
	return x, found, err
}

// Machine is what a configuration says of this machine to its aliases.
func Machine(c *config.Config) aliases.Machine {
	m := aliases.Machine{IsLocal: func(a address.Address) bool { return isLocal(c, a.Domain) }}
	if path := c.Aliases.Forward; path != "" {
		read := forwards(c)
		m.Forward = func(user string) ([]aliases.Target, error) { return forward(read, path, user) }
	}
	return m
}

// safe says why programs in the file are not run: others may have written them.
func (f *aliasFile) safe() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.info == nil {
		return nil // there is none
	}
	st, ok := f.info.Sys().(*syscall.Stat_t)
	if ok && (st.Uid == 0 || int(st.Uid) == os.Geteuid()) && f.info.Mode()&0o022 == 0 {
		return nil
	}
	return fmt.Errorf("%s: it names a program or a file, and others than root and the runner may write it: make it root's, with mode 0644", f.path)
}

// aliasTrouble is what an error of the aliases file means for who needs it. Only a
// loop, or a list without end, is not an operator's slip that is mended soon.
func aliasTrouble(err error) spool.Reply {
	r := spool.Reply{Status: "4.3.5", Text: spool.CleanText(err.Error()), Command: "alias"}
	switch {
	case errors.Is(err, aliases.ErrLoop):
		r.Status = "5.4.6"
	case errors.Is(err, aliases.ErrTooMany):
		r.Status = "5.2.4"
	}
	return r
}

// expanded is what becomes of a recipient that is an alias, and who takes its place.
// With Final it is one of them itself.
func (p *plan) expanded(m *spool.Message, rcpt *spool.Recipient, x aliases.Expansion) (o spool.Outcome, children []spool.Recipient) {
	o = spool.Outcome{Status: spool.Expanded}
	var names []string
	for _, member := range x.Members {
		child, why := p.child(m, rcpt, member)
		switch {
		case member.Kind == aliases.File && member.Text == os.DevNull:
			names = append(names, os.DevNull)
		case why != (spool.Reply{}):
			o.Status, o.Reply = spool.Failed, why
		case child.Target == "" && child.Address.Key() == rcpt.Address.Key():
			names = append(names, child.Address.String())
			o.Final, o.Owner = true, child.Owner
		default:
			name := child.Target
			if name == "" {
				name = child.Address.String()
			}
			names, children = append(names, name), append(children, child)
		}
	}
	members := len(children)
	if o.Final {
		members++ // it is one of them itself
	}
	o.Several = members > 1
	for i := range children {
		inherit(&children[i], rcpt, members)
	}
	switch {
	case o.Status == spool.Failed:
		o.Final = false
	case o.Final:
		o.Status = spool.Queued
	case len(children) == 0:
		o.Status = spool.Delivered
		o.Reply = spool.Reply{Status: "2.0.0", Text: "discarded: the alias is " + os.DevNull, Command: "alias"}
	default:
		o.Reply = spool.Reply{Status: "2.0.0", Text: spool.CleanText("alias for " + strings.Join(names, ", ")), Command: "alias"}
	}
	return o, children
}

// child is a recipient that takes the place of one that is an alias, or why it may not:
// a program or a file has to be allowed, and named by the administrator's own file.
func (p *plan) child(m *spool.Message, rcpt *spool.Recipient, member aliases.Member) (c spool.Recipient, why spool.Reply) {
	c = spool.Recipient{Status: spool.Queued}
	if member.Owner != "" && !m.Sender.IsNull() {
		c.Owner = address.Address{Local: member.Owner, Domain: p.config.Domain}
	}
	if member.Kind == aliases.Mailbox {
		c.Address, c.Bare = member.Address, member.Address.Domain == ""
		if c.Bare {
			c.Address.Domain = p.config.Domain
		}
		c.Final = member.Final || c.Bare
		return c, why
	}
	c.Address, c.Bare, c.Final, c.Target = rcpt.Address, rcpt.Bare, true, member.Text
	if member.Kind == aliases.Program {
		c.Target = "|" + member.Text
	}
	switch {
	case !p.config.Aliases.Programs:
		why = programsOff()
	case member.Listed:
		why = refusedTarget(fmt.Sprintf("a file of :include: or of a user names %q: programs and files may only stand in the aliases file itself", c.Target))
	}
	return c, why
}

// programsOff is why a recipient fails that is a program or a file.
func programsOff() spool.Reply {
	return refusedTarget("the alias names a program or a file, and that is not allowed here: aliases.programs in postino.toml(5) allows it")
}

func refusedTarget(why string) spool.Reply {
	return spool.Reply{Status: "5.7.1", Command: "alias", Text: spool.CleanText(why)}
}

// forwards reports whether mail for a recipient of this machine is for another address.
// That address itself, if it is of this machine too, goes on.
func (p *plan) forwards(rcpt *spool.Recipient) bool {
	return p.forward != (address.Address{}) && p.forward.Key() != rcpt.Address.Key()
}

// forwarded is what becomes of such a recipient, and who takes its place.
func (p *plan) forwarded(rcpt *spool.Recipient) (spool.Outcome, spool.Recipient) {
	child := spool.Recipient{Address: p.forward, Status: spool.Queued, Final: true}
	inherit(&child, rcpt, 1)
	return spool.Outcome{Status: spool.Expanded, Reply: spool.Reply{Status: "2.0.0", Command: "forward",
		Text: spool.CleanText("forwarded to " + p.forward.String())}}, child
}

// inherit gives a child what its parent's sender asked to be told (RFC 3461 §5.2.7):
// with several, who of them got it is not what was asked. Children of a list with an
// owner are the owner's.
func inherit(child, parent *spool.Recipient, siblings int) {
	child.Original = parent.Original
	if child.Original == "" {
		child.Original = "rfc822;" + parent.Address.String()
	}
	if !child.Owner.IsNull() {
		return // who is told of it is not who asked
	}
	child.Notify = slices.Clone(parent.Notify)
	if siblings > 1 {
		child.Notify = slices.DeleteFunc(child.Notify, func(n string) bool { return strings.EqualFold(n, "SUCCESS") })
		if len(child.Notify) == 0 && len(parent.Notify) > 0 {
			child.Notify = []string{"NEVER"}
		}
	}
}
