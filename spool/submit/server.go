// Package submit is the runner's side of a submission: SMTP sessions on the unix
// socket and sessions recorded in drop files, all ending as messages in the
// spool. It is the only package with the go-smtp server.
package submit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"

	"postino/spool"
	"postino/spool/warnings"
)

// Policy is what the configuration says about submissions.
type Policy struct {
	Hostname string // in Received and Message-ID, and the server's own name
	Domain   string // completes bare names and @localhost
	// MaxMessageSize is in octets, MaxRecipients counts those of one message.
	MaxMessageSize int64
	MaxRecipients  int
	// PerUID and RecipientsPerUID are what a uid may submit; more is held.
	PerUID, RecipientsPerUID Rate
	From                     From
	// LocalDomains are this machine's, beside Hostname and Domain.
	LocalDomains []string
	// AllowFrom has the addresses that mail of a user may be from, by uid, name or "*";
	// see Policy.matches. Who has none may use all.
	AllowFrom map[string][]string
}

// writeTimeout bounds how long a client may leave a reply unread.
const writeTimeout = 60 * time.Second

// Server takes submissions into a spool.
type Server struct {
	spool  *spool.Spool
	policy atomic.Pointer[Policy]
	limits atomic.Pointer[limits]
	log    *slog.Logger
	often  *warnings.Log // what clients can cause at will
	smtp   *smtp.Server
	drops  *handover // carries drop files to smtp
	crowd  *crowd    // of those who are connected
	places places    // of sessions on the socket
	large  places    // of drop files with very many recipients

	mu      sync.Mutex
	closing bool               // guarded by mu
	open    map[*conn]struct{} // guarded by mu: connections of clients
	active  sync.WaitGroup     // transactions that may write to the spool
}

// New returns a Server that takes nothing yet: see Serve and Drops.
func New(s *spool.Spool, p Policy, log *slog.Logger) *Server {
	srv := &Server{spool: s, log: log, often: warnings.New(log), drops: newHandover(), crowd: newCrowd(), open: make(map[*conn]struct{})}
	srv.places = places{max: maxPlaces, perUID: maxPlacesPerUID}
	srv.large = places{max: 1, perUID: 1}
	srv.SetPolicy(p)
	srv.smtp = smtp.NewServer(smtp.BackendFunc(srv.newSession))
	srv.smtp.Domain = p.Hostname
	srv.smtp.MaxLineLength = 0 // conn has a limit of its own; this one would cut content
	srv.smtp.WriteTimeout = writeTimeout
	srv.smtp.EnableDSN = true
	srv.smtp.EnableSMTPUTF8 = true
	srv.smtp.EnableREQUIRETLS = true // taken; it is announced under TLS alone, which is not spoken here
	srv.smtp.ErrorLog = serverLog{log}
	go srv.smtp.Serve(srv.drops) // ends when Shutdown closes drops
	return srv
}

// SetPolicy replaces the policy; transactions under way keep theirs.
func (srv *Server) SetPolicy(p Policy) {
	if l := srv.limits.Load(); l == nil || l.messages != p.PerUID || l.recipients != p.RecipientsPerUID {
		srv.limits.Store(newLimits(srv.spool, &p, time.Now()))
	}
	srv.policy.Store(&p)
}

// Serve takes submissions on the unix socket until Shutdown.
func (srv *Server) Serve(l *net.UnixListener) error {
	return srv.serve(&socketListener{l, srv})
}

// ServeTCP takes submissions of programs that only speak SMTP, on a port of this
// machine's loopback, until Shutdown.
func (srv *Server) ServeTCP(l *net.TCPListener) error {
	return srv.serve(&tcpListener{TCPListener: l, srv: srv})
}

func (srv *Server) serve(l net.Listener) error {
	err := srv.smtp.Serve(l)
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Shutdown takes no new connections, lets those under way end until ctx does,
// and closes the rest. When it returns nothing is written to the spool any more.
func (srv *Server) Shutdown(ctx context.Context) {
	_ = srv.smtp.Shutdown(ctx) // what it did not wait for is closed here
	srv.mu.Lock()
	srv.closing = true
	for c := range srv.open { // and what came in just before it closed the socket
		c.Conn.Close()
	}
	srv.mu.Unlock()
	srv.active.Wait()
}

// register has Shutdown close c, until c is closed.
func (srv *Server) register(c *conn) *conn {
	srv.mu.Lock()
	srv.open[c] = struct{}{}
	srv.mu.Unlock()
	c.gone = func() {
		srv.mu.Lock()
		delete(srv.open, c)
		srv.mu.Unlock()
	}
	return c
}

// enter begins a transaction that writes to the spool, if it still may; the end
// is active.Done.
func (srv *Server) enter() bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if !srv.closing {
		srv.active.Add(1)
	}
	return !srv.closing
}

func (srv *Server) newSession(c *smtp.Conn) (smtp.Session, error) {
	conn, ok := c.Conn().(*conn)
	if !ok {
		return nil, fmt.Errorf("a session on a %T: our listeners make none", c.Conn())
	}
	s := &session{srv: srv, conn: conn}
	// On the socket and in drop/ the kernel says whose name space the ID is in.
	if id, err := spool.ParseSubmissionName(c.Hostname()); err == nil && conn.trusted() {
		s.submission = id
	}
	return s, nil
}

// serverLog sorts what go-smtp has to say: a panic is ours to mend, the rest is a
// client that went away.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Printf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	level := slog.LevelDebug
	if strings.HasPrefix(text, "panic") && !lateChunk(text) {
		level = slog.LevelError
	}
	l.log.Log(context.Background(), level, "session", "err", text)
}

// lateChunk reports whether text, with its stack, is of the one panic that a client
// can cause: the library's goroutine for a chunk begins when the client has gone, and
// finds no session to give it to. Nothing of ours is on that stack.
func lateChunk(text string) bool {
	return strings.Contains(text, "nil pointer") && strings.Contains(text, "smtp.(*Conn).handleBdat.func") &&
		!strings.Contains(text, "postino/spool/submit.")
}

func (l serverLog) Println(v ...any) { l.Printf("%s", strings.TrimSpace(fmt.Sprintln(v...))) }
