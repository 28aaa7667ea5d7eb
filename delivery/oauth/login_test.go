package oauth

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"postino/config"
	"postino/delivery/oauth/oauthtest"
)

// While the person is not done a device asks again, slower when it is told to and when
// the provider is out of reach; what the provider says at last is what comes of it.
func TestDeviceWaitsForThePerson(t *testing.T) {
	t.Parallel()
	const poll = "urn:ietf:params:oauth:grant-type:device_code"
	say := func(code string) oauthtest.Answer {
		return oauthtest.Answer{Grant: poll, Status: 400, Body: `{"error":"` + code + `","error_description":"no"}`}
	}
	for _, tt := range []struct {
		name    string
		answers []oauthtest.Answer
		polls   int
		want    string // of the error; empty is a token
	}{
		{"at once", nil, 1, ""},
		{"pending", []oauthtest.Answer{say("authorization_pending"), say("authorization_pending")}, 3, ""},
		{"too fast", []oauthtest.Answer{say("slow_down")}, 2, ""},
		{"out of order", []oauthtest.Answer{{Grant: poll, Status: 502, Type: "text/html", Body: "bad gateway"}}, 2, ""},
		{"declined", []oauthtest.Answer{say("access_denied")}, 1, "the login was declined"},
		{"late", []oauthtest.Answer{say("authorization_pending"), say("expired_token")}, 2, "in time: begin again"},
		{"unknown client", []oauthtest.Answer{say("invalid_client")}, 1, "invalid_client: no"},
		{"no code", []oauthtest.Answer{{Grant: "device", Status: 400, Body: `{"error":"invalid_scope","error_description":"not by device"}`}}, 0, "invalid_scope: not by device"},
		{"no page", []oauthtest.Answer{{Grant: "device", Status: 200, Body: `{"device_code":"d","user_code":"u","verification_uri":"javascript:alert(1)"}`}}, 0, "no page to open"},
		{"escape sequences", []oauthtest.Answer{{Grant: "device", Status: 200, Body: `{"device_code":"d","user_code":"\u001b[2J","verification_uri":"https://x.test/"}`}}, 0, "no user_code"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := oauthtest.New(t, user)
			server.Say(tt.answers...)
			s, r := newStore(t.TempDir()), relayFor(server, config.FlowDevice)
			var shown Prompt
			_, err := s.Login(t.Context(), r, func(p Prompt) error { shown = p; return nil }, nil)
			switch {
			case tt.want == "" && err != nil, tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want %q", err, tt.want)
			case tt.polls > 0 && (shown.URL != server.URL+"/enter" || shown.Code != oauthtest.UserCode):
				t.Errorf("shown %+v", shown)
			}
			if n := server.Grants(poll); n != tt.polls {
				t.Errorf("%d polls, want %d", n, tt.polls)
			}
			if _, err := s.Stored(r); (err == nil) != (tt.want == "") {
				t.Errorf("stored: %v", err)
			}
			for _, form := range server.Requests() {
				if form.Get("grant_type") == "" && form.Get("scope") != r.OAuth.Scope {
					t.Errorf("asked for %q", form)
				}
			}
		})
	}
}

// By code a login is good whether the browser comes to us or a person pastes where it
// went; what is pasted besides is passed over, and somebody else's answer is.
func TestCodeComesBackByBrowserOrByHand(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"browser", "hand"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			server := oauthtest.New(t, user)
			s, r := newStore(t.TempDir()), relayFor(server, config.FlowCode)
			pasted := make(chan string, 4)
			browser := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
				if by == "hand" {
					return http.ErrUseLastResponse
				}
				return nil
			}}
			token, err := s.Login(t.Context(), r, func(p Prompt) error {
				if page, err := url.Parse(p.URL); err != nil || page.Query().Get("scope") != r.OAuth.Scope {
					t.Errorf("%s: %v", p.URL, err)
				}
				response, err := browser.Get(p.URL)
				if err != nil {
					return err
				}
				defer response.Body.Close()
				text, _ := io.ReadAll(response.Body)
				if by == "browser" {
					if !strings.Contains(string(text), "close this page") {
						t.Errorf("the browser shows %q", text)
					}
					close(pasted) // no terminal
					return nil
				}
				pasted <- "what?"
				pasted <- "http://127.0.0.1:1/?code=x&state=forged"
				pasted <- " " + response.Header.Get("Location") + "\r"
				return nil
			}, pasted)
			if err != nil || !server.Takes(token.Access.Reveal()) {
				t.Fatalf("got %v", err)
			}
			if stored, err := s.Stored(r); err != nil || stored.Refresh != token.Refresh || token.Refresh == "" {
				t.Errorf("stored: %v", err)
			}
		})
	}
}

// A person who says no is taken at his word.
func TestDeclinedCode(t *testing.T) {
	t.Parallel()
	server := oauthtest.New(t, user)
	s, r := newStore(t.TempDir()), relayFor(server, config.FlowCode)
	pasted := make(chan string, 1)
	_, err := s.Login(t.Context(), r, func(p Prompt) error {
		page, _ := url.Parse(p.URL)
		pasted <- page.Query().Get("redirect_uri") + "?error=access_denied&state=" + page.Query().Get("state")
		return nil
	}, pasted)
	var said *Error
	if !errors.As(err, &said) || said.Code != "access_denied" || !Lasting(err) {
		t.Errorf("got %v", err)
	}
}
