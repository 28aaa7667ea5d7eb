package relay

import "time"

const (
	// maxDepth is how many messages may be under way on one connection. It hides a
	// round trip of 50 ms at 600 messages a second.
	maxDepth = 32
	// depthTime is how long a message may have to wait for those before it on its
	// connection: who comes with one urgent mail must not wait behind many.
	depthTime = 500 * time.Millisecond
	// firstPace is what a remote is taken to need for a message before anything is
	// known about it.
	firstPace = depthTime / 8
)

// depth finds out how many messages may be under way on a connection: as many as
// the remote answers in depthTime. The zero value knows nothing yet.
type depth struct {
	pace time.Duration // from one answer to the next while more are due, averaged
	last time.Time     // of the last answer
	more bool          // others were under way then
}

// limit is how many messages may be under way.
func (d *depth) limit() int {
	pace := d.pace
	if pace == 0 {
		pace = firstPace
	}
	return int(max(1, min(maxDepth, depthTime/pace)))
}

// answered notes the end of a transaction that began at that time; more says that
// others are under way behind it.
func (d *depth) answered(begun time.Time, more bool) {
	pace := d.pace
	if pace == 0 {
		pace = firstPace
	}
	now := time.Now()
	since := begun
	if d.last.After(begun) {
		since = d.last
	}
	// When the remote had this one already as it answered the one before, the time
	// is its own. Else there is a round trip in it, and it is less than that.
	if sample := now.Sub(since); d.more || sample < pace {
		d.pace = max(1, pace+(sample-pace)/4)
	}
	d.last, d.more = now, more
}
