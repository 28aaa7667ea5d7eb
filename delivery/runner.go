package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"postino/config"
	"postino/delivery/oauth"
	"postino/delivery/relay"
	"postino/delivery/tlspolicy"
	"postino/spool"
	"postino/spool/address"
	"postino/spool/warnings"
)

const (
	// stopGrace is how long attempts under way may go on after a stop. It passes in
	// turns, of which a machine that stands still takes one: what a relay said meanwhile
	// is still to be read, or the message would be sent again.
	stopGrace = 25 * time.Second
	stopTurns = 25
	// lookAnyway is how long the runner sleeps at most: clocks jump and machines
	// are suspended, and no timer tells.
	lookAnyway = time.Minute
	// trimInterval is how often history and old submission IDs are trimmed.
	trimInterval = time.Hour
	// refreshInterval is how often policies are looked at that may want to be fetched
	// again.
	refreshInterval = time.Hour
	// refreshTime is how long that may take, so that a plan can be retired.
	refreshTime = 10 * time.Minute
	// policyDir is where they rest, in the spool directory.
	policyDir = "policies"
)

// Runner attempts what is due in a spool. Make it with New, open the spool with
// its Queued, give that to Run.
type Runner struct {
	log      *slog.Logger
	often    *warnings.Log // what a full disk says of many messages
	queue    *queue
	gates    gates
	breakers breakers     // they outlive a plan
	known    relay.Memory // likewise
	network  network
	policies *tlspolicy.Store
	tokens   *oauth.Store
	alive    chan struct{} // unbuffered: who sends is met by the loop of Run
	grace    time.Duration // see stopGrace

	notices notices

	failed  atomic.Int64  // octets of content in the failed list, about
	tooMuch chan struct{} // a nudge: that is more than it may be

	heeding sync.Mutex // held while the queue is told who is suspended

	mu   sync.Mutex
	plan *plan // guarded by mu
}

// New returns a Runner with that configuration.
func New(c *config.Config, log *slog.Logger) (*Runner, error) {
	r := &Runner{log: log, often: warnings.New(log), queue: newQueue(), policies: new(tlspolicy.Store), tokens: oauth.New(""), alive: make(chan struct{}), grace: stopGrace, tooMuch: make(chan struct{}, 1), breakers: breakers{log: log}, network: network{log: log}}
	r.policies.Warn = func(domain string, err error) { log.Warn("policy", "domain", domain, "err", err) }
	r.tokens.Warn = func(username string, err error) {
		log.Warn("access token not refreshed", "username", username, "err", err)
	}
	return r, r.SetConfig(c)
}

// SetConfig has later attempts use another configuration, and makes deferred mail
// due: it may be what was wrong. The error means that the one in use stays.
func (r *Runner) SetConfig(c *config.Config) error {
	p, err := newPlan(c, r.policies, r.tokens, &r.known)
	if err != nil {
		return err
	}
	r.mu.Lock()
	old := r.plan
	r.plan = p
	r.mu.Unlock()
	r.breakers.reset(c.Retry)
	if old != nil {
		go old.retire()
		r.known.Forgive()
		r.queue.retry()
	}
	return nil
}

// retire closes what a plan has open once the last attempt is done with it.
func (p *plan) retire() {
	p.users.Wait()
	p.close()
}

// use returns the plan and keeps it from being retired until users.Done.
func (r *Runner) use() *plan {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.plan.users.Add(1)
	return r.plan
}

// limit is how many attempts may run now.
func (r *Runner) limit() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.plan.config.Mode == config.Hold {
		return 0
	}
	return r.plan.limit()
}

// Queued schedules a message; it is what spool.Options.Queued wants.
func (r *Runner) Queued(m *spool.Message) { r.queue.add(m.Entry()) }

// Attempting reports whether an attempt for a message is under way. For one that is
// held and not attempted none begins.
func (r *Runner) Attempting(id spool.ID) bool { return r.queue.attempting(id) }

// Retry makes all deferred mail due at once, and hosts that were down worth a try.
// What is held stays so.
func (r *Runner) Retry() {
	r.Doubt()
	r.queue.retry()
}

// Destination is where mail for a recipient goes now.
type Destination struct {
	Address address.Address
	Hop     string // as attempts and logs name it
	// TLS is what connections to mail exchangers must come to, Problem why nothing can be
	// sent to any, in words; both are empty for all other hops.
	TLS, Problem string
}

// demandTime is how long Route looks for what a domain demands of TLS.
const demandTime = 5 * time.Second

// Route says where mail for an address would go now: the address completed, or what
// it stands for in the end if it is an alias.
func (r *Runner) Route(ctx context.Context, a address.Address) []Destination {
	p := r.use()
	defer p.users.Done()
	list := p.destinations(a)
	ctx, cancel := context.WithTimeout(ctx, demandTime)
	defer cancel()
	for i, d := range list {
		if to, hop := p.route(address.Address{}, d.Address); hop == d.Hop && to.demands != nil {
			list[i].TLS, list[i].Problem = to.demands(ctx, d.Address.Domain)
		}
	}
	return list
}

// Hop is the next hop for a recipient of mail from a sender now, as Route tells it.
func (r *Runner) Hop(sender, recipient address.Address) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch r.plan.config.Mode {
	case config.Hold:
		return holdHop
	case config.Redirect:
		_, hop := r.plan.route(sender, r.plan.target)
		return hop
	}
	_, hop := r.plan.way(sender, &spool.Recipient{Address: recipient})
	return hop
}

// holdHop is what stands for a next hop where nothing is sent.
const holdHop = "held: mode = \"hold\""

// Pending is how many messages the runner is going to attempt; 0 while the mode
// is hold, since it then attempts nothing.
func (r *Runner) Pending() int {
	if r.limit() == 0 {
		return 0
	}
	return r.queue.size()
}

// Run attempts what is due until ctx ends or the spool fences itself; attempts
// under way then have stopGrace to end. The error is spool.ErrFenced or nil.
func (r *Runner) Run(ctx context.Context, s *spool.Spool) error {
	// Attempts outlive ctx, but not by much.
	work, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	if err := r.policies.Open(filepath.Join(s.Dir(), policyDir)); err != nil {
		r.log.Error("policies not readable", "err", err)
	}
	r.tokens.Open(filepath.Join(s.Dir(), oauth.Dir))
	if err := r.known.Load(filepath.Join(s.Dir(), HostsFile)); err != nil {
		r.log.Warn("what was known of hosts is lost", "err", err)
	}
	// What goes on beside the attempts ends with them, a fenced spool included.
	beside, end := context.WithCancel(ctx)
	defer end()
	var background sync.WaitGroup
	background.Go(func() { r.trim(beside, s) })
	background.Go(func() { r.refresh(beside) })
	background.Go(func() { r.tokens.Keep(beside, r.accounts) })
	background.Go(func() { r.remember(beside, s) })
	background.Go(func() { r.watchNetwork(beside) })
	finished := make(chan job)
	running, heavy := 0, 0
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		wait := lookAnyway
		for limit := r.limit(); running < limit; {
			if !s.CanRecord() {
				// An attempt whose outcome is lost is made again, and the message arrives
				// twice: wait for room.
				wait = recordAgain
				break
			}
			j, idle, ok := r.queue.take(time.Now(), reserved(limit, heavy), lookAnyway)
			if !ok {
				wait = idle
				break
			}
			running++
			if j.heavy() {
				heavy++
			}
			go func() {
				defer func() { finished <- j }()
				out := r.attempt(work, s, j)
				if out.busy == "" || !r.gates.putAside(out.busy, j) {
					r.queue.done(j, out.m, out.shut)
				}
			}()
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-s.Fenced():
			abort() // what they do cannot be recorded any more
			drain(finished, running)
			end()
			background.Wait()
			return s.FencedBy()
		case j := <-finished:
			running--
			if j.heavy() {
				heavy--
			}
		case <-r.queue.changed:
		case <-timer.C:
		case <-r.alive:
		}
	}
	over := make(chan struct{})
	go func() {
		if r.graceEnds(over) {
			abort()
		}
	}()
	drain(finished, running)
	close(over)
	background.Wait()
	return s.FencedBy() // it may have happened meanwhile
}

// graceEnds returns after the grace of a stop, with true, or when all is over.
func (r *Runner) graceEnds(over <-chan struct{}) bool {
	turn := time.NewTicker(r.grace / stopTurns)
	defer turn.Stop()
	for range stopTurns {
		select {
		case <-turn.C:
		case <-over:
			return false
		}
	}
	return true
}

// Alive returns once the loop of Run has come round. The error is ctx's.
func (r *Runner) Alive(ctx context.Context) error {
	select {
	case r.alive <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reserved reports whether the next attempt must be one of ordinary mail: of several
// at a time a quarter is kept for what goes fast, that may come at any moment.
func reserved(limit, heavy int) bool { return limit > 1 && heavy >= limit-max(1, limit/4) }

func drain(finished <-chan job, running int) {
	for ; running > 0; running-- {
		<-finished
	}
}

// Close closes what the configuration in use has open. Run must have returned.
func (r *Runner) Close() {
	r.mu.Lock()
	p := r.plan
	r.mu.Unlock()
	p.retire()
}

// refresh fetches policies of domains again before they are needed.
func (r *Runner) refresh(ctx context.Context) {
	tick := time.NewTicker(refreshInterval)
	defer tick.Stop()
	for {
		p := r.use()
		short, cancel := context.WithTimeout(ctx, refreshTime)
		p.refresh(short)
		cancel()
		p.users.Done()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// accounts are the relays that access tokens are fetched for.
func (r *Runner) accounts() []*config.Relay {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.plan.config.Accounts()
}

// Login is an account that access tokens are fetched for, and how it stands with it.
type Login = oauth.State

// Logins are those of the configuration in use, as far as the first of which that cannot
// be found out.
func (r *Runner) Logins(ctx context.Context) ([]Login, error) {
	var list []Login
	for _, account := range r.accounts() {
		l, err := r.tokens.State(ctx, account, time.Now())
		if err != nil {
			return list, err
		}
		list = append(list, l)
	}
	return list, nil
}

// trim keeps history and submission IDs within their limits.
func (r *Runner) trim(ctx context.Context, s *spool.Spool) {
	tick := time.NewTicker(trimInterval)
	defer tick.Stop()
	for {
		if err := r.trimOnce(ctx, s); err != nil {
			r.log.Error("history not trimmed", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.Fenced():
			return
		case <-tick.C:
		case <-r.tooMuch:
		}
	}
}

func (r *Runner) trimOnce(ctx context.Context, s *spool.Spool) error {
	r.mu.Lock()
	keep := r.plan.config.History
	r.mu.Unlock()
	now := time.Now()
	n, err := s.TrimHistory(now.Add(-time.Duration(keep.Keep)), int64(keep.MaxSize))
	if err != nil {
		return err
	}
	if n > 0 {
		r.log.Info("trimmed", "messages", n)
	}
	if err := r.trimFailed(s, keep, now); err != nil {
		return fmt.Errorf("failed list: %w", err)
	}
	for more := true; more && ctx.Err() == nil; {
		if more, err = s.SweepSubmissions(now); err != nil {
			return fmt.Errorf("submission IDs: %w", err)
		}
	}
	return nil
}
