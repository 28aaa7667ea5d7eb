package oauth

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"postino/config"
)

const (
	// A token is refreshed when a fifth of its life is left, and at most aheadMost
	// before its end, so that a provider which is out of reach for a while delays no
	// mail; in its last margin it is not shown any more.
	aheadShare = 5
	aheadMost  = 10 * time.Minute
	marginMost = 30 * time.Second
	// refreshPause is the time between two refreshes, in vain or not: neither a provider
	// in trouble nor a relay that takes no token at all makes us hammer one.
	refreshPause = 30 * time.Second
	// vainMost is the longest time between two refreshes in vain while there is no mail.
	vainMost = time.Hour
	// keepPoll is how often the runner looks whether a token is to be refreshed.
	keepPoll = 10 * time.Second
)

// Dir is where tokens rest, in the spool directory.
const Dir = "oauth"

// ErrLogin says that a person has to log in.
var ErrLogin = errors.New("nobody has logged in")

// Store has the tokens of all accounts: one file for each in a directory, which only
// the runner's user can enter. Make it with New. Its methods may be called from many
// goroutines, and other processes may have the same directory.
type Store struct {
	// Warn, if set, is told what goes wrong while a token is still good.
	Warn func(username string, err error)

	mu       sync.Mutex
	dir      string              // guarded by mu until it is set
	accounts map[string]*account // guarded by mu
	unit     time.Duration       // see client
	limit    time.Duration       // likewise
}

// New is a Store in a directory, which is made when there is a token to keep. "" waits
// for Open.
func New(dir string) *Store {
	return &Store{dir: dir, accounts: make(map[string]*account), unit: time.Second, limit: requestTime}
}

// Open says where the directory is. Call it before any token is asked for.
func (s *Store) Open(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dir = dir
}

// account is what is known of one.
type account struct {
	turn    chan struct{} // has one element while nobody works on it
	token   Token
	stamp   stamp     // of the file that token is from
	unsaved bool      // token is newer than the file
	tried   time.Time // the last refresh
	failed  error     // what came of it; nil: a token
	vain    int       // so many in a row came to nothing
	renewed time.Time // the last refresh of a token that the relay did not take
}

func (s *Store) account(r *config.Relay) *account {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[key(r)]
	if a == nil {
		a = &account{turn: make(chan struct{}, 1)}
		a.turn <- struct{}{}
		s.accounts[key(r)] = a
	}
	return a
}

func (s *Store) client(r *config.Relay) *client {
	c := newClient(r)
	c.unit, c.limit = s.unit, s.limit
	return c
}

// Token is an access token for the account of r, refreshed if it is near its end. Of
// many callers one refreshes, and the others wait for that. While a token is good it is
// given, whatever went wrong with the next one.
func (s *Store) Token(ctx context.Context, r *config.Relay) (config.Secret, error) {
	return s.get(ctx, r, "")
}

// Renew is a token other than refused, which the relay did not take although it should
// be good.
func (s *Store) Renew(ctx context.Context, r *config.Relay, refused config.Secret) (config.Secret, error) {
	return s.get(ctx, r, refused)
}

func (s *Store) get(ctx context.Context, r *config.Relay, refused config.Secret) (config.Secret, error) {
	a := s.account(r)
	select {
	case <-a.turn:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer func() { a.turn <- struct{}{} }()
	if err := s.reload(a, r); err != nil {
		return "", explain(r, err)
	}
	now := time.Now()
	good := a.token.good(now) && a.token.Access != refused
	if good && !a.token.due(now) && !a.unsaved {
		return a.token.Access, nil
	}
	err, try := a.failed, mayAgain(a.tried, now)
	switch {
	case err != nil || good:
	case refused == "" || a.token.Access != refused:
		try = true // it has come to its end
	case mayAgain(a.renewed, now):
		a.renewed, try = now, true
	default:
		return "", explain(r, errors.New("the relay refuses a token that is new"))
	}
	if try {
		err = s.refresh(ctx, a, r, refused)
	}
	if err == nil {
		return a.token.Access, nil
	}
	err = explain(r, err)
	if !good {
		return "", err
	}
	if try && s.Warn != nil {
		s.Warn(r.Username, err)
	}
	return a.token.Access, nil
}

// mayAgain reports whether what was done at a time may be done again.
func mayAgain(at, now time.Time) bool {
	since := now.Sub(at)
	return since < 0 || since >= refreshPause
}

// good reports whether the relay should take the token.
func (t *Token) good(now time.Time) bool {
	return t.Access != "" && (t.Expires.IsZero() || now.Before(t.Expires.Add(-min(marginMost, t.life()/10))))
}

// due reports whether it is time for the next one.
func (t *Token) due(now time.Time) bool {
	return !t.Expires.IsZero() && !now.Before(t.Expires.Add(-min(aheadMost, t.life()/aheadShare)))
}

func (t *Token) life() time.Duration { return max(0, t.Expires.Sub(t.Issued)) }

// reload takes in what another process has stored.
func (s *Store) reload(a *account, r *config.Relay) error {
	if r.OAuth.Flow == config.FlowClient {
		return nil // nothing of it is stored
	}
	info, err := os.Lstat(s.path(r))
	if err == nil && stampOf(info) == a.stamp || a.unsaved {
		return nil
	}
	t, at, err := load(s.path(r))
	if at != a.stamp || err != nil {
		a.tried, a.failed, a.vain = time.Time{}, nil, 0
	}
	a.token, a.stamp = t, at
	return err
}

// refresh fetches the next token and has it stored before it is used. It goes on when
// ctx ends, within the time of one request: what a provider gives for a refresh token
// may be the only thing that it still takes.
func (s *Store) refresh(ctx context.Context, a *account, r *config.Relay, refused config.Secret) (err error) {
	ctx, cancel := inTurns(context.WithoutCancel(ctx), s.limit)
	defer cancel()
	defer func() {
		a.tried, a.failed = time.Now(), err
		if a.vain++; err == nil {
			a.vain = 0
		}
	}()
	if r.OAuth.Flow == config.FlowClient {
		t, err := s.client(r).byClient(ctx)
		if err == nil {
			a.token = t
		}
		return err
	}
	unlock, err := s.lock(ctx, r)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.reload(a, r); err != nil {
		return err
	}
	if now := time.Now(); a.token.good(now) && !a.token.due(now) && a.token.Access != refused && !a.unsaved {
		return nil // somebody else has done it
	}
	d, err := s.prepare(r)
	if err != nil {
		return err
	}
	defer d.discard()
	if !a.unsaved {
		if a.token.Refresh == "" {
			return fmt.Errorf("the provider gave nothing to refresh the token with: %w", ErrLogin)
		}
		t, err := s.client(r).refresh(ctx, a.token)
		if err != nil {
			return err
		}
		a.token, a.unsaved = t, true
	}
	a.stamp, err = s.save(d, r, a.token)
	a.unsaved = err != nil
	return err
}

// keep stores the token of a login.
func (s *Store) keep(ctx context.Context, r *config.Relay, t Token) error {
	unlock, err := s.lock(ctx, r)
	if err != nil {
		return err
	}
	defer unlock()
	d, err := s.prepare(r)
	if err != nil {
		return err
	}
	defer d.discard()
	_, err = s.save(d, r, t)
	return err
}

// Logout forgets the token of an account, and reports whether there was one. What the
// provider has of it stays until somebody takes it back there.
func (s *Store) Logout(ctx context.Context, r *config.Relay) (bool, error) {
	if _, err := os.Lstat(s.path(r)); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	unlock, err := s.lock(ctx, r)
	if err != nil {
		return false, err
	}
	defer unlock()
	err = os.Remove(s.path(r))
	return err == nil, err
}

// Stored is the token of an account as it rests, without asking anybody. It is ErrLogin
// when there is none.
func (s *Store) Stored(r *config.Relay) (Token, error) {
	t, _, err := load(s.path(r))
	return t, err
}

// Keep refreshes the tokens of accounts before they end, also while there is no mail:
// many providers forget a login that is not used. It returns when ctx ends. relays
// tells which accounts there are now.
func (s *Store) Keep(ctx context.Context, relays func() []*config.Relay) {
	tick := time.NewTicker(keepPoll)
	defer tick.Stop()
	for {
		for _, r := range relays() {
			if !s.worthAsking(r) {
				continue
			}
			if _, err := s.Token(ctx, r); err != nil && s.Warn != nil && ctx.Err() == nil {
				s.Warn(r.Username, err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// worthAsking reports whether a token of r wants to be refreshed, and whether that may
// be tried now.
func (s *Store) worthAsking(r *config.Relay) bool {
	a := s.account(r)
	select {
	case <-a.turn:
	default:
		return false // somebody is at it
	}
	defer func() { a.turn <- struct{}{} }()
	if s.reload(a, r) != nil || a.token.Access == "" {
		return false
	}
	now, wait := time.Now(), min(refreshPause<<min(a.vain, 10), vainMost)
	return now.Sub(a.tried) >= wait && (a.unsaved || a.token.due(now))
}

// explain adds to an error what the operator has to do about it.
func explain(r *config.Relay, err error) error {
	var said *Error
	switch {
	case errors.Is(err, ErrLogin):
		return fmt.Errorf("no access token for %s: %w: run %q", r.Username, err, LoginCommand(r))
	case errors.As(err, &said) && said.Code == "invalid_grant" && r.OAuth.Flow != config.FlowClient:
		return fmt.Errorf("no access token for %s, the login is no more good: run %q: %w", r.Username, LoginCommand(r), err)
	}
	return fmt.Errorf("no access token for %s: %w", r.Username, err)
}

// LoginCommand is what logs in for the account of r.
func LoginCommand(r *config.Relay) string {
	where := string(r.OAuth.Provider)
	if where == "" {
		where = r.OAuth.TokenURL
	}
	return "postino auth login " + where + " --account " + r.Username
}
