package oauth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"postino/config"
)

const (
	// Intervals at which a device asks whether the person is done (RFC 8628 §3.2,
	// §3.5), in seconds.
	usualInterval, slower, maxInterval = 5, 5, 60
	// codeTime is for how long a code may be good, whatever the provider says: nobody
	// stays at a terminal for longer.
	codeTime = 30 * time.Minute
	// maxCode bounds a code that a person has to enter, in octets.
	maxCode = 64
)

// Prompt is what a person has to do.
type Prompt struct {
	// URL is the page to open, and Code what to enter there.
	URL, Code string
	// Whole is the page with the code in it; empty where the provider has none.
	Whole string
	// Expires is when the code is no more good.
	Expires time.Time
}

// device is a device authorization (RFC 8628 §3.2).
type device struct {
	Prompt
	code     string
	interval int // in seconds
}

// byDevice has a person open a page anywhere, which show tells, and waits until that
// is done.
func (c *client) byDevice(ctx context.Context, show func(Prompt) error) (Token, error) {
	body, err := c.post(ctx, c.config.DeviceURL, c.scoped())
	if err != nil {
		return Token{}, err
	}
	d, err := parseDevice(body, time.Now())
	if err != nil {
		return Token{}, &Error{Endpoint: c.config.DeviceURL, Text: err.Error()}
	}
	if err := show(d.Prompt); err != nil {
		return Token{}, err
	}
	ctx, cancel := context.WithDeadline(ctx, d.Expires)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return Token{}, errors.New("nobody entered the code in time: begin again")
		case <-time.After(time.Duration(d.interval) * c.unit):
		}
		t, err := c.grant(ctx, "urn:ietf:params:oauth:grant-type:device_code", url.Values{"device_code": {d.code}})
		var said *Error
		switch {
		case err == nil:
			return t, nil
		case errors.As(err, &said) && said.Code == "authorization_pending":
		case errors.As(err, &said) && said.Code == "slow_down":
			d.interval += slower
		case errors.As(err, &said) && said.Code == "access_denied":
			return Token{}, fmt.Errorf("the login was declined: %w", err)
		case errors.As(err, &said) && said.Code == "expired_token":
			return Token{}, fmt.Errorf("nobody entered the code in time: begin again: %w", err)
		case errors.As(err, &said) && said.Code != "":
			return Token{}, err
		default: // it may be back (§3.5)
			d.interval = min(2*d.interval, maxInterval)
		}
	}
}

// parseDevice reads the answer of a device authorization endpoint that came at a time.
func parseDevice(body []byte, at time.Time) (device, error) {
	var said struct {
		Code     string   `json:"device_code"`
		User     string   `json:"user_code"`
		URI      string   `json:"verification_uri"`
		URL      string   `json:"verification_url"` // Google's
		Complete string   `json:"verification_uri_complete"`
		Expires  seconds  `json:"expires_in"`
		Interval *seconds `json:"interval"`
	}
	if json.Unmarshal(body, &said) != nil {
		return device{}, errors.New("the answer is no code")
	}
	if said.URI == "" {
		said.URI = said.URL
	}
	switch {
	case !isToken(said.Code):
		return device{}, errors.New("the answer has no device_code")
	case len(said.User) > maxCode || said.User == "" || !isToken(strings.ReplaceAll(said.User, " ", "")):
		return device{}, errors.New("the answer has no user_code")
	case !isPage(said.URI) || said.Complete != "" && !isPage(said.Complete):
		return device{}, errors.New("the answer has no page to open")
	}
	d := device{code: said.Code, interval: usualInterval,
		Prompt: Prompt{URL: said.URI, Code: said.User, Whole: said.Complete, Expires: at.Add(codeTime)}}
	if said.Interval != nil {
		d.interval = int(min(max(*said.Interval, 1), maxInterval))
	}
	if lasts := time.Duration(said.Expires) * time.Second; lasts > 0 && lasts < codeTime {
		d.Expires = at.Add(lasts)
	}
	return d, nil
}

// isPage reports whether s is an address that a person may be told to open.
func isPage(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && isToken(s) && len(s) <= 2048
}

// byCode has a person open a page, which show tells, and takes the address that it
// leads to at last (RFC 6749 §4.1): from the browser itself, if that is on this machine
// (RFC 8252 §7.3), or from the lines of pasted.
func (c *client) byCode(ctx context.Context, show func(Prompt) error, pasted <-chan string) (Token, error) {
	ctx, cancel := context.WithTimeout(ctx, codeTime)
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return Token{}, err
	}
	redirect := fmt.Sprintf("http://%s/", l.Addr())
	visited := make(chan string, 1)
	server := &http.Server{ReadHeaderTimeout: requestTime, MaxHeaderBytes: maxHeader, Handler: visitor(visited)}
	go server.Serve(l) // until Close
	defer server.Close()

	state, verifier := rand.Text(), rand.Text()+rand.Text() // RFC 7636 §4.1 wants 43 characters
	sum := sha256.Sum256([]byte(verifier))
	form := c.scoped()
	for key, value := range map[string]string{
		"response_type": "code", "client_id": c.config.ClientID, "redirect_uri": redirect, "state": state,
		"code_challenge": base64.RawURLEncoding.EncodeToString(sum[:]), "code_challenge_method": "S256",
		"access_type": "offline", "prompt": "consent", // so that Google gives a refresh token; to others they say nothing
	} {
		form.Set(key, value)
	}
	page := c.config.AuthURL + "?" + form.Encode()
	if strings.Contains(c.config.AuthURL, "?") {
		page = c.config.AuthURL + "&" + form.Encode()
	}
	if err := show(Prompt{URL: page, Expires: time.Now().Add(codeTime)}); err != nil {
		return Token{}, err
	}
	for {
		var address string
		var more bool
		select {
		case <-ctx.Done():
			return Token{}, errors.New("nobody brought the address in time: begin again")
		case address = <-visited:
		case address, more = <-pasted:
			if !more {
				pasted = nil // a browser on this machine may still come
				continue
			}
		}
		code, err := codeOf(address, state)
		if errors.Is(err, errStray) {
			continue
		}
		if err != nil {
			return Token{}, err
		}
		return c.grant(ctx, "authorization_code", url.Values{"code": {code}, "redirect_uri": {redirect}, "code_verifier": {verifier}})
	}
}

// visitor takes the address that a browser was led to.
func visitor(visited chan<- string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" || r.URL.RawQuery == "" {
			http.NotFound(w, r)
			return
		}
		select {
		case visited <- r.URL.String():
		default:
		}
		fmt.Fprintln(w, "You may close this page: postino goes on in the terminal.")
	})
}

// errStray is of what is not an answer to our question.
var errStray = errors.New("not the address that the page led to")

// codeOf is the authorization code in the address that a page led to (RFC 6749 §4.1.2).
func codeOf(address, state string) (string, error) {
	u, err := url.Parse(strings.TrimSpace(address))
	if err != nil {
		return "", errStray
	}
	q := u.Query()
	switch code := q.Get("code"); {
	case q.Get("state") != state:
		return "", errStray
	case q.Get("error") != "" && isCode(q.Get("error")):
		return "", &Error{Endpoint: "the page", Code: q.Get("error"), Text: clean(q.Get("error_description"), nil)}
	case !isToken(code):
		return "", errStray
	default:
		return code, nil
	}
}

// Login has a person allow that mail is sent for the account of r, which show tells how
// to, and keeps the token. Of client credentials it fetches a token and keeps none:
// that shows whether they are right. The lines of pasted are addresses that a person
// brings back.
func (s *Store) Login(ctx context.Context, r *config.Relay, show func(Prompt) error, pasted <-chan string) (Token, error) {
	c := s.client(r)
	var t Token
	var err error
	switch r.OAuth.Flow {
	case config.FlowClient:
		return c.byClient(ctx)
	case config.FlowCode:
		t, err = c.byCode(ctx, show, pasted)
	default:
		t, err = c.byDevice(ctx, show)
	}
	if err != nil {
		return Token{}, err
	}
	return t, s.keep(ctx, r, t)
}
