// Package oauth comes by access tokens of OAuth 2.0 (RFC 6749), which say to a relay
// who we are instead of a password. The flows are in login.go; tokens rest, and are
// refreshed, in store.go and file.go.
//
// There are libraries for it. Here it is less than what would have to be built around
// them: nothing of an answer may get into an error, a login must outlive a lost
// connection (RFC 8628 §3.5), a refresh token must not be tried in two ways, since to
// use one twice gives it away as stolen, and all of it needs a deadline.
package oauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"postino/config"
	"postino/delivery/socks"
)

const (
	// maxAnswer bounds what an endpoint may answer, in octets: tokens have a few KiB.
	maxAnswer = 64 << 10
	// maxHeader bounds the header of an answer, in octets.
	maxHeader = 16 << 10
	// maxToken bounds one token, in octets. A server has to take it in one line.
	maxToken = 16 << 10
	// maxText bounds the words of a provider that we repeat, in octets.
	maxText = 300
	// requestTime bounds one request, from connecting to the last octet. Attempts under
	// way have 25 s when the runner ends. It passes in turns (see inTurns).
	requestTime  = 20 * time.Second
	requestTurns = 20
	// maxLifetime is as long as we believe any token to last.
	maxLifetime = 90 * 24 * time.Hour
)

// Token is what a provider gave.
type Token struct {
	// Access is shown to the relay. It has printable ASCII alone.
	Access config.Secret
	// Refresh fetches the next one (RFC 6749 §6); empty of client credentials.
	Refresh config.Secret
	// Issued is when we got Access; Expires, when it ends, or zero if nobody knows.
	Issued, Expires time.Time
}

// Error is what an endpoint said instead of giving a token.
type Error struct {
	Endpoint string // its address
	Code     string // as in RFC 6749 §5.2 and RFC 8628 §3.5; empty of an answer that makes no sense
	Text     string // in the provider's words, if any
}

func (e *Error) Error() string {
	text := e.Endpoint + " answers " + e.Code
	if e.Code == "" {
		return e.Endpoint + ": " + e.Text
	}
	if e.Text != "" {
		text += ": " + e.Text
	}
	return text
}

// lasting are the answers that will be the same until somebody mends something.
var lasting = []string{"invalid_grant", "invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_request", "access_denied", "expired_token"}

// Lasting reports whether err stays until somebody does something: logs in, or mends
// the configuration. Other errors may pass by themselves.
func Lasting(err error) bool {
	var e *Error
	var file *fs.PathError
	return errors.Is(err, ErrLogin) || errors.As(err, &file) || errors.Is(err, errSecret) || errors.As(err, &e) && slices.Contains(lasting, e.Code)
}

// errSecret marks errors about the client secret, which is the operator's.
var errSecret = errors.New("client secret")

// client speaks to the endpoints of one account.
type client struct {
	config *config.OAuth
	http   *http.Client
	unit   time.Duration // that intervals are counted in: a second
	limit  time.Duration // of one request: requestTime
}

// newClient is a client for the account of r. It follows no redirection: what is sent
// is for the endpoint that is configured.
func newClient(r *config.Relay) *client {
	dialer := socks.Dialer(r.Proxy.Address, r.Proxy.Username, r.Proxy.Password.Reveal(), new(net.Dialer))
	return &client{config: &r.OAuth, unit: time.Second, limit: requestTime, http: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DialContext: dialer.DialContext, ForceAttemptHTTP2: true,
			DisableKeepAlives: true, MaxResponseHeaderBytes: maxHeader},
	}}
}

// inTurns is a context that ends after limit, in turns: of a machine that stands still
// for a while, as a virtual one may, not more than one of them counts. All time-outs of
// it are over when it goes on, and what came meanwhile is still to be read: a provider
// takes a refresh token once, and the answer to that is all there is of the login.
func inTurns(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		turn := time.NewTicker(limit / requestTurns)
		defer turn.Stop()
		for range requestTurns {
			select {
			case <-turn.C:
			case <-ctx.Done():
				return
			}
		}
		cancel(fmt.Errorf("no answer within %v", limit))
	}()
	return ctx, func() { cancel(nil) }
}

// post sends a form and returns the answer, which is of JSON and of status 200; all
// else is an error. The client says who it is in the form (RFC 6749 §2.3.1), which all
// providers take.
func (c *client) post(ctx context.Context, endpoint string, form url.Values) ([]byte, error) {
	secret, err := c.config.ClientSecret()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSecret, err)
	}
	ctx, cancel := inTurns(ctx, c.limit)
	defer cancel()
	form.Set("client_id", c.config.ClientID)
	if secret != "" {
		form.Set("client_secret", secret.Reveal())
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be reached: %w", endpoint, cause(err))
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: the answer breaks off: %w", endpoint, cause(err))
	case len(body) > maxAnswer:
		return nil, &Error{Endpoint: endpoint, Text: fmt.Sprintf("the answer is longer than %d octets", maxAnswer)}
	}
	if refused := refusal(response.StatusCode, body, form); refused != nil {
		refused.Endpoint = endpoint
		return nil, refused
	}
	return body, nil
}

// cause is err without the address of the endpoint, which is said anyway.
func cause(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// refusal is what an answer says that gives nothing (RFC 6749 §5.2); nil of another.
// Some providers refuse with status 200.
func refusal(status int, body []byte, form url.Values) *Error {
	var said struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	switch ok := json.Unmarshal(body, &said) == nil && isCode(said.Error); {
	case ok && status/100 != 3:
		return &Error{Code: said.Error, Text: clean(said.Description, form)}
	case status == http.StatusOK:
		return nil
	case status/100 == 3:
		return &Error{Text: fmt.Sprintf("the answer is %d, a redirection: write the address that is meant", status)}
	}
	return &Error{Text: fmt.Sprintf("the answer is %d, and no error of OAuth", status)}
}

// isCode reports whether s can be the code of an error: a word.
func isCode(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") == ""
}

// clean makes a line for people of what a provider wrote, and takes out of it what was
// sent there.
func clean(text string, sent url.Values) string {
	for key, values := range sent {
		if key == "client_id" || key == "grant_type" || key == "scope" {
			continue
		}
		for _, v := range values {
			if v != "" {
				text = strings.ReplaceAll(text, v, "…")
			}
		}
	}
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f && r < 0xa0 }), " ")
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return text
}

// grant asks the token endpoint for a token.
func (c *client) grant(ctx context.Context, kind string, form url.Values) (Token, error) {
	form.Set("grant_type", kind)
	body, err := c.post(ctx, c.config.TokenURL, form)
	if err != nil {
		return Token{}, err
	}
	t, err := parseToken(body, time.Now())
	if err != nil {
		return Token{}, &Error{Endpoint: c.config.TokenURL, Text: err.Error()}
	}
	return t, nil
}

// byClient is a token for the client itself (RFC 6749 §4.4).
func (c *client) byClient(ctx context.Context) (Token, error) {
	t, err := c.grant(ctx, "client_credentials", c.scoped())
	t.Refresh = "" // there is none to be kept (§4.4.3)
	return t, err
}

// refresh is the next token after t (RFC 6749 §6). Where the provider gives no new
// refresh token the old one stays good.
func (c *client) refresh(ctx context.Context, t Token) (Token, error) {
	next, err := c.grant(ctx, "refresh_token", url.Values{"refresh_token": {t.Refresh.Reveal()}})
	if err == nil && next.Refresh == "" {
		next.Refresh = t.Refresh
	}
	return next, err
}

// scoped is a form that asks for the scope.
func (c *client) scoped() url.Values {
	form := make(url.Values)
	if c.config.Scope != "" {
		form.Set("scope", c.config.Scope)
	}
	return form
}

// parseToken reads the answer of a token endpoint that came at a time (RFC 6749 §5.1).
// No error holds a part of it.
func parseToken(body []byte, at time.Time) (Token, error) {
	var said struct {
		Access  string  `json:"access_token"`
		Type    string  `json:"token_type"`
		Refresh string  `json:"refresh_token"`
		Expires seconds `json:"expires_in"`
	}
	if json.Unmarshal(body, &said) != nil {
		return Token{}, errors.New("the answer is no token")
	}
	switch {
	case said.Type != "" && !strings.EqualFold(said.Type, "Bearer"):
		return Token{}, errors.New("the token is not of the type Bearer")
	case !isToken(said.Access), said.Refresh != "" && !isToken(said.Refresh):
		return Token{}, fmt.Errorf("the token is none: want 1 to %d octets of printable ASCII", maxToken)
	}
	t := Token{Access: config.Secret(said.Access), Refresh: config.Secret(said.Refresh), Issued: at}
	if said.Expires > 0 {
		t.Expires = at.Add(min(time.Duration(said.Expires)*time.Second, maxLifetime))
	}
	return t, nil
}

// isToken reports whether s is what RFC 6749 appendix A calls VSCHAR, without the
// space: what can neither end a line nor a field of SASL.
func isToken(s string) bool {
	return s != "" && len(s) <= maxToken && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// seconds is a time that some providers write as text.
type seconds int64

// UnmarshalJSON takes a number, up to a year, since what is more is as good; null is 0.
func (s *seconds) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	n, err := strconv.ParseFloat(string(bytes.Trim(b, `"`)), 64)
	if err != nil || n < 0 {
		return errors.New("not a time")
	}
	*s = seconds(min(n, 365*24*3600))
	return nil
}
