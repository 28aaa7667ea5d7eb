package relay

import (
	"context"
	"net"
	"strconv"

	"postino/config"
	"postino/spool"
)

const (
	// lmtpConnections is how many connections a mail store gets at a time, and
	// lmtpMessages how many messages one of them carries at most.
	lmtpConnections = 4
	lmtpMessages    = 100
)

// LMTP delivers to a mail store that speaks LMTP (RFC 2033), on this machine or in a
// network that is trusted: there is no TLS. It is made by NewLMTP and may be used by
// many goroutines.
type LMTP struct {
	hop  string
	pool *pool
}

// NewLMTP returns an LMTP for the socket, or the host and port, of t. It calls itself
// hostname in LHLO. Nothing is connected yet.
func NewLMTP(t config.Transport, timeouts config.Timeouts, hostname string) *LMTP {
	p := &peer{
		network: "tcp", address: net.JoinHostPort(t.Host, strconv.Itoa(t.Port)), host: t.Host,
		lmtp: true, policy: config.NoTLS, hello: hostname, time: timeouts,
	}
	if t.Path != "" {
		p.network, p.address, p.host = "unix", t.Path, t.Path
	}
	return &LMTP{hop: t.String(), pool: newPool(p, lmtpConnections, lmtpMessages, config.Rate{})}
}

// Hop names the store as attempts and logs do: "lmtp:/run/dovecot/lmtp".
func (l *LMTP) Hop() string { return l.hop }

// Room is Relay.Room.
func (l *LMTP) Room() int { return l.pool.room() }

// Deliver is Relay.Deliver; each recipient has a Reply of its own to the content.
func (l *LMTP) Deliver(ctx context.Context, b *spool.Batch) []spool.Reply {
	replies := make([]spool.Reply, len(b.Recipients))
	if to := valid(b, replies); len(to) > 0 {
		l.pool.deliver(ctx, b, replies, to)
	}
	if ctx.Err() == nil {
		faults := storeFaults()
		for i, r := range replies {
			replies[i] = blame(faults, r)
		}
	}
	return replies
}

// storeFaults are what is nothing about the mail: that the store cannot be reached.
func storeFaults() []config.Fault {
	return []config.Fault{{Command: []string{"connect"}, Code: []int{0}, Kind: string(spool.FaultNetwork),
		Remedy: "see that the mail store runs, and listens where the configuration says"}}
}

// Close is Relay.Close.
func (l *LMTP) Close() { l.pool.close() }
