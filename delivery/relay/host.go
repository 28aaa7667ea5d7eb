package relay

import (
	"fmt"
	"sync"
	"time"

	"postino/config"
	"postino/spool"
)

const (
	// An exchanger is taken to be down after failuresToOpen attempts in a row that did
	// not come to a session. It is then left alone, so that new mail does not hammer it,
	// nor wait for its time-out: first for a firstShare of retry.first, by default a
	// minute, and at most for a lastShare of retry.max, an hour, so that what is due
	// again finds out how the host is.
	failuresToOpen = 2
	firstShare     = 5
	lastShare      = 4
	// tlsMemory is how long an exchanger whose TLS is broken gets mail in plaintext.
	tlsMemory = 24 * time.Hour
)

// host is what is known of one address of an exchanger.
type host struct {
	target target
	users  int // deliveries under way; guarded by MX.mu

	mu         sync.Mutex
	clear, tls *pool       // guarded by mu: its sessions without TLS, and the others
	failures   int         // guarded by mu: in a row
	until      time.Time   // guarded by mu: when it is worth a try again
	last       spool.Reply // guarded by mu: why
	plaintext  time.Time   // guarded by mu: until when its TLS is taken to be broken
}

// down reports whether the host is to be left alone, and what to answer for it.
func (h *host) down(now time.Time) (spool.Reply, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !now.Before(h.until) {
		return spool.Reply{}, false
	}
	why := h.last
	why.Text = spool.CleanText(fmt.Sprintf("%s (not tried again before %s)", why.Text, h.until.UTC().Format("15:04:05Z")))
	return why, true
}

// pool is where to send now.
func (h *host) pool(x *MX) *pool {
	h.mu.Lock()
	defer h.mu.Unlock()
	p, plaintext := &h.tls, time.Now().Before(h.plaintext)
	if plaintext {
		p = &h.clear
	}
	if *p == nil {
		*p = newPool(x.peer(h.target, plaintext), mxConnections, mxMessages, config.Rate{})
	}
	return *p
}

// note learns from what came of a delivery. Whatever a server says to mail is no
// reason to leave it alone; that there is no session is.
func (h *host) note(reply spool.Reply, answered bool, now time.Time, retry config.Retry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if reply.Code == 0 && reply.Command == "TLS" {
		// It offers what it cannot do. Where TLS may be done without, it will be.
		h.plaintext = now.Add(tlsMemory)
		return
	}
	if answered && reply.Command != "greeting" && reply.Command != "EHLO" {
		h.failures, h.until = 0, time.Time{}
		return
	}
	h.failures++
	h.last = reply
	if h.failures >= failuresToOpen {
		pause := time.Duration(retry.First) / firstShare << min(h.failures-failuresToOpen, 10)
		h.until = now.Add(min(pause, time.Duration(retry.Max)/lastShare))
	}
}

func (h *host) forgive() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failures, h.until = 0, time.Time{}
}

// well reports whether there is nothing to remember.
func (h *host) well() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failures == 0 && h.plaintext.IsZero()
}

func (h *host) close() {
	h.mu.Lock()
	pools := []*pool{h.clear, h.tls}
	h.mu.Unlock()
	for _, p := range pools {
		if p != nil {
			p.close()
		}
	}
}
