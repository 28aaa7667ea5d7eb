package delivery

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"postino/spool"
)

// networkPoll is how often it is looked for a network while there is none: mail is to go
// within seconds of its return, and a look costs some system calls.
const networkPoll = 2 * time.Second

// network is whether this machine has one. Without one an attempt is none: a laptop may
// be offline for days, and nothing is known of its mail then but that it waits.
type network struct {
	log *slog.Logger

	mu     sync.Mutex
	lostAt time.Time // guarded by mu: when an attempt found out; zero is not
}

// since says since when there is no network, as far as is known.
func (n *network) since() (at time.Time, down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lostAt, !n.lostAt.IsZero()
}

func (n *network) isDown() bool {
	_, down := n.since()
	return down
}

// doubt has the next attempt find out anew.
func (n *network) doubt() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lostAt = time.Time{}
}

// lost takes in the replies of an attempt by a way that needs a network, and reports
// whether they say no more than that there is none.
func (n *network) lost(replies []spool.Reply) bool {
	for _, r := range replies {
		if r.Class() != spool.Temporary || r.Code != 0 || r.Host != "" || r.Command != "connect" && r.Command != "dns" {
			return false
		}
	}
	if online() {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lostAt.IsZero() {
		n.lostAt = time.Now()
		n.log.Warn("no network: mail waits, and goes when it is back")
	}
	return true
}

// back reports whether a network that was lost is there again.
func (n *network) back() bool {
	if !n.isDown() || !online() {
		return false
	}
	n.doubt()
	n.log.Warn("the network is back")
	return true
}

// online reports whether an interface other than the loopback is up and has an address
// that others may be reached from. Where that cannot be found out it has.
func online() bool {
	list, err := net.Interfaces()
	if err != nil {
		return true
	}
	for _, i := range list {
		if i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagUp == 0 || i.Flags&net.FlagRunning == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return true
		}
		for _, a := range addrs {
			if ip, ok := a.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() {
				return true
			}
		}
	}
	return false
}

// watchNetwork has mail that waits for a network go when there is one again.
func (r *Runner) watchNetwork(ctx context.Context) {
	tick := time.NewTicker(networkPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if r.network.back() {
			r.Doubt()
			r.queue.wake()
		}
	}
}
