package spool

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"iter"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Entry is what the schedule needs to know of an unsettled message. Its bucket has
// one for each record of the message bucket, kept in the same transactions, so that
// a runner can begin without reading a million records.
type Entry struct {
	ID ID
	// Next is when the message is due, in whole microseconds; zero is at once.
	Next time.Time
	// UID is who handed it in.
	UID int
	// Bulk: see Message. Large: the message has more than LargeRecipients unsettled
	// recipients or LargeSize octets, so that an attempt may take long.
	Bulk, Large bool
	// Held and HeldBy: see Message. Nothing is attempted while it is held.
	Held   bool
	HeldBy Holder
}

// What makes a message Large. The octets are what a slow line carries in some ten
// seconds, the recipients are what Postfix sends in one transaction.
const (
	LargeRecipients = 50
	LargeSize       = 1 << 20
)

// Entry is m's entry in the schedule.
func (m *Message) Entry() Entry {
	e := Entry{ID: m.ID, UID: m.Origin.UID, Bulk: m.Bulk, Large: m.Size > LargeSize, Held: m.Held != "", HeldBy: m.HeldBy}
	unsettled := 0
	for i := range m.Recipients {
		r := &m.Recipients[i]
		if r.Status.Settled() {
			continue
		}
		if next := r.Next.Truncate(time.Microsecond); unsettled == 0 || next.Before(e.Next) {
			e.Next = next
		}
		unsettled++
	}
	e.Large = e.Large || unsettled > LargeRecipients
	return e
}

// An entry is stored as the time in microseconds since 1970 (0: at once), the uid,
// flags, and the CRC-32C of all that and the ID.
const entrySize = 8 + 4 + 1 + 4

const (
	flagBulk = 1 << iota
	flagLarge
	flagHeld
	flagByLimit
	flagBySuspension
)

func (e Entry) encode() []byte {
	next := int64(0)
	if !e.Next.IsZero() {
		next = e.Next.UnixMicro()
	}
	b := binary.BigEndian.AppendUint64(make([]byte, 0, entrySize), uint64(next))
	b = binary.BigEndian.AppendUint32(b, uint32(e.UID))
	flags := byte(0)
	set := func(flag byte, on bool) {
		if on {
			flags |= flag
		}
	}
	set(flagBulk, e.Bulk)
	set(flagLarge, e.Large)
	set(flagHeld, e.Held)
	set(flagByLimit, e.HeldBy == ByLimit)
	set(flagBySuspension, e.HeldBy == BySuspension)
	b = append(b, flags)
	return binary.BigEndian.AppendUint32(b, entrySum(e.ID.key(), b))
}

func entrySum(key, b []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, b)
}

// decodeEntry reports whether b is the entry of that key, undamaged.
func decodeEntry(key, b []byte) (e Entry, ok bool) {
	if len(b) != entrySize || entrySum(key, b[:entrySize-4]) != binary.BigEndian.Uint32(b[entrySize-4:]) {
		return e, false
	}
	e.ID = keyID(key)
	if next := int64(binary.BigEndian.Uint64(b)); next != 0 {
		e.Next = time.UnixMicro(next)
	}
	e.UID = int(binary.BigEndian.Uint32(b[8:]))
	flags := b[12]
	e.Bulk, e.Large, e.Held = flags&flagBulk != 0, flags&flagLarge != 0, flags&flagHeld != 0
	switch {
	case flags&flagByLimit != 0:
		e.HeldBy = ByLimit
	case flags&flagBySuspension != 0:
		e.HeldBy = BySuspension
	}
	return e, true
}

// putMessage stores the record of an unsettled message and its entry in the
// schedule. It is the one way to write the message bucket.
func putMessage(tx *bolt.Tx, m *Message) error {
	record, err := encode(m)
	if err != nil {
		return err
	}
	return putRecord(tx, m, record)
}

// putRecord is putMessage for a record that was encoded before.
func putRecord(tx *bolt.Tx, m *Message, record []byte) error {
	key := m.ID.key()
	if err := tx.Bucket(bucketSchedule).Put(key, m.Entry().encode()); err != nil {
		return err
	}
	return tx.Bucket(bucketMessage).Put(key, record)
}

// dropMessage undoes putMessage.
func dropMessage(tx *bolt.Tx, id ID) error {
	if err := tx.Bucket(bucketSchedule).Delete(id.key()); err != nil {
		return err
	}
	return tx.Bucket(bucketMessage).Delete(id.key())
}

// scheduleStep is how many entries are read in one transaction.
const scheduleStep = 10_000

// Schedule yields the entry of each unsettled message, oldest first. Where one is
// missing or damaged, the record stands in; where that cannot be read either, it is
// yielded as an error, and the walk goes on. Changes made meanwhile may or may not
// be seen. It is not for a spool that was opened for reading alone.
func (s *Spool) Schedule() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		page := make([]scheduled, 0, scheduleStep)
		var last []byte
		for {
			page, last = s.scheduled(page[:0], last)
			for _, p := range page {
				if !yield(p.entry, p.err) {
					return
				}
			}
			if len(page) < scheduleStep {
				return
			}
		}
	}
}

type scheduled struct {
	entry Entry
	err   error
}

// scheduled appends to page, up to its capacity, the messages behind the key after,
// and returns the key of the last one.
func (s *Spool) scheduled(page []scheduled, after []byte) (_ []scheduled, last []byte) {
	// View fails only on a closed database; then there is nothing to read.
	_ = s.view(func(tx *bolt.Tx) error {
		messages, entries := tx.Bucket(bucketMessage).Cursor(), tx.Bucket(bucketSchedule).Cursor()
		ek, ev := entries.Seek(behind(after))
		for k, v := messages.Seek(behind(after)); k != nil && len(page) < cap(page); k, v = messages.Next() {
			for ek != nil && bytes.Compare(ek, k) < 0 {
				ek, ev = entries.Next()
			}
			p, ok := scheduled{}, false
			if bytes.Equal(ek, k) {
				p.entry, ok = decodeEntry(k, ev)
			}
			if !ok {
				p = fromRecord(k, v)
			}
			page, last = append(page, p), k
		}
		last = bytes.Clone(last)
		return nil
	})
	return page, last
}

// behind is the first key that may follow key, which may be nil.
func behind(key []byte) []byte { return append(bytes.Clone(key), 0) }

func fromRecord(k, v []byte) scheduled {
	m, err := decodeMessage(v)
	if err != nil {
		return scheduled{Entry{ID: keyID(k)}, fmt.Errorf("%s: %w", keyID(k), err)}
	}
	return scheduled{entry: m.Entry()}
}

// checkSchedule reports where the schedule does not agree with the records.
func checkSchedule(tx *bolt.Tx, report func(format string, args ...any)) {
	messages, schedule := tx.Bucket(bucketMessage), tx.Bucket(bucketSchedule)
	if schedule == nil {
		return // format 1, opened for reading
	}
	for c, k := first(schedule); k != nil; k, _ = c.Next() {
		if messages.Get(k) == nil {
			report("%s: in the schedule without a message", keyID(k))
		}
	}
	for c, k := first(messages); k != nil; k, _ = c.Next() {
		m, err := decodeMessage(messages.Get(k))
		if err != nil {
			continue // it is reported as a record
		}
		if !bytes.Equal(schedule.Get(k), m.Entry().encode()) {
			report("%s: the schedule does not agree with the message", keyID(k))
		}
	}
}

func first(b *bolt.Bucket) (*bolt.Cursor, []byte) {
	c := b.Cursor()
	k, _ := c.First()
	return c, k
}

// Arrivals yields the messages, queued and finished, whose ID is of that time or
// later, in no order. Left out is what a limit or a suspension holds, what was given
// up before it was ever attempted, and what cannot be read.
func (s *Spool) Arrivals(since time.Time) iter.Seq[*Message] {
	before := (ID(max(0, since.UnixMicro())) << 12).key()
	return func(yield func(*Message) bool) {
		page, last := make([]scheduled, 0, scheduleStep), before
		for {
			page, last = s.scheduled(page[:0], last)
			for _, p := range page {
				if p.err != nil || p.entry.HeldBy != "" {
					continue
				}
				if m, err := s.Message(p.entry.ID); err == nil && !yield(m) {
					return
				}
			}
			if len(page) < scheduleStep {
				break
			}
		}
		for last := before; ; {
			keys, values := s.page(bucketHistory, last, walkStep)
			for _, v := range values {
				if m, err := decodeMessage(v); err == nil && m.Attempts > 0 && !yield(m) {
					return
				}
			}
			if len(keys) < walkStep {
				return
			}
			last = keys[len(keys)-1]
		}
	}
}
