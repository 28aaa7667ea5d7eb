package spool

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Suspension says that mail of a uid is accepted and held.
type Suspension struct {
	UID    int       `json:"uid"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"` // one line; may be empty
	By     int       `json:"by"`               // the uid that ordered it
}

// held is why a message of the uid is held.
func (s Suspension) held() string {
	why := "uid " + strconv.Itoa(s.UID) + " is suspended"
	if s.Reason != "" {
		why += ": " + s.Reason
	}
	return why
}

// suspended returns m as it is to be stored: held, if its uid is suspended and
// nothing else holds it. Reports about mail are not their subject's doing.
func suspended(tx *bolt.Tx, m *Message) *Message {
	if m.Held != "" || m.Origin.Via == ViaDSN {
		return m
	}
	v := tx.Bucket(bucketSuspension).Get(uidKey(m.Origin.UID))
	if v == nil {
		return m
	}
	sus := Suspension{UID: m.Origin.UID}
	if err := decode(v, &sus); err != nil {
		sus.Reason = err.Error()
	}
	held := *m
	held.Held, held.HeldBy = sus.held(), BySuspension
	return &held
}

func uidKey(uid int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(uid)) }

// Suspend has what a uid hands in from now on held, until Resume. A uid that is
// suspended already gets the new reason; what is held keeps the old one.
func (s *Spool) Suspend(sus Suspension) error {
	row, err := encode(sus)
	if err != nil {
		return err
	}
	return s.update(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketSuspension).Put(uidKey(sus.UID), row)
	}, nil)
}

// resumeStep is how many messages one transaction releases, so that no submission
// waits long behind it.
const resumeStep = 500

// Resume ends a suspension and releases what it held, nothing else; released is how
// many messages that is, also with an error. ErrNotSuspended: there is nothing to end.
func (s *Spool) Resume(uid int) (released int, err error) {
	err = s.update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketSuspension)
		if b.Get(uidKey(uid)) == nil {
			return fmt.Errorf("uid %d: %w", uid, ErrNotSuspended)
		}
		return b.Delete(uidKey(uid))
	}, nil)
	if err != nil {
		return 0, err
	}
	return s.ReleaseResumed()
}

// ReleaseResumed releases what is held by a suspension that is over: what a Resume
// that was cut short has left.
func (s *Spool) ReleaseResumed() (released int, err error) {
	var ids []ID
	flush := func() error {
		n, err := s.releaseSuspended(ids)
		released, ids = released+n, ids[:0]
		return err
	}
	for e, entryErr := range s.Schedule() {
		if entryErr != nil || e.HeldBy != BySuspension {
			continue
		}
		if ids = append(ids, e.ID); len(ids) == resumeStep {
			if err := flush(); err != nil {
				return released, err
			}
		}
	}
	return released, flush()
}

// releaseSuspended releases those of ids, in one transaction, that are held by a
// suspension that is over.
func (s *Spool) releaseSuspended(ids []ID) (int, error) {
	var free []*Message
	err := s.update(func(tx *bolt.Tx) error {
		free = nil
		for _, id := range ids {
			m, err := decodeMessage(tx.Bucket(bucketMessage).Get(id.key()))
			if err != nil || m.HeldBy != BySuspension || tx.Bucket(bucketSuspension).Get(uidKey(m.Origin.UID)) != nil {
				continue // gone, damaged, or somebody was quicker
			}
			m.Held, m.HeldBy = "", ""
			if err := putMessage(tx, m); err != nil {
				return err
			}
			free = append(free, m)
		}
		return nil
	}, func() {
		for _, m := range free {
			s.notify(m)
		}
	})
	if err != nil {
		return 0, err
	}
	return len(free), nil
}

// Suspensions returns who is suspended, by uid.
func (s *Spool) Suspensions() ([]Suspension, error) {
	var list []Suspension
	err := s.view(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketSuspension)
		if b == nil {
			return nil // format 1, opened for reading
		}
		return b.ForEach(func(k, v []byte) error {
			var sus Suspension
			if err := decode(v, &sus); err != nil {
				// Still suspended: the key says so, and only a person may undo it.
				sus = Suspension{UID: int(binary.BigEndian.Uint32(k)), Reason: err.Error()}
			}
			list = append(list, sus)
			return nil
		})
	})
	return list, err
}
