package control

import (
	"bytes"
	"errors"
	"iter"
	"slices"
	"strings"

	"postino/spool"
	"postino/spool/address"
)

// maxTraces is how many messages one Trace finds at most, the newest ones. A
// question with more answers was not precise enough.
const maxTraces = 1000

// minPartOfID is how many digits a part of a queue ID must have to be taken for
// one: fewer are in too many IDs.
const minPartOfID = 6

// Trace yields the messages, queued or finished, that what names, newest last:
// the one with that queue ID, else those with that Message-ID, those from or to
// that address, and those with that text in their subject or in their queue ID, in
// any case.
func (v View) Trace(what string) iter.Seq2[Trace, error] {
	if id, err := spool.ParseID(what); err == nil {
		if t, err := v.Show(id); !errors.Is(err, spool.ErrNotFound) {
			return func(yield func(Trace, error) bool) { yield(t, err) }
		}
	}
	if what == "" {
		return func(func(Trace, error) bool) {}
	}
	matches := matcher(what)
	return v.find(mayMatch(what), func(m *spool.Message) bool { return v.Access.sees(m) && matches(m) })
}

// Captured yields the finished messages whose content was kept, newest last.
func (v View) Captured() iter.Seq2[Trace, error] {
	captured := func(record []byte) bool { return bytes.Contains(record, []byte(`"captured":true`)) }
	return v.find(captured, func(m *spool.Message) bool { return m.Captured && !m.Finished.IsZero() && v.Access.owns(m) })
}

// find yields the newest messages that match, newest last; want is what their
// records have in common.
func (v View) find(want func(record []byte) bool, matches func(*spool.Message) bool) iter.Seq2[Trace, error] {
	return func(yield func(Trace, error) bool) {
		if v.Spool == nil {
			return
		}
		found := make(map[spool.ID]*spool.Message)
		// The queue first: what is finished meanwhile is then seen twice, not never.
		for _, walk := range []iter.Seq2[*spool.Message, error]{v.Spool.FindQueued(want), v.Spool.FindFinished(want)} {
			n := 0
			for m, err := range walk {
				if err != nil {
					if !yield(Trace{}, err) {
						return
					}
					continue
				}
				if !matches(m) {
					continue
				}
				found[m.ID] = m
				if n++; n == maxTraces {
					break // all others are older
				}
			}
		}
		var ids []spool.ID
		for id := range found {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		for _, id := range ids[max(0, len(ids)-maxTraces):] {
			if !yield(v.trace(found[id])) {
				return
			}
		}
	}
}

func matcher(what string) func(*spool.Message) bool {
	messageID := bareID(what)
	part := strings.ToLower(what)
	key, id := "", ""
	if a, err := address.Parse(what); err == nil && a.Domain != "" {
		key = a.Key()
	}
	if len(what) >= minPartOfID && strings.Trim(part, "0123456789abcdef") == "" {
		id = strings.ToUpper(what)
	}
	return func(m *spool.Message) bool {
		return messageID != "" && messageID == bareID(m.MessageID) ||
			key != "" && involves(m, key) ||
			id != "" && strings.Contains(m.ID.String(), id) ||
			strings.Contains(strings.ToLower(decodeWords(m.Subject)), part)
	}
}

// mayMatch returns what is true for the record of every message that matcher finds,
// and false for most others: to decode a record costs ten times as much.
func mayMatch(what string) func(record []byte) bool {
	parts := [][]byte{[]byte("=?"), []byte(longestPlain(what))} // any encoded word may be it
	if a, err := address.Parse(what); err == nil {
		parts = append(parts, []byte(longestPlain(a.String()))) // what may have a name and comments
	}
	return func(record []byte) bool {
		record = bytes.ToLower(record)
		return slices.ContainsFunc(parts, func(part []byte) bool { return bytes.Contains(record, part) })
	}
}

// longestPlain is the longest part of s, in lower case, that stands in JSON as it
// is, and in an address whatever way that is written: letters, digits and the like.
func longestPlain(s string) string {
	longest := ""
	for part := range strings.FieldsFuncSeq(strings.ToLower(s), func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_' || r == '@')
	}) {
		if len(part) > len(longest) {
			longest = part
		}
	}
	return longest
}

// bareID is a Message-ID without its angle brackets.
func bareID(s string) string { return strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">") }

func involves(m *spool.Message, key string) bool {
	return m.Sender.Key() == key ||
		slices.ContainsFunc(m.Recipients, func(r spool.Recipient) bool { return r.Address.Key() == key })
}
