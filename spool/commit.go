package spool

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"postino/spool/crashpoint"
)

const (
	// maxGroup is how many operations share one transaction at most.
	maxGroup = 256
	// maxGroupSize is at how many octets of content a group is full: bbolt has all that
	// a transaction writes in memory, some of it twice. Small mail does not reach it,
	// and for what does a sync is the smaller part of the work.
	maxGroupSize = 2 << 20
)

// op is one change of the spool. do must find out whether it can be done before
// it writes anything, since the operations of a group share a transaction.
type op struct {
	do    func(*bolt.Tx) error
	after func() // called when do is on disk; may be nil
	done  chan error
	// submission: it may be refused for want of room, since nothing answers for the
	// message yet.
	submission bool
	size       int // octets of content that do writes
}

// update has do run in a transaction and returns when that is on disk. after is
// called in between, in the order of the commits.
func (s *Spool) update(do func(*bolt.Tx) error, after func()) error {
	return s.apply(&op{do: do, after: after})
}

// submit is update for a submission: who hands in is there to be told that there
// is no room. size is how many octets of content do writes.
func (s *Spool) submit(size int, do func(*bolt.Tx) error, after func()) error {
	return s.apply(&op{do: do, after: after, submission: true, size: size})
}

func (s *Spool) apply(o *op) error {
	o.done = make(chan error, 1)
	s.ops <- o
	return <-o.done
}

// writer is the one goroutine that writes. It takes everything that waits as
// soon as it is free: a lone caller waits for nobody, and many share one sync.
// (bbolt's Batch waits for a timer instead, 10 ms for a lone caller.)
func (s *Spool) writer() {
	defer close(s.writerDone)
	idle := time.NewTimer(s.idle)
	defer idle.Stop()
	for {
		select {
		case first, ok := <-s.ops:
			if !ok {
				return
			}
			s.commit(s.group(first))
			idle.Reset(s.idle)
		case c := <-s.compactions:
			c.before, c.after, c.err = s.compact(nil)
			close(c.done)
		case <-idle.C:
			s.compactWhenWorth()
		case <-s.alive:
		}
	}
}

// Alive returns once the writer is free for a change; it makes none, so that an idle
// disk stays idle. The error is ctx's, or ErrFenced.
func (s *Spool) Alive(ctx context.Context) error {
	select {
	case s.alive <- struct{}{}:
		return nil
	case <-s.fence:
		return ErrFenced
	case <-ctx.Done():
		return ctx.Err()
	}
}

// group returns first and what else is waiting.
func (s *Spool) group(first *op) []*op {
	group := []*op{first}
	for size := first.size; len(group) < maxGroup && size < maxGroupSize; {
		select {
		case o, ok := <-s.ops:
			if !ok {
				return group
			}
			group = append(group, o)
			size += o.size
		default:
			return group
		}
	}
	return group
}

func (s *Spool) commit(group []*op) {
	if s.isFenced() {
		finish(group, ErrFenced)
		return
	}
	var refused error
	crashpoint.Here("commit.before")
	err := guarded(func() error {
		return s.db.Update(func(tx *bolt.Tx) error {
			s.residence.bound(tx)
			for _, o := range group {
				if refused = o.do(tx); refused != nil {
					return refused
				}
			}
			return nil
		})
	})
	crashpoint.Here("commit.after")
	switch {
	case refused != nil && len(group) > 1:
		// One of them cannot be done: the others must not suffer from it.
		for _, o := range group {
			s.commit([]*op{o})
		}
		return
	case refused != nil:
		err = refused
	case err != nil && cleanRefusal(err):
		s.noRoom(group, err)
		return
	case err != nil:
		err = s.fail(err)
	}
	finish(group, err)
}

func finish(group []*op, err error) {
	for _, o := range group {
		if err == nil && o.after != nil {
			o.after()
		}
		o.done <- err
	}
}

// cleanRefusal reports whether a failed commit is known to have changed nothing:
// no room was found while pages were written or the file grown, before any sync.
// After anything else, above all a failed fdatasync, the kernel may have dropped
// pages that it will not report again, and to go on would lose mail.
func cleanRefusal(err error) bool {
	if errors.Is(err, berrors.ErrMaxSizeReached) {
		return true
	}
	var path *fs.PathError
	if noRoom(err) && errors.As(err, &path) && path.Op == "write" {
		return true
	}
	// bbolt wraps a failed ftruncate as text alone.
	return strings.HasPrefix(err.Error(), "file resize error")
}
