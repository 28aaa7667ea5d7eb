package tlspolicy

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"postino/delivery/dns"
)

const (
	// fetchPause is how long a policy host that did not serve a policy is left alone.
	// Meanwhile the policy that was there holds on, or there is none (RFC 8461 §3.3).
	fetchPause = 5 * time.Minute
	// freshTime is how long a policy is not asked for again while its ID stays; at
	// most half of what it holds, so that somebody who keeps us from its host has to
	// do so for long (RFC 8461 §10.2).
	freshTime = 24 * time.Hour
	// unusedTime is how long a policy is fetched again without any mail for the
	// domain.
	unusedTime = 90 * 24 * time.Hour
	// tellPause is how often one domain's policy in testing is said to have failed.
	tellPause = time.Hour
	// maxKept is how many policies are kept. Most have some hundred octets, none more
	// than 64 KiB.
	maxKept = 2000
)

// Store keeps MTA-STS policies, from one run to the next where Open was called. It
// may be used by several goroutines. The zero value keeps them in memory.
type Store struct {
	// Warn, where it is not nil, is told what an administrator may want to know: a
	// policy that cannot be had, or not be kept. Set before first use.
	Warn func(domain string, err error)

	fetcher fetcher
	dir     string // empty: in memory alone

	mu       sync.Mutex
	policies map[string]*kept // guarded by mu: by domain, as A-labels in lower case
}

// kept is what is known of one domain.
type kept struct {
	domain string
	turn   chan struct{} // held, by its one element, while all below is used

	id      string // of the record that led to it
	policy  Policy
	fetched time.Time // zero: never, there is no policy
	used    time.Time // when mail last asked for it
	failed  time.Time // when it was last asked for in vain
	told    time.Time // when Tell last told
}

// valid reports whether there is a policy that holds.
func (k *kept) valid(now time.Time) bool {
	return !k.fetched.IsZero() && now.Before(k.fetched.Add(k.policy.MaxAge))
}

// wanted reports whether the policy is to be fetched: id is what the record says,
// empty where there is none.
func (k *kept) wanted(id string, now time.Time) bool {
	switch {
	case now.Before(k.failed.Add(fetchPause)):
		return false
	case !k.valid(now):
		return id != ""
	}
	return id != "" && id != k.id || !now.Before(k.fetched.Add(min(freshTime, k.policy.MaxAge/2)))
}

// Find returns the policy that holds for a domain, given as A-labels; the zero Policy
// where it has none. A policy that was had once holds until it is over, whatever the
// DNS and the policy host say or fail to say (RFC 8461 §5.1). May says to which
// addresses the names of strangers may have us connect. The error is that of ctx,
// where it ends before that is known.
func (s *Store) Find(ctx context.Context, r *dns.Resolver, may func(netip.Addr) bool, domain string) (Policy, error) {
	if !domainName(domain) {
		return Policy{}, nil
	}
	id := ""
	if answer, err := r.TXT(ctx, "_mta-sts."+domain); err == nil {
		id, _ = parseRecord(answer.Records) // why there is none is for its owner to find out
	}
	k := s.known(domain, id != "")
	if k == nil || !k.enter(ctx) {
		return Policy{}, ctx.Err()
	}
	defer k.leave()
	now := time.Now()
	k.used = now
	if k.wanted(id, now) {
		s.fetch(ctx, r, may, k, id)
	}
	if !k.valid(now) {
		return Policy{}, ctx.Err()
	}
	return k.policy, nil
}

// fetch gets the policy anew. Where it cannot be had all stays as it is.
func (s *Store) fetch(ctx context.Context, r *dns.Resolver, may func(netip.Addr) bool, k *kept, id string) {
	p, err := s.fetcher.fetch(ctx, r, may, k.domain)
	if ctx.Err() != nil {
		return // that says nothing about the host
	}
	now := time.Now()
	if err != nil {
		k.failed = now
		if k.valid(now) {
			err = fmt.Errorf("the one of %s holds on: %w", k.fetched.UTC().Format(time.DateOnly), err)
		}
		s.warn(k.domain, fmt.Errorf("no MTA-STS policy: %w", err))
		return
	}
	k.policy, k.fetched, k.failed = p, now, time.Time{}
	if id != "" {
		k.id = id
	}
	if err := s.save(k); err != nil {
		s.warn(k.domain, fmt.Errorf("MTA-STS policy not kept: %w", err))
	}
}

// Tell has Warn told that mail to a domain went where its policy, were it enforced,
// would have kept it from going (RFC 8461 §5): once an hour at most.
func (s *Store) Tell(ctx context.Context, domain string, err error) {
	k := s.known(domain, false)
	if k == nil || !k.enter(ctx) {
		return
	}
	defer k.leave()
	if now := time.Now(); !now.Before(k.told.Add(tellPause)) {
		k.told = now
		s.warn(domain, fmt.Errorf("MTA-STS policy in testing: %w", err))
	}
}

func (s *Store) warn(domain string, err error) {
	if s.Warn != nil {
		s.Warn(domain, err)
	}
}

// Refresh fetches what is not fresh any more of domains that mail was sent to lately,
// so that a policy is there still when it is needed (RFC 8461 §10.2).
func (s *Store) Refresh(ctx context.Context, r *dns.Resolver, may func(netip.Addr) bool) {
	s.mu.Lock()
	var list []*kept
	for _, k := range s.policies {
		list = append(list, k)
	}
	s.mu.Unlock()
	for _, k := range list {
		if ctx.Err() != nil || !k.enter(ctx) {
			return
		}
		if now := time.Now(); k.valid(now) && k.wanted("", now) && now.Before(k.used.Add(unusedTime)) {
			s.fetch(ctx, r, may, k, "")
		}
		k.leave()
	}
}

// enter waits for others to be done with k, and reports whether they are before ctx
// ends.
func (k *kept) enter(ctx context.Context) bool {
	select {
	case k.turn <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (k *kept) leave() { <-k.turn }

// known is what is known of a domain; nil if nothing is, unless it is to be begun.
func (s *Store) known(domain string, begin bool) *kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.policies[domain]
	if k == nil && begin {
		k = newKept(domain)
		s.put(k)
	}
	return k
}

func newKept(domain string) *kept { return &kept{domain: domain, turn: make(chan struct{}, 1)} }

// put adds k, and makes room for it. Called with mu held.
func (s *Store) put(k *kept) {
	if s.policies == nil {
		s.policies = make(map[string]*kept)
	}
	if len(s.policies) >= maxKept {
		s.makeRoom()
	}
	s.policies[k.domain] = k
}

// makeRoom forgets what holds no more or, where all does, what was not used for the
// longest time. What is in use stays. Called with mu held.
func (s *Store) makeRoom() {
	now := time.Now()
	var oldest *kept
	for _, k := range s.policies {
		select {
		case k.turn <- struct{}{}:
		default:
			continue
		}
		if !k.valid(now) {
			s.drop(k)
		} else if oldest == nil || k.used.Before(oldest.used) {
			k, oldest = oldest, k
		}
		if k != nil {
			k.leave()
		}
	}
	if oldest == nil {
		return
	}
	defer oldest.leave()
	if len(s.policies) >= maxKept {
		s.drop(oldest)
	}
}

func (s *Store) drop(k *kept) {
	delete(s.policies, k.domain)
	s.remove(k)
}
