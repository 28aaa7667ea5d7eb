package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"postino/config/peer"
	"postino/spool"
	"postino/spool/address"
	"postino/spool/handoff"
	"postino/spool/header"
)

// waiting is a message of another program's queue as --json tells it.
type waiting struct {
	ID         string    `json:"id"`
	Sender     string    `json:"sender"`
	Recipients []string  `json:"recipients"`
	Arrived    time.Time `json:"arrived"`
	QueueID    string    `json:"queue_id,omitempty"` // ours, once it is here
}

// takeOver is config import --queue: it lists what waits in another program and, with
// --remove, submits it here and removes it there.
func (a *app) takeOver(_ context.Context, o options, operands []string) error {
	dir := ""
	if len(operands) == 2 {
		dir = operands[1]
	}
	if !filepath.IsAbs(a.spool) {
		return usageError("--spool %q: want an absolute path", a.spool)
	}
	list, bad, err := new(peer.Import).Queue(operands[0], dir)
	if err != nil {
		return err
	}
	var failed failures
	for _, err := range bad {
		failed.add(err)
	}
	moved, dropped := 0, false
	err = a.output(func(w io.Writer) error {
		for _, m := range list {
			told := waiting{ID: m.ID, Sender: m.Sender, Recipients: m.Recipients, Arrived: m.Arrived.UTC()}
			if o.remove {
				drop, err := a.takeOne(operands[0], &m, &told)
				if err != nil {
					failed.add(fmt.Errorf("%s: %w", m.ID, err))
					continue
				}
				moved++
				dropped = dropped || drop
			}
			if err := tellWaiting(w, told, o.json); err != nil {
				return err
			}
		}
		if o.json {
			return nil
		}
		summary := messages(len(list)) + " there"
		switch {
		case o.remove:
			summary = messages(moved) + " moved here"
		case len(list) > 0:
			summary += ": --remove moves them here"
		}
		_, err := fmt.Fprintln(w, summary)
		return err
	})
	if dropped {
		a.startUntilEmpty()
	}
	return errors.Join(err, failed.err())
}

func tellWaiting(w io.Writer, m waiting, asJSON bool) error {
	if asJSON {
		return writeLine(w, m)
	}
	to := fmt.Sprintf("%d recipients", len(m.Recipients))
	if len(m.Recipients) == 1 {
		to = m.Recipients[0]
	}
	line := fmt.Sprintf("%s  %s  <%s> to %s", m.ID, m.Arrived.Format(time.RFC3339), m.Sender, to)
	if m.QueueID != "" {
		line += ": " + m.QueueID
	}
	_, err := fmt.Fprintln(w, spool.CleanText(line))
	return err
}

// takeOne submits a message. Its submission ID is made of what it is, so that one
// that could not be removed there is not stored twice by the next try.
func (a *app) takeOne(name string, m *peer.Waiting, told *waiting) (dropped bool, err error) {
	s, err := envelopeOf(m)
	if err != nil {
		return false, err
	}
	s.ID = takenID(name, m)
	err = m.Take(func(content io.Reader) error {
		section, rest, err := header.Read(content, header.Options{})
		if err != nil {
			return err
		}
		s.Body = handoff.NewBuffer(a.spool)
		defer s.Body.Close()
		if _, err := s.Body.ReadFrom(rest); err != nil {
			return err
		}
		var head bytes.Buffer
		section.Drop("Bcc", "Resent-Bcc", "Return-Path", "Content-Length")
		if _, err := section.WriteTo(&head); err != nil {
			return err
		}
		s.Head = head.Bytes()
		s.EightBit = section.EightBit() || s.Body.EightBit()
		told.QueueID, dropped, err = handoff.Submit(a.spool, s)
		return err
	})
	return dropped, err
}

// envelopeOf is the submission of a message so far.
func envelopeOf(m *peer.Waiting) (*handoff.Submission, error) {
	s := new(handoff.Submission)
	var err error
	if s.Sender, err = address.ParsePath(m.Sender); err != nil {
		return nil, fmt.Errorf("sender: %w", err)
	}
	s.UTF8 = s.Sender.UTF8()
	for _, r := range m.Recipients {
		to, err := address.ParsePath(r)
		if err == nil && to.IsNull() {
			err = errors.New("it is empty")
		}
		if err != nil {
			return nil, fmt.Errorf("recipient %q: %w", r, err)
		}
		s.UTF8 = s.UTF8 || to.UTF8()
		s.Recipients = append(s.Recipients, handoff.Recipient{Address: to})
	}
	return s, nil
}

// takenID is always the same for the same message. Like others it begins with a time,
// which the runner does not take for a queue ID when it is long ago.
func takenID(name string, m *peer.Waiting) (id [16]byte) {
	sum := sha256.New()
	for _, part := range append([]string{"taken over", name, m.ID, m.Arrived.String(), m.Sender}, m.Recipients...) {
		fmt.Fprintf(sum, "%d %s\n", len(part), part)
	}
	copy(id[:], sum.Sum(nil))
	binary.BigEndian.PutUint64(id[:8], uint64(m.Arrived.UnixMicro())<<12|uint64(id[0])<<4|uint64(id[1])>>4)
	return id
}
