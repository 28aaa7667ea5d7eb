// Package config reads postino.toml(5): what may be written there, what holds
// when it is not written, and what is refused. Everything in a [Config] that
// [Parse] or [Load] returned is checked; nobody checks it again. It has more
// than a thousand lines since each word an admin may choose is a type here, so
// that no other package has to know how one is written.
package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

const (
	// maxFile bounds the configuration file, in octets. A thousand times what a
	// person writes; more is a wrong path.
	maxFile = 1 << 20

	portSMTP        = 25  // RFC 5321 §4.5.4.2
	portSubmission  = 587 // RFC 6409 §3.1
	portSubmissions = 465 // RFC 8314 §7.3
)

// Config is the content of postino.toml, with the defaults where it is silent.
// The zero Config is not usable; start from [Default].
type Config struct {
	// Hostname is our name in EHLO, Received and Message-ID; Domain completes bare
	// addresses. Both are set after Load and as written after Parse.
	Hostname, Domain string
	// LocalDomains are in lower case; nil when none is named.
	LocalDomains   []string
	MaxMessageSize Size
	Mode           Mode
	// RedirectTo gets all mail in mode Redirect. BounceTo gets a copy of each report
	// of a failure; empty is nobody. Both are addresses.
	RedirectTo, BounceTo string
	// Relay is the smarthost; nil when the file has no [relay] table, and mail goes
	// directly by MX.
	Relay *Relay
	// Routes are looked at before Relay, in this order.
	Routes   []Route
	MX       MX
	From     From
	Aliases  Aliases
	SMTP     SMTP
	Local    Local
	Retry    Retry
	Timeouts Timeouts
	Limits   Limits
	// DKIM are the keys to sign with.
	DKIM    []DKIM
	Metrics Metrics
	History History
	Log     Log
}

// Relay is the smarthost and how it is spoken to.
type Relay struct {
	// Preset has filled in what was not written; after Parse nothing depends on it.
	Preset Preset
	// Host holds at least one name or IP address, in the order to try them.
	Host Hosts
	// Port is never 0 after Parse: what is not written follows from TLS.
	Port int
	TLS  TLSPolicy
	// CAFile holds the certificates to trust, PEM; empty means the system's.
	CAFile string
	// TLSPin is the public key that the host must have; set, nothing else about its
	// certificate counts.
	TLSPin Pin
	TLSMin TLSVersion
	// CertFile and KeyFile are our certificate, PEM; both or neither are set.
	CertFile, KeyFile string
	Auth              AuthMethod
	// Username, and at most one of the four sources of its password, see Secret, or
	// OAuth.
	Username        string
	Password        Secret
	PasswordFile    string
	PasswordCommand []string
	Credential      string
	// MaxConnections are open at once; each is closed after
	// MessagesPerConnection transactions.
	MaxConnections, MessagesPerConnection int
	// Rate bounds transactions, over all connections; zero is no limit.
	Rate Rate
	// SourceAddress is the IP address to connect from; empty leaves it to the system.
	SourceAddress string
	// Proxy is connected through; the host's name is looked up there.
	Proxy Proxy
	// OAuth is where an access token is from, instead of a password.
	OAuth OAuth
}

// Hosts are names or IP addresses, in the order to try them.
type Hosts []string

// MX is how mail goes to the exchangers of its recipients' domains.
type MX struct {
	Port int
	TLS  MXPolicy
	// Resolver is "address" or "address:port" of the DNS resolver to ask; empty means
	// those of /etc/resolv.conf.
	Resolver string
	IP       IPFamily
	// AllowLoopback takes an exchanger that is this machine for a destination.
	AllowLoopback bool
}

// From is what becomes of the addresses that mail is from, in its envelope and in its
// header section.
type From struct {
	Envelope, Header Rewrite
	// Address is for Force; {user} and {hostname} may stand in it. Name is what people
	// see with it, in which {name} may stand too; empty is the name that was there.
	Address, Name string
	// Generic has the addresses that take the place of some, before all else: by the
	// local part of one of this machine, by address or by "@domain". "@domain" as the
	// value takes the place of the domain alone.
	Generic map[string]string
	KeepAs  KeepAs
}

// SMTP is where programs that speak nothing else may submit.
type SMTP struct {
	// Listen are addresses of this machine's loopback with ports; none, no listener.
	Listen []string
}

// Local is what happens to mail for LocalDomains that no alias takes.
type Local struct {
	Deliver LocalDelivery
	// Helper is the socket of a process that writes users' mailboxes as the users;
	// empty: the runner writes them itself.
	Helper string
}

// Aliases says where the aliases file is, and what may stand in it. A file that is
// missing is an empty one.
type Aliases struct {
	File string
	// Programs allows aliases for programs and files, which RunAs runs and writes: a
	// user, who is the runner's own or whom the process behind the socket Helper is.
	Programs bool
	RunAs    string
	Helper   string
	// Forward is the file of a user who forwards mail, with UserMark in it; empty: users
	// have none.
	Forward string
}

// Retry is the schedule of attempts: the first wait, the longest wait, and the
// age at which a message is given up (RFC 5321 §4.5.4.1). First ≤ Max ≤ Lifetime.
// WarnAfter is the age at which its sender is told that it is late.
type Retry struct{ First, Max, Lifetime, WarnAfter Duration }

// Timeouts bound each wait of an SMTP client (RFC 5321 §4.5.3.2).
type Timeouts struct {
	Connect, Greeting Duration
	// Command is for the reply to EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA and RSET.
	Command Duration
	// Data is for one write of content, Dot for the reply to its end.
	Data, Dot Duration
}

// Limits bound what users may hand in and see.
type Limits struct {
	// PerUID and RecipientsPerUID are how many messages, and recipients of messages, a
	// uid may hand in; what is above is held. Zero is no limit.
	PerUID, RecipientsPerUID Rate
	// MaxRecipients of one message.
	MaxRecipients int
	// AllowFrom has the addresses that mail of a user may be from, by the uid or the
	// name of the user, or "*" for all others: patterns as in Route, and bare names for
	// those of this machine. Who has none may use all.
	AllowFrom map[string][]string
	Mailq     MailqPolicy
}

// DKIM is a key to sign mail with (RFC 6376): that of its domain and of those below.
type DKIM struct {
	Domain, Selector string
	KeyFile          string // an absolute path
}

// History says how long finished messages can be traced, and how much room
// their records may take, and the same for the content of failed ones.
type History struct {
	Keep    Duration
	MaxSize Size
	// KeepFailed and FailedSize say for how long the content of failed mail is kept,
	// and how much of it.
	KeepFailed Duration
	FailedSize Size
}

// Metrics says where Prometheus may scrape, as "host:port"; empty is on control.sock
// alone.
type Metrics struct {
	Listen string
	// Names are the host names that whoever scrapes may ask for, besides those of this
	// machine, in lower case.
	Names []string
}

// Log is the form of log lines and where they go.
type Log struct {
	Format LogFormat
	To     LogTarget
}

// Default is what holds when the file says nothing.
func Default() *Config {
	return &Config{
		MaxMessageSize: 50 << 20,
		Mode:           Deliver,
		From:           From{Envelope: Qualify, Header: Qualify},
		Aliases:        Aliases{File: "/etc/aliases", RunAs: "nobody"},
		MX:             MX{Port: portSMTP, TLS: MXAuto, IP: AnyIP},
		Retry:          Retry{First: minutes(5), Max: hours(4), Lifetime: 5 * day, WarnAfter: hours(4)},
		Timeouts: Timeouts{
			Connect:  Duration(30 * time.Second),
			Greeting: minutes(5),
			Command:  minutes(5),
			Data:     minutes(3),
			Dot:      minutes(10),
		},
		Limits:  Limits{MaxRecipients: 1000, Mailq: MailqOwn},
		History: History{Keep: 30 * day, MaxSize: 50 << 20, KeepFailed: 7 * day, FailedSize: 100 << 20},
		Log:     Log{Format: LogText, To: LogAuto},
	}
}

// defaultRelay is what holds for the keys that a [relay] table leaves out.
func defaultRelay() *Relay {
	return &Relay{
		TLS:                   StartTLS,
		TLSMin:                tls.VersionTLS12,
		Auth:                  AuthAuto,
		MaxConnections:        4,
		MessagesPerConnection: 100,
	}
}

// Load reads the file at path, of at most 1 MiB, and the variables of the
// environment ("NAME=value"), which hold before it; a missing file is an empty one.
// It then fills in Hostname (the kernel's) and Domain (the first word of
// /etc/mailname, else Hostname) where they are not named.
func Load(path string, environ ...string) (*Config, error) {
	r, err := load(path, environ)
	if err != nil {
		return nil, err
	}
	return r.config, nil
}

// List is Load, and says of each setting where it is from.
func List(path string, environ ...string) (Listing, error) {
	r, err := load(path, environ)
	if err != nil {
		return nil, err
	}
	return list(r.config.settings(), r.origin), nil
}

func load(path string, environ []string) (*reader, error) {
	f, err := os.Open(path)
	var data []byte
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		defer f.Close()
		if data, err = readAtMost(f, maxFile); err != nil {
			return nil, err
		}
	}
	r, err := parse(path, data, environ)
	if err != nil {
		return nil, err
	}
	r.fromSystem()
	return r, nil
}

// fromSystem fills in the names that are not written.
func (r *reader) fromSystem() {
	c := r.config
	if c.Hostname == "" {
		kernel := kernelName()
		c.Hostname, r.hostname = kernel, "the kernel"
		if full := fullName(hostsFile, kernel); full != "" {
			c.Hostname, r.hostname = full, hostsFile
		}
		if c.LocalDomains == nil && c.Hostname != kernel {
			c.LocalDomains = []string{strings.ToLower(c.Hostname), strings.ToLower(kernel)}
		}
	}
	if c.Domain == "" {
		c.Domain, r.domain = mailname(mailnameFile), mailnameFile
	}
	if c.Domain == "" {
		c.Domain, r.domain = c.Hostname, "hostname"
	}
}

// readAtMost reads f to its end and refuses more than limit octets.
func readAtMost(f *os.File, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %v: is it the right file?", f.Name(), Size(limit))
	}
	return data, nil
}
