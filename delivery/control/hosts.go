package control

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"postino/delivery"
)

// The values of Host.State.
const (
	HostOK      = "ok"
	HostFailing = "failing" // the last attempt came to no session
	HostDown    = "down"    // it is left alone for a while
	HostShut    = "shut"    // of a route: see Alert
)

// Host is what is known of a server, as `postino hosts --json` shows it, or a route that
// is shut. Its times are UTC, and zero where there is nothing to say.
type Host struct {
	Host string `json:"host"` // "mx1.example.org[192.0.2.1]:25"
	Kind string `json:"kind"` // mx, relay or route
	// Family is that of the address: IPv4 or IPv6; empty where a name stands for both.
	Family string `json:"family,omitempty"`
	State  string `json:"state"`
	// Until it is left alone, or, for a route, when it is probed.
	Until time.Time `json:"until,omitzero"`
	// Failures are attempts in a row that came to no session.
	Failures int `json:"failures"`
	// Connections are as many as it bears at a time; 0 is as many as are configured.
	Connections int `json:"connections,omitempty"`
	// PlaintextUntil: its TLS is broken, and mail may go without it.
	PlaintextUntil time.Time `json:"plaintext_until,omitzero"`
	LastSuccess    time.Time `json:"last_success,omitzero"`
	LastFailure    time.Time `json:"last_failure,omitzero"`
	LastError      string    `json:"last_error,omitempty"`
	// Sender and Remedy are for a route: see Alert.
	Sender string `json:"sender,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

// NewHost is h as it is at now.
func NewHost(h delivery.Host, now time.Time) Host {
	out := Host{
		Host: h.Name, Kind: "relay", State: HostOK, Failures: h.Failures, Connections: h.Connections, Family: addressFamily(h.Name),
		LastSuccess: h.Succeeded.UTC(), LastFailure: h.Failed.UTC(), LastError: h.Error,
	}
	if h.MX {
		out.Kind = "mx"
	}
	if now.Before(h.Plaintext) {
		out.PlaintextUntil = h.Plaintext.UTC()
	}
	switch {
	case now.Before(h.Until):
		out.State, out.Until = HostDown, h.Until.UTC()
	case h.Failures > 0:
		out.State = HostFailing
	}
	return out
}

// addressFamily is that of the address in "name[address]:port" or "address:port".
func addressFamily(host string) string {
	_, text, found := strings.Cut(host, "[")
	text, _, _ = strings.Cut(text, "]")
	if !found {
		text = host[:max(0, strings.LastIndexByte(host, ':'))]
	}
	addr, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		return ""
	case addr.Unmap().Is4():
		return "IPv4"
	}
	return "IPv6"
}

func newAlerts(list []delivery.Alert) []Alert {
	out := make([]Alert, len(list))
	for i, a := range list {
		out[i] = Alert{Hop: a.Hop, Sender: a.Sender, Since: a.Since.UTC(), Next: a.Next.UTC(), Reply: a.Reply.Said(), Remedy: a.Reply.Remedy}
	}
	return out
}

func (s *Server) hosts(w http.ResponseWriter, _ *request) error {
	return stream(w, func(yield func(Host, error) bool) {
		for _, a := range newAlerts(s.o.Runner.Alerts()) {
			if !yield(Host{Host: a.Hop, Kind: "route", State: HostShut, Until: a.Next, LastFailure: a.Since, LastError: a.Reply, Sender: a.Sender, Remedy: a.Remedy}, nil) {
				return
			}
		}
		now := time.Now()
		for _, h := range s.o.Runner.Hosts() {
			if !yield(NewHost(h, now), nil) {
				return
			}
		}
	})
}

func (s *Server) logins(w http.ResponseWriter, r *request) error {
	return stream(w, func(yield func(delivery.Login, error) bool) {
		logins, err := s.o.Runner.Logins(r.Context())
		for _, l := range logins {
			if !yield(l, nil) {
				return
			}
		}
		if err != nil {
			yield(delivery.Login{}, err)
		}
	})
}

// Logins are the accounts that access tokens are fetched for, as the runner knows them;
// ErrNotAllowed to all but administrators.
func (c *Client) Logins(ctx context.Context) ([]delivery.Login, error) {
	var out []delivery.Login
	for l, err := range list[delivery.Login](ctx, c, http.MethodGet, "/logins") {
		if err != nil {
			return out, err
		}
		out = append(out, l)
	}
	return out, nil
}

// Forgotten is what came of ForgetHost.
type Forgotten struct {
	Host  string `json:"host"`
	Hosts int    `json:"hosts"`
}

func (s *Server) forgetHost(w http.ResponseWriter, r *request) error {
	name := r.URL.Query().Get("host")
	if name == "" || len(name) > maxWhat {
		return errBadRequest
	}
	n := s.o.Runner.ForgetHost(name)
	s.o.Log.Info("forgot", "host", name, "hosts", n, "by", r.peer.uid)
	return answer(w, Forgotten{name, n})
}

// Hosts are those that something is known of, after the routes that are shut;
// ErrNotAllowed to all but administrators.
func (c *Client) Hosts(ctx context.Context) ([]Host, error) {
	var out []Host
	for h, err := range list[Host](ctx, c, http.MethodGet, "/hosts") {
		if err != nil {
			return out, err
		}
		out = append(out, h)
	}
	return out, nil
}

// ForgetHost forgets what is known of the hosts with that name or address.
func (c *Client) ForgetHost(ctx context.Context, name string) (Forgotten, error) {
	var out Forgotten
	err := c.call(ctx, http.MethodPost, "/hosts/forget?"+url.Values{"host": {name}}.Encode(), &out)
	return out, err
}
