package local

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"postino/config"
	"postino/spool"
)

// helperWait is how long a helper may take for one message: a program may take pipeWait
// for each recipient.
const helperWait = 30 * time.Minute

// Helper delivers as a Store does, by way of a process that may become the users whose
// mailboxes they are: see Serve. It may be used by many goroutines.
type Helper struct {
	to     config.Transport
	key    string // that names the socket in the configuration
	socket string
	as     string // see order
}

// NewHelper returns a Helper that connects to a socket for each message. What transport
// the helper has is its own matter; to names it. Nothing is connected yet.
func NewHelper(to config.Transport, socket string) *Helper {
	return &Helper{to: to, key: "local.helper", socket: socket}
}

// Hop names the mailboxes as Store.Hop does.
func (h *Helper) Hop() string { return h.to.String() }

// Deliver has the helper write the message. Where it does not answer all recipients
// wait; those that have the message do not get it again.
func (h *Helper) Deliver(ctx context.Context, b *spool.Batch) []spool.Reply {
	replies, err := h.ask(ctx, b)
	if err == nil && len(replies) != len(b.Recipients) {
		err = fmt.Errorf("%d replies for %d recipients", len(replies), len(b.Recipients))
	}
	if err != nil {
		r := reply(fmt.Errorf("%s %s: %w: is its service running?", h.key, h.socket, err))
		replies = make([]spool.Reply, len(b.Recipients))
		for i := range replies {
			replies[i] = r
		}
		return replies
	}
	for i, r := range replies {
		replies[i] = checked(r)
	}
	return replies
}

func (h *Helper) ask(ctx context.Context, b *spool.Batch) (replies []spool.Reply, err error) {
	ctx, cancel := context.WithTimeout(ctx, helperWait)
	defer cancel()
	content, err := b.Open()
	if err != nil {
		return nil, err
	}
	defer content.Close()
	o := orderOf(b)
	o.As = h.as
	return replies, h.talk(ctx, o, content, &replies)
}

// talk sends an order with its content, and reads the answer.
func (h *Helper) talk(ctx context.Context, o order, content io.Reader, answer any) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", h.socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := writeLine(conn, o); err != nil {
		return err
	}
	if err := writeContent(conn, content); err != nil {
		return err
	}
	return readLine(bufio.NewReader(conn), answer)
}
