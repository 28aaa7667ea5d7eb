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
	// maxLines is how many kinds of sessions a host has before those that nobody uses
	// are closed: names and demands that lead to one address.
	maxLines = 8
)

// host is what is known of one address of an exchanger.
type host struct {
	users int // deliveries under way; guarded by MX.mu

	mu        sync.Mutex
	lines     map[string]*line // guarded by mu: its sessions, by how they are protected
	failures  int              // guarded by mu: in a row
	until     time.Time        // guarded by mu: when it is worth a try again
	last      spool.Reply      // guarded by mu: why
	plaintext time.Time        // guarded by mu: until when its TLS is taken to be broken
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

// line is the sessions of a host that are protected in the same way.
type line struct {
	*pool
	users int // deliveries under way; guarded by host.mu
}

// line is where to send now, as a target wants it, in use until hang.
func (h *host) line(x *MX, t target) *line {
	h.mu.Lock()
	defer h.mu.Unlock()
	plaintext := time.Now().Before(h.plaintext)
	key := fmt.Sprint(plaintext, " ", t.name, " ", t.demand.key())
	l := h.lines[key]
	if l == nil {
		h.makeRoom()
		l = &line{pool: newPool(x.peer(t, plaintext), mxConnections, mxMessages, config.Rate{})}
		if h.lines == nil {
			h.lines = make(map[string]*line)
		}
		h.lines[key] = l
	}
	l.users++
	return l
}

func (h *host) hang(l *line) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l.users--
}

// makeRoom closes lines that nobody uses when there are many. Called with mu held.
func (h *host) makeRoom() {
	for key, l := range h.lines {
		if len(h.lines) >= maxLines && l.users == 0 {
			go l.close() // idle connections end by QUIT
			delete(h.lines, key)
		}
	}
}

// note learns from what came of a delivery. Whatever a server says to mail is no
// reason to leave it alone; that there is no session is, unless there would be one for
// somebody who demands less.
func (h *host) note(t target, reply spool.Reply, answered bool, now time.Time, retry config.Retry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if reply.Code == 0 && (reply.Command == "TLS" || reply.Command == "STARTTLS") && t.demand.by != "" {
		return
	}
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
	lines := h.lines
	h.lines = nil
	h.mu.Unlock()
	for _, l := range lines {
		l.close()
	}
}
