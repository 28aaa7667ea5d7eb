package dns

import (
	"bufio"
	"os"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxKept is how many answers are kept: those for the exchangers of a campaign to
	// some thousand domains. An answer has at most 64 KiB and mostly some hundred octets.
	maxKept = 10_000
	// maxTTL is how long an answer is kept at most, whatever it says of itself, and
	// nothingTTL how long it is kept that there is nothing.
	maxTTL     = time.Hour
	nothingTTL = 30 * time.Second
	// maxConf bounds what is read of resolv.conf, in octets.
	maxConf = 64 << 10
)

type question struct {
	name  string
	qtype uint16
}

type kept struct {
	answer reply
	until  time.Time
}

// cache keeps answers for as long as they may be kept. What was no answer is not.
type cache struct {
	mu      sync.Mutex
	answers map[question]kept // guarded by mu
}

func (c *cache) get(q question, now time.Time) (reply, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.answers[q]
	return k.answer, ok && now.Before(k.until)
}

func (c *cache) put(q question, answer reply, now time.Time) {
	ttl := lifetime(answer.Msg)
	if ttl <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answers == nil {
		c.answers = make(map[question]kept)
	}
	if len(c.answers) >= maxKept {
		c.drop(now)
	}
	c.answers[q] = kept{answer, now.Add(ttl)}
}

func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers = nil
}

// drop makes room: what is over goes, and where nothing is, any tenth.
func (c *cache) drop(now time.Time) {
	for q, k := range c.answers {
		if !now.Before(k.until) {
			delete(c.answers, q)
		}
	}
	for q := range c.answers {
		if len(c.answers) <= maxKept*9/10 {
			break
		}
		delete(c.answers, q)
	}
}

// lifetime is how long an answer may be kept: the shortest TTL in it.
func lifetime(m *dns.Msg) time.Duration {
	ttl := maxTTL
	if len(m.Answer) == 0 {
		ttl = nothingTTL
	}
	for _, rrs := range [][]dns.RR{m.Answer, m.Ns} {
		for _, rr := range rrs {
			ttl = min(ttl, time.Duration(rr.Header().Ttl)*time.Second)
		}
	}
	return ttl
}

// trustsAD reports whether resolv.conf(5) has the option trust-ad.
func trustsAD(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 0; n < maxConf && lines.Scan(); n += len(lines.Bytes()) + 1 {
		if hasWord(lines.Text(), "trust-ad") {
			return true
		}
	}
	return false
}
