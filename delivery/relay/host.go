package relay

import (
	"fmt"
	"slices"
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

// host is one address of an exchanger, and the sessions with it. What is known of it
// is in the Memory.
type host struct {
	users int // deliveries under way; guarded by MX.mu
	key   string
	known *Memory

	mu    sync.Mutex
	lines map[string]*line // guarded by mu: its sessions, by how they are protected
}

// down reports whether the host is to be left alone, and what to answer for it.
func (h *host) down(now time.Time) (why spool.Reply, down bool) {
	h.known.with(h.key, func(k *Host) {
		if down = k.down(now); down {
			why = k.last
			why.Text = spool.CleanText(fmt.Sprintf("%s (not tried again before %s)", why.Text, k.Until.UTC().Format("15:04:05Z")))
		}
	})
	return why, down
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
	plaintext, bears := false, 0
	h.known.with(h.key, func(k *Host) { plaintext, bears = time.Now().Before(k.Plaintext), k.Connections })
	key := fmt.Sprint(plaintext, " ", t.name, " ", t.demand.key())
	l := h.lines[key]
	if l == nil {
		h.makeRoom()
		l = &line{pool: newPool(x.peer(t, plaintext), mxConnections, mxMessages, config.Rate{})}
		l.remember(bears)
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

// note learns from what came of a delivery over l. Whatever a server says to mail is no
// reason to leave it alone; that there is no session is, unless there would be one for
// somebody who demands less.
func (h *host) note(t target, l *line, reply spool.Reply, now time.Time, retry config.Retry) {
	noTLS := reply.Code == 0 && (reply.Command == "TLS" || reply.Command == "STARTTLS")
	if noTLS && t.demand.by != "" {
		return
	}
	bears := l.bears()
	h.known.with(h.key, func(k *Host) {
		k.Name, k.MX, k.Connections = l.peer.where(), true, bears
		k.answered = k.answered || noTLS || reply.Code != 0
		if noTLS && reply.Command == "TLS" {
			// It offers what it cannot do. Where TLS may be done without, it will be.
			k.Plaintext, k.Seen = now.Add(tlsMemory), now
			k.Failed, k.Error = now, reply.String()
			return
		}
		k.note(reply, now, retry)
	})
}

// note learns from the first reply of a delivery whether there was a session.
func (h *Host) note(reply spool.Reply, now time.Time, retry config.Retry) {
	h.Seen = now
	if reply.Class() == spool.Success {
		h.Succeeded = now
	}
	if slices.Contains([]string{"STARTTLS", "TLS", "AUTH"}, reply.Command) {
		h.Failed, h.Error = now, reply.String()
	}
	if reply.Host != "" && reply.Command != "greeting" && reply.Command != "EHLO" {
		h.Failures, h.Until = 0, time.Time{}
		return
	}
	h.Failures++
	h.Failed, h.Error, h.last = now, reply.String(), reply
	if h.Failures >= failuresToOpen {
		pause := time.Duration(retry.First) / firstShare << min(h.Failures-failuresToOpen, 10)
		h.Until = now.Add(min(pause, time.Duration(retry.Max)/lastShare))
	}
}

// bears is how many sessions the peer bears at a time; 0 is as many as may be.
func (p *pool) bears() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.allowed == p.most {
		return 0
	}
	return p.allowed
}

// remember begins with as many sessions as the peer was known to bear.
func (p *pool) remember(bears int) {
	if bears > 0 && bears < p.most {
		p.allowed = bears
	}
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
