// Package delivery is the runner: what is due, where it goes, the attempt, and
// what becomes of it. What enters the spool is not its business.
package delivery

import (
	"context"

	"postino/spool"
)

// Transport carries messages to one next hop.
type Transport interface {
	// Deliver attempts one message and returns one Reply for each of
	// b.Recipients, in their order, whatever happens. It ends soon after ctx does,
	// and may be called many times at a time. It may open the content more than
	// once, also at the same time.
	Deliver(ctx context.Context, b *spool.Batch) []spool.Reply
}

// capture takes everything and sends nothing: the content stays in the spool.
type capture struct{}

func (capture) Deliver(_ context.Context, b *spool.Batch) []spool.Reply {
	return same(b, spool.Reply{Status: "2.0.0", Text: "captured, not sent", Command: "capture"})
}

// refuser answers everything with one Reply.
type refuser spool.Reply

func (r refuser) Deliver(_ context.Context, b *spool.Batch) []spool.Reply {
	return same(b, spool.Reply(r))
}

func same(b *spool.Batch, r spool.Reply) []spool.Reply {
	replies := make([]spool.Reply, len(b.Recipients))
	for i := range replies {
		replies[i] = r
	}
	return replies
}
