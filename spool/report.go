package spool

import (
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// Report is a message about what an attempt did. Record queues it in the
// transaction that stores the attempt, so that what became of a recipient and the
// report that is owed about it are on disk both or neither.
type Report struct {
	// Draft has the content. Message is the rest; what Commit sets is set here too.
	Draft   *Draft
	Message *Message
	// About are the recipients it tells of, indices into Message.Recipients of the
	// message of the attempt. If one of them was settled before, by somebody who gave
	// the message up, the report is dropped.
	About []int

	record []byte
	queued bool
}

// prepareReports makes what can be made durable before the transaction so.
func prepareReports(reports []*Report) error {
	for _, r := range reports {
		var err error
		if r.record, err = r.Draft.prepare(r.Message); err != nil {
			return err
		}
	}
	return nil
}

// putReports queues the reports about m, of whose recipients some were settled
// before.
func putReports(tx *bolt.Tx, m *Message, reports []*Report, settled []bool) error {
	for _, r := range reports {
		r.queued = true
		for _, n := range r.About {
			r.queued = r.queued && n >= 0 && n < len(settled) && !settled[n]
		}
		if !r.queued {
			continue
		}
		if err := r.Draft.put(tx, r.Message, r.record); err != nil {
			return err
		}
		m.Reports = append(m.Reports, r.Draft.id)
	}
	return nil
}

// finishReports gives the drafts back when Record is over, and removes what was
// not queued. After a failure that leaves that open their content stays.
func finishReports(reports []*Report, err error) {
	for _, r := range reports {
		if (err != nil || !r.queued) && !errors.Is(err, ErrFenced) {
			r.Draft.removeFile()
		}
		r.Draft.release()
	}
}

// prepare makes the content durable and returns the record that names it. After an
// error nothing is left of the content.
func (d *Draft) prepare(m *Message) (record []byte, err error) {
	m.ID, m.Size, m.EightBit = d.id, d.size, d.high
	m.Content = Content{File: d.file != nil, Sum: d.sum}
	if err = d.sync(); err != nil {
		if noRoom(err) { // a file system may find out late
			err = fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
		err = fmt.Errorf("content of %s: %w", d.id, err)
	} else {
		record, err = encode(m)
	}
	if err != nil {
		d.removeFile()
	}
	return record, err
}
