package oauth

import (
	"context"
	"errors"
	"net"
	"strconv"
	"time"

	"postino/config"
)

// The values of State.Login.
const (
	LoginOK      = "ok"
	LoginExpired = "expired" // the token has ended, and was not refreshed
	LoginMissing = "missing"
	LoginDamaged = "damaged" // the file of the token is
	LoginNone    = "none"    // nobody has to log in
)

// State is an account and whether somebody is logged in, as `postino auth status --json`
// shows it. Times are UTC.
type State struct {
	Account  string `json:"account"`
	Provider string `json:"provider"` // its name, or the address of its token endpoint
	Flow     string `json:"flow"`
	Hop      string `json:"hop"`
	Login    string `json:"login"`
	// Refreshed is when the token was given, and Expires its end; zero is not known.
	Refreshed  time.Time `json:"refreshed,omitzero"`
	Expires    time.Time `json:"expires,omitzero"`
	Refreshing bool      `json:"refreshing"` // it can be refreshed
	// Problem is why the last refresh came to nothing, which a runner knows.
	Problem string `json:"problem,omitempty"`
	Remedy  string `json:"remedy,omitempty"`
}

// Good reports whether mail can go.
func (s *State) Good() bool { return s.Login == LoginOK || s.Login == LoginNone }

// stateWait is how long a refresh that is under way is waited for: it may have changed
// the token when it is over, and whoever asks waits for an answer.
const stateWait = time.Second

// State says how it stands with the account of r, without asking the provider: what the
// store would use now, and, while a refresh takes long, what is in the file.
func (s *Store) State(ctx context.Context, r *config.Relay, now time.Time) (State, error) {
	st := State{Account: r.Username, Provider: string(r.OAuth.Provider), Flow: string(r.OAuth.Flow), Login: LoginNone,
		Hop: "relay " + net.JoinHostPort(r.Host[0], strconv.Itoa(r.Port))}
	if st.Provider == "" {
		st.Provider = r.OAuth.TokenURL
	}
	t, failed, err := s.now(ctx, r)
	if failed != nil {
		st.Problem = failed.Error()
	}
	client := r.OAuth.Flow == config.FlowClient
	switch {
	case client:
	case err == ErrLogin:
		st.Login = LoginMissing
	case errors.Is(err, ErrLogin):
		st.Login = LoginDamaged
	case err != nil:
		return st, err
	default:
		st.Login, st.Refreshing = LoginOK, t.Refresh != ""
	}
	if t.Access != "" {
		st.Refreshed, st.Expires = t.Issued.UTC(), t.Expires.UTC()
		if !client && !t.Expires.IsZero() && now.After(t.Expires) {
			st.Login = LoginExpired
		}
	}
	if !st.Good() {
		st.Remedy = LoginCommand(r)
	}
	return st, nil
}

// now is the token that is in use, and what came of the last refresh.
func (s *Store) now(ctx context.Context, r *config.Relay) (t Token, failed, err error) {
	a := s.account(r)
	if !a.take(ctx, stateWait) {
		if r.OAuth.Flow == config.FlowClient {
			return Token{}, nil, nil
		}
		t, err = s.Stored(r)
		return t, nil, err
	}
	defer func() { a.turn <- struct{}{} }()
	if err := s.reload(a, r); err != nil {
		return Token{}, nil, err
	}
	if a.token.Access == "" && r.OAuth.Flow != config.FlowClient {
		t, err = s.Stored(r) // says what is wrong with the file
		return t, nil, err
	}
	return a.token, a.failed, nil
}

// take takes the account's turn, waiting for it so long at most, and reports whether it
// has it. A turn that is there is taken.
func (a *account) take(ctx context.Context, wait time.Duration) bool {
	select {
	case <-a.turn:
		return true
	default:
	}
	select {
	case <-a.turn:
		return true
	case <-time.After(wait):
	case <-ctx.Done():
	}
	return false
}
