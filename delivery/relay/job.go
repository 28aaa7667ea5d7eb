package relay

import (
	"io"
	"time"

	"postino/spool"
)

// delivery is one call of Deliver at one peer: a batch, and the replies so far.
// Recipients are named by their position in the batch. It is guarded by the mutex
// of the pool, and each position is settled once.
type delivery struct {
	*spool.Batch
	replies []spool.Reply
	left    int           // positions without a reply
	done    chan struct{} // closed when none is left

	// elsewhere are the positions whose reply is a temporary refusal, or says nothing
	// about them, only about this peer or a connection to it. Another host may be
	// asked, unless final says that it would tell the same.
	elsewhere   []int
	final       bool
	interrupted bool // the caller wants no more of it
}

// job is a part of a delivery that waits to be sent, or is.
type job struct {
	*delivery
	to []int
	// moved: it was on a connection that ended before the remote looked at it. That
	// is good for one more try, not for trying for ever.
	moved bool
	// plain: the remote offered a parameter and does not know it (555, RFC 5321 §3.3), so
	// that it gets none that the message can do without.
	plain bool
}

// settle gives the recipients at these positions one reply. Whom this host will not
// have now another one may.
func (d *delivery) settle(at []int, reply spool.Reply) {
	if reply.Code/100 == 4 {
		d.elsewhere = append(d.elsewhere, at...)
	}
	for _, i := range at {
		d.replies[i] = reply
		d.tick()
	}
}

// pass settles them too, and leaves them for another host whatever the reply is.
func (d *delivery) pass(at []int, reply spool.Reply) {
	if reply.Code/100 != 4 {
		d.elsewhere = append(d.elsewhere, at...)
	}
	d.settle(at, reply)
}

func (d *delivery) tick() {
	if d.left--; d.left == 0 {
		close(d.done)
	}
}

func (d *delivery) recipient(at int) *spool.Recipient { return &d.Message.Recipients[d.Recipients[at]] }

// transaction is one message on its way over a session, from MAIL to the reply to
// the end of its content (RFC 5321 §3.3). Its replies come in the order of its
// commands, however many were sent ahead. It is guarded by the mutex of the pool.
type transaction struct {
	*job
	content content

	mailed   bool  // MAIL has been answered
	refused  bool  // and the answer was no: nobody of it is left to settle
	answered int   // so many of to have a reply to RCPT
	accepted []int // those of them that the remote takes
	// again are those refused because there were enough (RFC 5321 §4.5.3.1.10).
	// They have a temporary reply, for the case that the transaction fails.
	again []refusedRecipient
	// plainly are those to try once more without parameters.
	plainly []int

	soured  bool // somebody of it does not get the message
	begun   time.Time
	goAhead bool  // 354
	bdat    bool  // the content goes by BDAT
	over    bool  // done with: not in flight any more
	end     int64 // where its last octet is in what the session writes; 0 is not yet
}

type refusedRecipient struct {
	at    int
	reply spool.Reply
}

// hopeless reports whether no recipient can get the message any more.
func (t *transaction) hopeless() bool {
	return t.refused || t.answered == len(t.to) && len(t.accepted) == 0
}

// certain reports whether the remote is known to have had a recipient for the
// content, whose end then ends the transaction at its side too.
func (t *transaction) certain() bool { return t.end > 0 && len(t.accepted) > 0 }

// undecided are the positions that still want a reply, those in again apart.
func (t *transaction) undecided() []int {
	if t.refused {
		return nil
	}
	return append(t.accepted, t.to[t.answered:]...)
}

// content is what there is to send: in memory, or to be read.
type content struct {
	text []byte
	io.ReadCloser
}

func (c content) close() {
	if c.ReadCloser != nil {
		c.Close()
	}
}
