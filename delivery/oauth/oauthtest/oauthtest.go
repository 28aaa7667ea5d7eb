// Package oauthtest is an authorization server for tests: the endpoints of RFC 6749,
// RFC 8628 and RFC 7662 on this machine's loopback. It is strict where real ones are: a
// refresh token is good once, and who uses one twice loses the whole login, as a thief
// would.
package oauthtest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// ClientID and ClientSecret are of the one client that the server knows.
const (
	ClientID     = "postino"
	ClientSecret = "Sq4-client-secret"
	// UserCode is what a person has to enter.
	UserCode = "WDJB-MJHT"
	// tokenSize is about how long Microsoft's tokens are, in octets: too long for a
	// command of SMTP.
	tokenSize = 1500
)

// Server is a running server. Its fields may be changed while no request is under way.
type Server struct {
	*httptest.Server
	// User is who a token is for.
	User string
	// Life is how long an access token is good, in seconds; 0 is not said, and for ever.
	Life int
	// Pending is how many polls of a device come before the person is done.
	Pending int

	mu       sync.Mutex
	answers  []Answer
	requests []url.Values
	access   map[string]time.Time // until when
	refresh  map[string]bool      // whether it has been used
	device   string
	code     url.Values // the request of an authorization
}

// Answer is what a server says next instead of what it should.
type Answer struct {
	Grant  string // to which grant type, or "device" for the device endpoint; empty is any
	Status int    // 0: the connection is cut
	Type   string // of the content; empty is application/json
	Body   string
}

// New starts a server, which ends with the test.
func New(t testing.TB, user string) *Server {
	s := &Server{User: user, Life: 3600, access: make(map[string]time.Time), refresh: make(map[string]bool)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", s.token)
	mux.HandleFunc("POST /device", s.begin)
	mux.HandleFunc("GET /auth", s.authorize)
	mux.HandleFunc("GET /introspect", s.introspect)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// Say has the server give these answers, each once, to the requests that they are for.
func (s *Server) Say(answers ...Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = append(s.answers, answers...)
}

// Revoke ends all that was given.
func (s *Server) Revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.access)
	clear(s.refresh)
}

// RevokeAccess ends access tokens alone.
func (s *Server) RevokeAccess() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.access)
}

// Grants counts the requests to the token endpoint of a grant type.
func (s *Server) Grants(kind string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if r.Get("grant_type") == kind {
			n++
		}
	}
	return n
}

// Requests are the forms that came, in order.
func (s *Server) Requests() []url.Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]url.Values(nil), s.requests...)
}

// Takes reports whether an access token is good.
func (s *Server) Takes(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	until, known := s.access[token]
	return known && time.Now().Before(until)
}

// form reads a request, and gives the next answer instead if there is one for it.
func (s *Server) form(w http.ResponseWriter, r *http.Request, grant string) (url.Values, bool) {
	if r.ParseForm() != nil {
		refuse(w, "invalid_request", "")
		return nil, false
	}
	if grant == "" {
		grant = r.PostForm.Get("grant_type")
	}
	s.requests = append(s.requests, r.PostForm)
	for i, a := range s.answers {
		if a.Grant == "" || a.Grant == grant {
			s.answers = append(s.answers[:i:i], s.answers[i+1:]...)
			a.give(w)
			return nil, false
		}
	}
	if r.PostForm.Get("client_id") != ClientID {
		refuse(w, "invalid_client", "unknown client")
		return nil, false
	}
	return r.PostForm, true
}

func (a Answer) give(w http.ResponseWriter) {
	if a.Status == 0 {
		panic(http.ErrAbortHandler)
	}
	if a.Type == "" {
		a.Type = "application/json"
	}
	w.Header().Set("Content-Type", a.Type)
	if a.Status/100 == 3 {
		w.Header().Set("Location", a.Body)
	}
	w.WriteHeader(a.Status)
	_, _ = w.Write([]byte(a.Body)) // the client may have gone
}

func refuse(w http.ResponseWriter, code, text string) {
	body, _ := json.Marshal(map[string]string{"error": code, "error_description": text})
	Answer{Status: http.StatusBadRequest, Body: string(body)}.give(w)
}

// begin is the device authorization endpoint (RFC 8628 §3.1).
func (s *Server) begin(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.form(w, r, "device"); !ok {
		return
	}
	s.device = rand.Text()
	body, _ := json.Marshal(map[string]any{
		"device_code": s.device, "user_code": UserCode, "verification_uri": s.URL + "/enter",
		"verification_uri_complete": s.URL + "/enter?code=" + UserCode, "expires_in": 600, "interval": 1,
	})
	Answer{Status: http.StatusOK, Body: string(body)}.give(w)
}

// authorize is the authorization endpoint (RFC 6749 §4.1.1): the person says yes.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.code = r.URL.Query()
	s.code.Set("code", rand.Text())
	back := url.Values{"code": {s.code.Get("code")}, "state": {s.code.Get("state")}}
	http.Redirect(w, r, s.code.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
}

// token is the token endpoint (RFC 6749 §3.2).
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	form, ok := s.form(w, r, "")
	if !ok {
		return
	}
	switch kind := form.Get("grant_type"); kind {
	case "urn:ietf:params:oauth:grant-type:device_code":
		switch {
		case form.Get("device_code") != s.device || s.device == "":
			refuse(w, "invalid_grant", "unknown code "+form.Get("device_code"))
		case s.Pending > 0:
			s.Pending--
			refuse(w, "authorization_pending", "")
		default:
			s.device = ""
			s.give(w, true)
		}
	case "authorization_code":
		sum := sha256.Sum256([]byte(form.Get("code_verifier")))
		if form.Get("code") == "" || form.Get("code") != s.code.Get("code") || form.Get("redirect_uri") != s.code.Get("redirect_uri") ||
			base64.RawURLEncoding.EncodeToString(sum[:]) != s.code.Get("code_challenge") {
			refuse(w, "invalid_grant", "wrong code or verifier")
			return
		}
		s.code = nil
		s.give(w, true)
	case "refresh_token":
		used, known := s.refresh[form.Get("refresh_token")]
		if !known || used {
			clear(s.refresh)
			clear(s.access)
			refuse(w, "invalid_grant", "token "+form.Get("refresh_token")+" is no good")
			return
		}
		s.refresh[form.Get("refresh_token")] = true
		s.give(w, true)
	case "client_credentials":
		if form.Get("client_secret") != ClientSecret {
			refuse(w, "invalid_client", "wrong secret "+form.Get("client_secret"))
			return
		}
		s.give(w, false)
	default:
		refuse(w, "unsupported_grant_type", kind)
	}
}

// give answers with a new token.
func (s *Server) give(w http.ResponseWriter, refreshable bool) {
	access := "access-" + rand.Text() + strings.Repeat("x", tokenSize)
	said := map[string]any{"access_token": access, "token_type": "bearer"}
	s.access[access] = time.Now().Add(1000 * time.Hour)
	if s.Life > 0 {
		said["expires_in"] = s.Life
		s.access[access] = time.Now().Add(time.Duration(s.Life) * time.Second)
	}
	if refreshable {
		refresh := "refresh-" + rand.Text()
		s.refresh[refresh] = false
		said["refresh_token"] = refresh
	}
	body, _ := json.Marshal(said)
	Answer{Status: http.StatusOK, Body: string(body)}.give(w)
}

// introspect says whose token it is that is shown as Bearer (RFC 6750), as Dovecot asks.
func (s *Server) introspect(w http.ResponseWriter, r *http.Request) {
	token := r.Header.Get("Authorization")
	if len(token) < 7 || !s.Takes(token[len("Bearer "):]) {
		Answer{Status: http.StatusUnauthorized, Body: `{"error":"invalid_token"}`}.give(w)
		return
	}
	body, _ := json.Marshal(map[string]any{"active": true, "email": s.User, "username": s.User, "client_id": ClientID})
	Answer{Status: http.StatusOK, Body: string(body)}.give(w)
}
