// Package delivery is the runner: what is due, where it goes, the attempt, and
// what becomes of it. What enters the spool is not its business.
package delivery

import (
	"context"

	"postino/config"
	"postino/delivery/relay"
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

// route is where mail goes: a Transport, and what its success means.
type route struct {
	hop       string
	transport Transport
	success   spool.Status
	keep      bool       // content stays readable when the message is finished
	limit     func() int // attempts at a time, now
	close     func()
}

// few is how many attempts run at a time where no server is involved.
func few() int { return 4 }

// newRoute finds the one route that a configuration has in this version.
func newRoute(c *config.Config) (route, error) {
	switch {
	case c.Mode == config.Capture:
		return route{hop: "capture", transport: capture{}, success: spool.Delivered, keep: true, limit: few}, nil
	case c.Relay == nil:
		return route{hop: "nowhere", transport: nowhere{}, success: spool.Relayed, limit: few}, nil
	}
	r, err := relay.New(c.Relay, c.Timeouts, c.Hostname)
	if err != nil {
		return route{}, err
	}
	return route{hop: r.Hop(), transport: r, success: spool.Relayed, limit: r.Room, close: r.Close}, nil
}

// capture takes everything and sends nothing: the content stays in the spool.
type capture struct{}

func (capture) Deliver(_ context.Context, b *spool.Batch) []spool.Reply {
	return same(b, spool.Reply{Status: "2.0.0", Text: "captured, not sent", Command: "capture"})
}

// nowhere is the route when none is configured. That is an operator's slip, so
// mail waits for it to be mended.
type nowhere struct{}

func (nowhere) Deliver(_ context.Context, b *spool.Batch) []spool.Reply {
	return same(b, spool.Reply{Status: "4.3.5", Command: "route",
		Text: "no smarthost is configured and this version does not deliver by MX: set [relay] in postino.toml"})
}

func same(b *spool.Batch, r spool.Reply) []spool.Reply {
	replies := make([]spool.Reply, len(b.Recipients))
	for i := range replies {
		replies[i] = r
	}
	return replies
}
