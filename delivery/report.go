package delivery

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"postino/config"
	"postino/delivery/dsn"
	"postino/spool"
	"postino/spool/address"
)

// owed is a report that an attempt makes necessary.
type owed struct {
	action dsn.Action
	to     address.Address
	about  []int // recipients of the message
	// operator: it is the copy for bounce_to. here: it is for a name of this machine,
	// whatever its domain.
	operator, here bool
}

// written is a report that can be queued, and what it says.
type written struct {
	*spool.Report
	about *dsn.Report
}

// gather has the report wait for others to the same recipient.
func (w written) gather(until time.Time) {
	w.Message.Gathered = &spool.Gathered{About: w.about.Message.ID, Action: string(w.about.Action), Gist: w.about.Gist()}
	rcpt := &w.Message.Recipients[0]
	rcpt.Next = until.Truncate(time.Microsecond)
	rcpt.Reply = spool.Reply{Status: "4.3.0", Command: "digest",
		Text: "one of several reports, which go in one mail at " + until.UTC().Format(time.RFC3339)}
}

// reportsOwed decides who is to be told what of an attempt. m is the message before
// it, after the one it makes of it.
func reportsOwed(c *config.Config, m, after *spool.Message, outcomes []spool.Outcome) []owed {
	if c.Mode == config.Capture {
		return nil // nothing happened that anybody outside should hear of
	}
	type group struct {
		action dsn.Action
		to     address.Address
	}
	var groups []group
	about := make(map[group][]int)
	for _, o := range outcomes {
		if m.Recipients[o.Recipient].Status.Settled() {
			continue
		}
		rcpt := &after.Recipients[o.Recipient]
		// A report about a report would go on for ever (RFC 5321 §6.1).
		if action := tells(rcpt, o); action != "" && !m.Sender.IsNull() && m.Origin.Via != spool.ViaDSN {
			g := group{action, m.SenderFor(rcpt)}
			if about[g] == nil {
				groups = append(groups, g)
			}
			about[g] = append(about[g], o.Recipient)
		}
	}
	order := []dsn.Action{dsn.Failed, dsn.Delayed, dsn.Relayed, dsn.Delivered, dsn.Expanded}
	slices.SortStableFunc(groups, func(a, b group) int {
		return cmp.Compare(slices.Index(order, a.action), slices.Index(order, b.action))
	})
	var list []owed
	for _, g := range groups {
		list = append(list, owed{action: g.action, to: g.to, about: about[g], here: m.BareSender || g.to != m.Sender})
	}
	return append(list, operatorReport(c, m, after, outcomes)...)
}

// tells is what the sender asked to be told of an outcome (RFC 3461 §4.1); empty is
// nothing.
func tells(rcpt *spool.Recipient, o spool.Outcome) dsn.Action {
	wants := func(word string, byDefault bool) bool {
		if len(rcpt.Notify) == 0 {
			return byDefault
		}
		return slices.ContainsFunc(rcpt.Notify, func(n string) bool { return strings.EqualFold(n, word) })
	}
	switch {
	case o.Status == spool.Failed && wants("FAILURE", true):
		return dsn.Failed
	case o.Status == spool.Deferred && o.Warned && wants("DELAY", true):
		return dsn.Delayed
	case o.Status == spool.Relayed && wants("SUCCESS", false) && !o.Reply.Notifies:
		return dsn.Relayed
	case o.Status == spool.Delivered && wants("SUCCESS", false):
		return dsn.Delivered
	case o.Status == spool.Expanded && o.Several && wants("SUCCESS", false):
		return dsn.Expanded
	}
	return ""
}

// operatorReport is the copy of a failure for bounce_to, whatever the sender wants to
// know of it. What goes to bounce_to itself is not reported there: neither mail to that
// address, nor a report to whoever stands behind it as an alias.
func operatorReport(c *config.Config, m, after *spool.Message, outcomes []spool.Outcome) []owed {
	if c.BounceTo == "" {
		return nil
	}
	to, err := address.Parse(c.BounceTo)
	if err != nil {
		return nil // the configuration was checked
	}
	isTo := func(rcpt spool.Recipient) bool { return rcpt.Address.Key() == to.Key() }
	if m.Origin.Via == spool.ViaDSN && slices.ContainsFunc(m.Recipients, isTo) {
		return nil
	}
	var about []int
	for _, o := range outcomes {
		rcpt := &after.Recipients[o.Recipient]
		if o.Status == spool.Failed && !m.Recipients[o.Recipient].Status.Settled() && !isTo(*rcpt) {
			about = append(about, o.Recipient)
		}
	}
	if len(about) == 0 || m.Sender.Key() == to.Key() {
		return nil
	}
	return []owed{{action: dsn.Failed, to: to, about: about, operator: true, here: m.BareSender && to == m.Sender}}
}

// writeReport writes a report about m, as it is after the attempt, into the spool. It
// is queued with the attempt.
func writeReport(s *spool.Spool, c *config.Config, after *spool.Message, o owed, now time.Time) (w written, err error) {
	content, err := s.Content(after)
	if err != nil {
		return w, err
	}
	defer content.Close()
	draft, err := s.NewReportDraft()
	if err != nil {
		return w, err
	}
	r := &dsn.Report{
		ID: draft.ID(), Action: o.action, Message: after, Recipients: o.about, To: o.to,
		Hostname: c.Hostname, Domain: c.Domain, Now: now, Until: expiry(after, c.Retry),
	}
	if err := r.Write(draft, content); err != nil {
		draft.Discard()
		return w, fmt.Errorf("report about %s: %w", after.ID, err)
	}
	m := &spool.Message{
		Arrived: now, UTF8: r.UTF8(), RequireTLS: after.RequireTLS,
		Recipients: []spool.Recipient{{Address: o.to, Status: spool.Queued, Notify: []string{"NEVER"}, Bare: o.here}},
		Origin:     spool.Origin{Via: spool.ViaDSN, UID: after.Origin.UID, Action: string(o.action)},
		Subject:    r.Subject(),
		From:       "MAILER-DAEMON@" + c.Domain,
	}
	return written{&spool.Report{Draft: draft, Message: m, About: o.about}, r}, nil
}
