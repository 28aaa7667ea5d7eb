package spool

import (
	"bytes"
	"iter"
	"slices"

	bolt "go.etcd.io/bbolt"

	"postino/spool/address"
)

// Gathered marks a report that waits in the queue to be sent in one mail with others
// to its recipient. An older postino sends it on its own when it is due.
type Gathered struct {
	// About is the message that it is about, Action what it says became of that.
	About  ID     `json:"about"`
	Action string `json:"action"`
	// Gist is what it says, in a few lines.
	Gist []string `json:"gist,omitempty"`
}

// Gathered yields the gathered reports to an address, oldest first.
func (s *Spool) Gathered(to address.Address) iter.Seq2[*Message, error] {
	key := to.Key()
	return func(yield func(*Message, error) bool) {
		var ids []ID // not the messages: there may be many
		for m, err := range s.FindQueued(func(record []byte) bool { return bytes.Contains(record, []byte(`"gathered":{`)) }) {
			if err == nil && m.isGathered(key) {
				ids = append(ids, m.ID)
			}
		}
		for _, id := range slices.Backward(ids) {
			m, err := s.Message(id)
			if err == nil && !m.isGathered(key) {
				continue // not any more
			}
			if !yield(m, err) {
				return
			}
		}
	}
}

func (m *Message) isGathered(key string) bool {
	return m.Gathered != nil && m.Held == "" && !m.Settled() && len(m.Recipients) == 1 && m.Recipients[0].Address.Key() == key
}

// Replace settles gathered reports with one Reply and, in the same transaction, queues
// the mail that takes their place. by is used up whatever the result; nil is none.
// Reports that are settled already are passed over.
func (s *Spool) Replace(ids []ID, by *Report, reply Reply) (err error) {
	var reports []*Report
	if by != nil {
		reports = append(reports, by)
	}
	defer func() { finishReports(reports, err) }()
	if err := prepareReports(reports); err != nil {
		return err
	}
	var settled []*Message
	var grown int64
	err = s.update(func(tx *bolt.Tx) error {
		settled, grown = nil, 0
		for _, r := range reports {
			r.queued = true
			if err := r.Draft.put(tx, r.Message, r.record); err != nil {
				return err
			}
		}
		for _, id := range ids {
			m, err := decodeMessage(tx.Bucket(bucketMessage).Get(id.key()))
			if err != nil {
				continue // gone, or damaged, and then it stays
			}
			for i := range m.Recipients {
				if r := &m.Recipients[i]; !r.Status.Settled() {
					r.Status, r.Reply = Expanded, reply
				}
			}
			if err := settle(tx, m); err != nil {
				return err
			}
			settled, grown = append(settled, m), grown+sizeInHistory(tx, id)
		}
		return nil
	}, func() {
		s.growHistory(grown)
		for _, r := range reports {
			s.notify(r.Message)
		}
	})
	if err != nil {
		return err
	}
	for _, m := range settled {
		s.removeSettled(m)
	}
	return nil
}
