package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"postino/spool/address"
	"postino/spool/handoff"
	"postino/spool/header"
)

const (
	// spoolVariable names the spool directory; it is safe to honour, since the
	// caller could write to any directory of its own without us.
	spoolVariable = "POSTINO_SPOOL"
	defaultSpool  = "/var/spool/postino"
	passwdFile    = "/etc/passwd"
)

// submit reads a message from standard input and hands it over. All of the input
// is read before anything can be found wrong with it: a caller that is still
// writing would be killed by the closed pipe and never see the status.
func submit(o options, argv0 string) error {
	spool := os.Getenv(spoolVariable)
	if spool == "" {
		spool = defaultSpool
	}
	if spool[0] != '/' {
		drain(unix.Stdin)
		return &exitError{exitCreate, spoolVariable + "=" + strconv.Quote(spool) + ": want an absolute path"}
	}
	section, rest, err := header.Read(&input{os.Stdin, maxInput}, header.Options{DotEnds: !o.keepDots})
	if err != nil {
		drain(unix.Stdin)
		return err
	}
	body := handoff.NewBuffer(spool)
	defer body.Close()
	if _, err := body.ReadFrom(rest); err != nil {
		drain(unix.Stdin)
		return err
	}
	s, err := compose(o, section, body)
	if err != nil {
		return err
	}
	_, dropped, err := handoff.Submit(spool, s)
	if dropped {
		startRunner(spool, argv0)
	}
	return err
}

// compose makes the submission of what was read.
func compose(o options, section *header.Section, body *handoff.Buffer) (*handoff.Submission, error) {
	s := &handoff.Submission{
		Body:       body,
		Return:     o.ret,
		EnvelopeID: o.envelopeID,
		RequireTLS: o.requireTLS,
		NoAliases:  o.noAliases,
	}
	var caller identity
	if o.sender == nil || !section.Has("From") {
		caller = whoAmI(passwdFile, os.Getuid())
	}
	var err error
	if s.Sender, err = sender(o, caller); err != nil {
		return nil, err
	}
	list, err := recipients(o, section)
	if err != nil {
		return nil, err
	}
	section.Drop("Bcc", "Resent-Bcc", "Return-Path", "Content-Length")
	if !section.Has("From") {
		section.Append("From", from(o, caller, s.Sender))
	}
	if err := section.Check(); err != nil {
		return nil, err // the runner reads it again, perhaps when we are gone
	}
	var head bytes.Buffer
	if _, err := section.WriteTo(&head); err != nil {
		return nil, err
	}
	s.Head = head.Bytes()
	s.EightBit = section.EightBit() || body.EightBit()
	s.UTF8 = s.Sender.UTF8()
	for _, a := range list {
		s.Recipients = append(s.Recipients, handoff.Recipient{Address: a, Notify: o.notify})
		s.UTF8 = s.UTF8 || a.UTF8()
	}
	s.ID = handoff.NewID(time.Now())
	return s, nil
}

// sender is the reverse-path: the last -f, else the caller.
func sender(o options, caller identity) (address.Address, error) {
	if o.sender == nil {
		return address.Address{Local: caller.login}, nil
	}
	a, err := address.ParsePath(*o.sender)
	if err != nil {
		return a, &exitError{exitData, "sender: " + err.Error()}
	}
	return a, nil
}

// recipients is the union of the operands and, with -t, the header's, each
// mailbox once.
func recipients(o options, section *header.Section) ([]address.Address, error) {
	var all []address.Address
	for _, operand := range o.operands {
		list, err := address.ParseList(operand)
		switch {
		case err != nil:
			return nil, &exitError{exitData, "recipient: " + err.Error()}
		case hasControl(operand): // a folded line is for the header alone
			return nil, &exitError{exitData, "recipient: control character in " + quoted(operand)}
		case len(list) == 0:
			return nil, &exitError{exitData, "recipient: " + quoted(operand) + " names nobody"}
		}
		all = append(all, list...)
	}
	if o.fromHeader {
		list, err := section.Recipients()
		if err != nil {
			return nil, &exitError{exitData, err.Error()}
		}
		all = append(all, list...)
	}
	if len(all) == 0 {
		return nil, noRecipients(o)
	}
	seen := make(map[string]bool, len(all))
	unique := all[:0]
	for _, a := range all {
		if key := a.Key(); !seen[key] {
			seen[key] = true
			unique = append(unique, a)
		}
	}
	return unique, nil
}

// noRecipients is the error when nobody is to get the message.
func noRecipients(o options) error {
	switch {
	case o.fromHeader:
		return usageError("no recipients: the header names none in To, Cc or Bcc, nor do the arguments")
	case o.oit:
		return usageError("no recipients: -oit is -oi, for recipients from the header write -oi -t")
	}
	return usageError("no recipients: name them after the options, or use -t to take them from the header")
}

// from is the From field of a message without one.
func from(o options, caller identity, sender address.Address) string {
	name := caller.fullName
	if sender.IsNull() {
		sender, name = address.Address{Local: "MAILER-DAEMON"}, "Mail Delivery System"
	} else if env := os.Getenv("NAME"); env != "" {
		name = env
	}
	if o.name != nil {
		name = *o.name
	}
	return header.Mailbox(name, sender)
}

// quoted is s for a message, escaped and cut to a length that can be read.
func quoted(s string) string {
	const most = 100 // octets
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}

// maxInput octets are read at most. A message has a smaller limit; this one ends
// an input that never becomes one, such as NULs, which are removed, for ever.
const maxInput = 2 << 30

// input is standard input, whose errors are not the message's.
type input struct {
	file io.Reader
	left int64 // octets that may still come
}

func (in *input) Read(b []byte) (int, error) {
	n, err := in.file.Read(b)
	if in.left -= int64(n); in.left < 0 {
		return 0, handoff.ErrTooLarge
	}
	var path *os.PathError
	if errors.As(err, &path) {
		err = &exitError{exitIO, "standard input: " + path.Err.Error()}
	}
	return n, err
}

const (
	// drainPatience is how long a silent pipe is waited for when nothing in it
	// matters any more; in turns, since on a machine that stood still one wait of that
	// length is over before the caller could write.
	drainPatience = time.Second
	drainTurns    = 10
)

// drain reads a pipe or socket to its end. A caller whose pipe is closed early is
// killed by a signal or reports that, and not what was wrong.
func drain(fd int) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFIFO && kind != unix.S_IFSOCK {
		return
	}
	var waste [64 << 10]byte
	const most = 16 << 10 // of these: as much as a message may have
	silent := 0
	for range most {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, int(drainPatience/drainTurns/time.Millisecond))
		if err == unix.EINTR {
			continue
		}
		if n == 0 && silent+1 < drainTurns {
			silent++
			continue
		}
		if n <= 0 {
			return
		}
		silent = 0
		if n, err := unix.Read(fd, waste[:]); n <= 0 && err != unix.EINTR && err != unix.EAGAIN {
			return
		}
	}
}
