package config

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// OAuth says where access tokens are from (RFC 6749), which then stand in for a
// password. The zero OAuth is nowhere. After Parse nothing depends on Provider and
// Tenant: the addresses are filled in.
type OAuth struct {
	Provider Issuer
	// TokenURL, DeviceURL and AuthURL are the token endpoint, the device authorization
	// endpoint (RFC 8628 §3.1) and the authorization endpoint. All are https, or on this
	// machine's loopback; those that Flow does not use may be empty.
	TokenURL, DeviceURL, AuthURL string
	// Tenant is the organisation at Microsoft.
	Tenant string
	// ClientID is what the provider calls us, ClientSecretFile where our secret is; a
	// public client has none.
	ClientID, ClientSecretFile string
	// Flow is never empty after Parse of a table that is there.
	Flow Flow
	// Scope is what is asked for, in words; empty leaves it to the provider.
	Scope string
}

// Issuer names a provider of tokens whose endpoints we know.
type Issuer string

// The issuers.
const (
	NoIssuer  Issuer = ""
	Google    Issuer = "google"
	Microsoft Issuer = "microsoft"
)

// UnmarshalText refuses what is not a provider we know.
func (p *Issuer) UnmarshalText(b []byte) error {
	return choose(p, b, "a provider whose addresses are known", []Issuer{Google, Microsoft})
}

// Flow is how a token is come by.
type Flow string

// The flows.
const (
	// FlowDevice has a person open a page anywhere and enter a code there (RFC 8628).
	FlowDevice Flow = "device"
	// FlowCode has a person open a page and bring back the address it leads to
	// (RFC 6749 §4.1 with RFC 7636 and RFC 8252).
	FlowCode Flow = "code"
	// FlowClient needs no person: the client secret is enough (RFC 6749 §4.4).
	FlowClient Flow = "client_credentials"
)

// UnmarshalText refuses what is not a flow.
func (f *Flow) UnmarshalText(b []byte) error {
	return choose(f, b, "a flow of OAuth", []Flow{FlowDevice, FlowCode, FlowClient})
}

// IsSet reports whether tokens are to be fetched.
func (o *OAuth) IsSet() bool { return *o != OAuth{} }

// Accounts are the relays that access tokens are fetched for, in the order of the file.
func (c *Config) Accounts() []*Relay {
	return slices.DeleteFunc(c.relays(), func(r *Relay) bool { return !r.OAuth.IsSet() })
}

// ClientSecret reads the client's secret; it is "" without an error for a public
// client. It is read at each use, so that a changed one needs no restart.
func (o *OAuth) ClientSecret() (Secret, error) {
	if o.ClientSecretFile == "" {
		return "", nil
	}
	s, err := secretFile(o.ClientSecretFile)
	if err != nil {
		return "", fmt.Errorf("oauth.client_secret_file: %w", err)
	}
	return s, nil
}

// settings are those of the table of that name.
func (o *OAuth) settings(table string) []setting {
	return []setting{
		{key: table + "provider", dst: &o.Provider},
		{key: table + "token_url", dst: &o.TokenURL},
		{key: table + "device_url", dst: &o.DeviceURL},
		{key: table + "auth_url", dst: &o.AuthURL},
		{key: table + "tenant", dst: &o.Tenant},
		{key: table + "client_id", dst: &o.ClientID},
		{key: table + "client_secret_file", dst: &o.ClientSecretFile},
		{key: table + "flow", dst: &o.Flow},
		{key: table + "scope", dst: &o.Scope},
	}
}

// complete fills in what is not written: from the provider, which a preset of the
// relay may name.
func (o *OAuth) complete(preset Preset) {
	if o.Provider == NoIssuer && o.TokenURL == "" {
		o.Provider = Issuer(preset.hint("oauth"))
	}
	if o.Flow == "" {
		o.Flow = FlowDevice
		if o.Provider == Google {
			o.Flow = FlowCode // by device Google gives no token for mail
		}
	}
	var known OAuth
	switch o.Provider {
	case Google:
		known = OAuth{
			TokenURL: "https://oauth2.googleapis.com/token", DeviceURL: "https://oauth2.googleapis.com/device/code",
			AuthURL: "https://accounts.google.com/o/oauth2/v2/auth", Scope: "https://mail.google.com/",
		}
	case Microsoft:
		if o.Tenant == "" && o.Flow != FlowClient {
			o.Tenant = "organizations"
		}
		base := "https://login.microsoftonline.com/" + o.Tenant + "/oauth2/v2.0/"
		known = OAuth{TokenURL: base + "token", DeviceURL: base + "devicecode", AuthURL: base + "authorize", Scope: "https://outlook.office.com/SMTP.Send offline_access"}
		if o.Flow == FlowClient {
			known.Scope = "https://outlook.office365.com/.default"
		}
	}
	for _, fill := range []struct {
		dst  *string
		from string
	}{{&o.TokenURL, known.TokenURL}, {&o.DeviceURL, known.DeviceURL}, {&o.AuthURL, known.AuthURL}, {&o.Scope, known.Scope}} {
		if *fill.dst == "" {
			*fill.dst = fill.from
		}
	}
}

// checkOAuth checks the table of that name, and completes it.
func (r *reader) checkOAuth(table string, o *OAuth, preset Preset) {
	if _, written := r.at[strings.TrimSuffix(table, ".")]; !written && !o.IsSet() {
		return
	}
	o.complete(preset)
	for _, need := range []struct {
		key, value, why string
		needed          bool
	}{
		{"client_id", o.ClientID, "the provider gives one to each application that it knows: register one there", true},
		{"token_url", o.TokenURL, `where tokens are from: write it, or provider = "google" or "microsoft"`, true},
		{"device_url", o.DeviceURL, `where a login begins with flow "device"`, o.Flow == FlowDevice},
		{"auth_url", o.AuthURL, `where a login begins with flow "code"`, o.Flow == FlowCode},
		{"client_secret_file", o.ClientSecretFile, `flow "client_credentials" has nothing else to show`, o.Flow == FlowClient},
		{"tenant", o.Tenant, `with flow "client_credentials" Microsoft wants to know which organisation: write its domain or directory ID`, o.Provider == Microsoft && o.Flow == FlowClient},
	} {
		if need.needed && need.value == "" {
			r.failAt(keys{table + need.key, table + "provider"}, "missing: %s", need.why)
		}
	}
	for _, u := range []struct{ key, text string }{{"token_url", o.TokenURL}, {"device_url", o.DeviceURL}, {"auth_url", o.AuthURL}} {
		if u.text == "" {
			continue
		}
		if err := checkEndpoint(u.text); err != nil {
			r.failAt(keys{table + u.key, table + "tenant", table + "provider"}, "%s %v", quote(u.text), err)
		}
	}
	if strings.ContainsAny(o.Tenant, "/?#% ") {
		r.failAt(keys{table + "tenant"}, "%s is neither a domain nor a directory ID", quote(o.Tenant))
	}
	r.checkPath(table+"client_secret_file", o.ClientSecretFile)
}

// checkEndpoint refuses what tokens must not be sent to: they go by TLS, or stay on
// this machine (RFC 6749 §3.2).
func checkEndpoint(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || !isHost(u.Hostname()):
		return errors.New("is not the address of an endpoint: write one such as https://login.example.com/token")
	case u.Scheme != "https" && !(u.Scheme == "http" && isLoopback(u.Hostname())):
		return errors.New("is not https: tokens are never sent in plaintext")
	}
	return nil
}
