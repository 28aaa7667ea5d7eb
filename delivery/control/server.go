package control

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"postino/delivery"
	"postino/spool"
	"postino/spool/warnings"
)

const (
	// headerTimeout bounds the wait for a request, idleTimeout that for the next. Half a
	// minute is how long a virtual machine may stand still, which says nothing about who
	// is at the other side.
	headerTimeout = 30 * time.Second
	idleTimeout   = 30 * time.Second
	// ioTimeout bounds one write of an answer, and on the other side one read.
	ioTimeout = 30 * time.Second
	// maxHeader bounds a request, in octets. Requests have no body, and the longest
	// part of one is what to trace.
	maxHeader = 16 << 10
	// chunk is how many octets of an answer are written at a time.
	chunk = 32 << 10
)

// ErrNotAllowed means: only those who administer the runner may do that.
var ErrNotAllowed = errors.New("not allowed: only root, the runner's user and members of its group may do that")

// ErrConflict means: the message, or the runner, is not in a state for that.
var ErrConflict = errors.New("not possible now")

// Options are what a Server needs. Spool and Runner must be set.
type Options struct {
	Spool  *spool.Spool
	Runner *delivery.Runner
	// Owner and Group are the runner's: that user and the members of that group
	// may do what root may.
	Owner, Group int
	// MailqAll reports whether everybody may see everybody's addresses and reasons;
	// nil means no.
	MailqAll func() bool
	// Stop tells the runner to end. It must not block.
	Stop func()
	// UntilEmpty: the runner was started for the moment, and yields to another one.
	UntilEmpty bool
	// Reload has the runner read its configuration again, and says what is wrong with
	// it; then the old one stays in use.
	Reload func(context.Context) error
	// Version, Started and Mode are told to whoever asks. A nil Mode is "".
	Version string
	Started time.Time
	Mode    func() string
	// Journal is what followers of the log read; nil means nothing but history.
	Journal *Journal
	// Metrics are what Scrape tells besides the queue; nil means none.
	Metrics *Metrics
	// Log takes what goes wrong inside the server; nil means nowhere.
	Log *slog.Logger
}

// Server answers on control.sock.
type Server struct {
	o      Options
	http   *http.Server
	ending chan struct{} // closed when Shutdown begins
	end    func()        // closes it
}

// NewServer returns a Server; Serve starts it.
func NewServer(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Journal == nil {
		o.Journal = NewJournal()
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics()
	}
	s := &Server{o: o, ending: make(chan struct{})}
	s.end = sync.OnceFunc(func() { close(s.ending) })
	s.http = &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout,
		WriteTimeout:      ioTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          warnings.New(o.Log).Logger("control socket"),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, c.(*visitor).peer)
		},
	}
	return s
}

type peerKey struct{}

// Serve answers those who connect to l, which must be a unix socket, until
// Shutdown.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(&gate{Listener: l, isAdmin: s.o.isAdmin, users: make(map[int]int)})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown closes the listener, ends what follows the log, lets other answers under
// way finish until ctx ends, and then cuts them.
func (s *Server) Shutdown(ctx context.Context) {
	s.end()
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
}

// request is one request and who made it.
type request struct {
	*http.Request
	peer  peer
	admin bool
	view  View
}

type handler = func(http.ResponseWriter, *request) error

func (s *Server) routes() http.Handler {
	handlers := map[string]handler{
		"GET /status":        s.status,
		"GET /queue":         s.queue,
		"GET /message/{id}":  s.message,
		"GET /trace":         s.trace,
		"GET /capture":       s.capture,
		"GET /stats":         s.stats,
		"GET /log":           s.logLines,
		"GET /metrics":       s.metrics,
		"GET /content/{id}":  s.content,
		"GET /route":         s.route,
		"GET /suspensions":   s.admin(s.suspensions),
		"POST /suspend":      s.admin(s.suspend),
		"POST /resume":       s.admin(s.resume),
		"GET /export":        s.admin(s.envelopes),
		"POST /export/{id}":  s.admin(s.giveAway),
		"POST /import":       s.admin(s.importMessage),
		"POST /flush":        s.admin(s.flush),
		"POST /stop":         s.admin(s.stop),
		"POST /yield":        s.admin(s.yield),
		"POST /reload":       s.admin(s.reload),
		"POST /compact":      s.admin(s.compact),
		"GET /hosts":         s.admin(s.hosts),
		"GET /logins":        s.admin(s.logins),
		"POST /hosts/forget": s.admin(s.forgetHost),
	}
	for _, v := range Verbs() {
		handlers["GET /"+string(v)] = s.preview(v)
		handlers["POST /"+string(v)] = s.steer(v)
	}
	mux := http.NewServeMux()
	for pattern, h := range handlers {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, s.request(r)); err != nil {
				fail(w, err)
			}
		})
	}
	return mux
}

func (s *Server) request(r *http.Request) *request {
	p := r.Context().Value(peerKey{}).(peer)
	admin := s.o.isAdmin(p)
	all := admin || s.o.MailqAll != nil && s.o.MailqAll()
	return &request{Request: r, peer: p, admin: admin,
		view: View{Spool: s.o.Spool, Access: Access{UID: p.uid, All: all, Admin: admin}, Hop: s.o.Runner.Hop}}
}

// failure is the body of every answer that is no success, and a line of a list in
// the place of what cannot be told.
type failure struct {
	Error string `json:"error"`
	Code  int    `json:"code"` // of HTTP
}

func newFailure(err error) failure {
	code := http.StatusInternalServerError
	switch {
	case errors.Is(err, spool.ErrNotFound):
		code = http.StatusNotFound
	case errors.Is(err, ErrContentGone):
		code = http.StatusGone
	case errors.Is(err, ErrNotAllowed):
		code = http.StatusForbidden
	case errors.Is(err, ErrConflict), errors.Is(err, spool.ErrExists), errors.Is(err, spool.ErrChanged):
		code = http.StatusConflict
	case errors.Is(err, ErrConfig):
		code = http.StatusUnprocessableEntity
	case errors.Is(err, errBadRequest):
		code = http.StatusBadRequest
	}
	return failure{Error: err.Error(), Code: code}
}

func fail(w http.ResponseWriter, err error) {
	f := newFailure(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.Code)
	line, _ := Line(f)   // a string always encodes
	_, _ = w.Write(line) // who has gone does not mind
}

// answer writes one object.
func answer(w http.ResponseWriter, v any) error {
	line, err := Line(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(line)
	return nil
}

func (s *Server) status(w http.ResponseWriter, r *request) error {
	st := Status{
		PID: os.Getpid(), Version: s.o.Version, Pending: s.o.Runner.Pending(),
		Started: s.o.Started.UTC(), UptimeMS: time.Since(s.o.Started).Milliseconds(), UntilEmpty: s.o.UntilEmpty,
		Warnings: append([]string{}, s.o.Spool.Warnings()...), Alerts: []Alert{},
	}
	if s.o.Mode != nil {
		st.Mode = s.o.Mode()
	}
	if r.admin {
		st.Alerts = newAlerts(s.o.Runner.Alerts())
	}
	return answer(w, st)
}
