package control

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"postino/spool"
	"postino/spool/address"
)

// Selection says which messages are meant: those that all of its fields match. A
// zero field matches everything, and so does the zero Selection.
//
// To, Hop, Reason and a Status of recipients must all hold for one and the same
// recipient. In the queue only unsettled recipients count, unless Status asks for
// others: mail to Bob is mail that Bob is still waiting for.
type Selection struct {
	// IDs names the messages; nil means any.
	IDs []spool.ID
	// From and To are patterns of the reverse-path and of a recipient, without
	// regard to case: an address, "@domain", a local part in full, "<>" for the null
	// reverse-path, or any of these with "*" and "?".
	From, To string
	// UID is whose mail; nil means anybody's.
	UID *int
	// Hop is a part of the next hop as Route tells it, in any case.
	Hop string
	// Status is StatusHeld, or the spool.Status of a recipient. Those that wait
	// (queued, deferred) are none of a held message.
	Status string
	// Before and After bound the time of arrival; neither is included.
	Before, After time.Time
	// Reason is a part of the last reply, or of why the message is held, in any case.
	Reason string
	// Failed: the messages of the failed list instead of those of the queue; then
	// recipients that failed count.
	Failed bool
	// Limit is how many messages at most, the oldest first; 0 means all.
	Limit int

	// settled: recipients count whatever their status.
	settled bool
	// orFailed: IDs may be of messages of the failed list.
	orFailed bool
}

// maxIDs is how many messages one request may name: 500 times "id=…&" is half of
// maxHeader.
const maxIDs = 500

// The names of the fields in a query string.
const (
	keyID     = "id"
	keyFrom   = "from"
	keyTo     = "to"
	keyUID    = "uid"
	keyHop    = "hop"
	keyStatus = "status"
	keyBefore = "before"
	keyAfter  = "after"
	keyReason = "reason"
	keyLimit  = "limit"
	keyFailed = "failed"
)

// Values is s as a query string, from which ParseSelection makes s again.
func (s *Selection) Values() url.Values {
	v := url.Values{}
	set := func(key, value string) {
		if value != "" {
			v.Set(key, value)
		}
	}
	for _, id := range s.IDs {
		v.Add(keyID, id.String())
	}
	set(keyFrom, s.From)
	set(keyTo, s.To)
	set(keyHop, s.Hop)
	set(keyStatus, s.Status)
	set(keyReason, s.Reason)
	if s.UID != nil {
		set(keyUID, strconv.Itoa(*s.UID))
	}
	if s.Failed {
		set(keyFailed, "1")
	}
	if s.Limit != 0 {
		set(keyLimit, strconv.Itoa(s.Limit))
	}
	for key, t := range map[string]time.Time{keyBefore: s.Before, keyAfter: s.After} {
		if !t.IsZero() {
			set(key, t.UTC().Format(time.RFC3339Nano))
		}
	}
	return v
}

// ParseSelection reads what Values writes. It refuses whatever else there is: half
// a selection understood would be too many messages deleted.
func ParseSelection(v url.Values) (Selection, error) {
	var s Selection
	for key, values := range v {
		for i, value := range values {
			if i > 0 && key != keyID {
				return Selection{}, fmt.Errorf("%w: %q is there twice", errBadRequest, key)
			}
			if err := s.set(key, value); err != nil {
				return Selection{}, fmt.Errorf("%w: %q: %w", errBadRequest, key, err)
			}
		}
	}
	return s, nil
}

func (s *Selection) set(key, value string) (err error) {
	if value == "" {
		return errors.New("it is empty")
	}
	switch key {
	case keyID:
		var id spool.ID
		id, err = spool.ParseID(value)
		if s.IDs = append(s.IDs, id); len(s.IDs) > maxIDs {
			err = fmt.Errorf("more than %d", maxIDs)
		}
	case keyFrom:
		s.From = value
	case keyTo:
		s.To = value
	case keyHop:
		s.Hop = value
	case keyReason:
		s.Reason = value
	case keyStatus:
		s.Status = value
		err = CheckStatus(value)
	case keyUID:
		s.UID = new(int)
		*s.UID, err = natural(value)
	case keyLimit:
		if s.Limit, err = natural(value); s.Limit == 0 {
			err = errors.New("want a number from 1")
		}
	case keyFailed:
		if s.Failed = value == "1"; !s.Failed {
			err = errors.New(`want "1"`)
		}
	case keyBefore:
		s.Before, err = parseTime(value)
	case keyAfter:
		s.After, err = parseTime(value)
	default:
		err = errors.New("not known")
	}
	return err
}

// CheckStatus says whether a Selection can have that Status.
func CheckStatus(status string) error {
	known := []string{StatusHeld}
	for _, s := range []spool.Status{spool.Queued, spool.Deferred, spool.Delivered, spool.Relayed, spool.Expanded, spool.Failed} {
		known = append(known, string(s))
	}
	if !slices.Contains(known, status) {
		return fmt.Errorf("%q is not a status: want one of %s", status, strings.Join(known, ", "))
	}
	return nil
}

func natural(s string) (int, error) {
	n, err := strconv.ParseInt(s, 10, strconv.IntSize)
	if err != nil || n < 0 || n > 1<<32-1 {
		return 0, fmt.Errorf("%q is not a number from 0 to 4294967295", s)
	}
	return int(n), nil
}

func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err == nil && t.IsZero() {
		err = errors.New("no time")
	}
	return t.UTC(), err
}

// all reports whether s means every message.
func (s *Selection) all() bool {
	return len(s.IDs) == 0 && s.From == "" && s.To == "" && s.UID == nil && s.Hop == "" && s.Status == "" &&
		s.Before.IsZero() && s.After.IsZero() && s.Reason == "" && s.Limit == 0 && !s.Failed
}

// matches reports whether s means m as one of the queue. hop tells next hops. A
// message that is hidden from the asker does not match by anything that is.
func (s *Selection) matches(m *Message, hop nextHop) bool {
	switch {
	case len(s.IDs) > 0 && !slices.Contains(s.IDs, m.ID),
		s.UID != nil && *s.UID != m.UID,
		!s.Before.IsZero() && !m.Arrived.Before(s.Before),
		!s.After.IsZero() && !m.Arrived.After(s.After),
		s.Status == StatusHeld && m.Status != StatusHeld,
		m.Hidden && (s.From != "" || s.To != "" || s.Hop != "" || s.Reason != ""),
		s.From != "" && !matchAddress(s.From, m.Sender):
		return false
	}
	if s.To == "" && s.Hop == "" && s.Reason == "" && (s.Status == "" || s.Status == StatusHeld) {
		return true
	}
	return slices.ContainsFunc(m.Recipients, func(r Recipient) bool { return s.matchesRecipient(m, &r, hop) })
}

func (s *Selection) matchesRecipient(m *Message, r *Recipient, hop nextHop) bool {
	if !s.statusMatches(m, r) || s.To != "" && !matchAddress(s.To, r.Address) {
		return false
	}
	if s.Reason != "" && !containsFold(m.Held, s.Reason) && (r.Reply == nil || !containsFold(r.Reply.String(), s.Reason)) {
		return false
	}
	if s.Hop == "" {
		return true
	}
	from, err := address.ParsePath(m.Sender)
	to, err2 := address.ParsePath(r.Address)
	return err == nil && err2 == nil && hop != nil && containsFold(hop(from, to), s.Hop)
}

func (s *Selection) statusMatches(m *Message, r *Recipient) bool {
	if s.Failed && s.Status == "" {
		return r.Status == spool.Failed
	}
	if s.Status == "" || s.Status == StatusHeld {
		return s.settled || !r.Status.Settled()
	}
	return string(r.Status) == s.Status && (r.Status.Settled() || m.Status != StatusHeld)
}

func containsFold(s, part string) bool {
	return strings.Contains(strings.ToLower(s), strings.ToLower(part))
}

// matchAddress reports whether a pattern of a Selection means an address, which is
// "" for the null reverse-path.
func matchAddress(pattern, address string) bool {
	if pattern == "<>" {
		return address == ""
	}
	pattern, address = strings.ToLower(pattern), strings.ToLower(address)
	if inner, ok := strings.CutPrefix(pattern, "<"); ok {
		pattern = strings.TrimSuffix(inner, ">")
	}
	at := strings.LastIndexByte(address, '@')
	switch {
	case strings.ContainsAny(pattern, "*?"):
		return glob(pattern, address)
	case strings.HasPrefix(pattern, "@"):
		return at >= 0 && address[at:] == pattern
	case !strings.Contains(pattern, "@") && at >= 0:
		return address[:at] == pattern
	}
	return address == pattern && address != ""
}

// glob matches "*" with any text and "?" with one octet.
func glob(pattern, s string) bool {
	p, i := 0, 0
	star, mark := -1, 0 // where to go on when it does not fit: one octet more for the last star
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
