package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"postino/spool"
	"postino/spool/address"
)

// callTimeout bounds a call whose answer is one object.
const callTimeout = 30 * time.Second

// maxAnswer bounds such an answer, in octets: a message with a thousand recipients
// and some hundred attempts for each is far below.
const maxAnswer = 1 << 30

// maxSocketPath is how many octets the path of a unix socket may have (unix(7)).
const maxSocketPath = 107

// ErrNoRunner means: nobody listens on control.sock.
var ErrNoRunner = errors.New(`the runner is not running: start it with "postino run"`)

// ErrConfig means: the runner was asked to read its configuration again, and it is
// wrong.
var ErrConfig = errors.New("the configuration was not taken, the old one stays in use")

// Client asks the runner of a spool directory. Each call has a deadline of its
// own, and a long answer one for each part.
type Client struct {
	dir  string
	http *http.Client
	wait time.Duration // for one read or write
}

// Dial returns a Client for the runner of a spool directory. It connects when it
// is first asked something.
func Dial(spoolDir string) *Client {
	c := &Client{dir: spoolDir, wait: ioTimeout}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return c.connect(ctx) },
		DisableCompression: true, MaxIdleConnsPerHost: maxParallel,
	}}
	return c
}

// maxParallel is how many connections are kept for calls at the same time.
const maxParallel = 32

// DialPatient is Dial for a client that waits so long for a part of an answer: the
// runner may first have to store much.
func DialPatient(spoolDir string, wait time.Duration) *Client {
	c := Dial(spoolDir)
	c.wait = wait
	return c
}

// Close closes the connection.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) connect(ctx context.Context) (net.Conn, error) {
	path := filepath.Join(c.dir, spool.ControlSocket)
	address := path
	if len(path) > maxSocketPath {
		d, err := os.Open(c.dir)
		if err != nil {
			return nil, err
		}
		defer d.Close()
		address = fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), spool.ControlSocket)
	}
	conn, err := (&net.Dialer{Timeout: callTimeout}).DialContext(ctx, "unix", address)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, ErrNoRunner
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := c.trust(conn.(*net.UnixConn)); err != nil {
		conn.Close()
		return nil, err
	}
	return &impatient{conn, c.wait}, nil
}

// trust asks the kernel who listens: root, the owner of the spool directory and
// ourselves are believed, and nobody else who found a place for a socket.
func (c *Client) trust(conn *net.UnixConn) error {
	server, err := peerOf(conn)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(c.dir, &st); err != nil {
		return fmt.Errorf("%s: %w", c.dir, err)
	}
	if server.uid == 0 || server.uid == int(st.Uid) || server.uid == os.Geteuid() {
		return nil
	}
	return fmt.Errorf("%s is served by uid %d, which neither owns the spool directory nor is root: remove it",
		filepath.Join(c.dir, spool.ControlSocket), server.uid)
}

// impatient gives each read and write its own deadline.
type impatient struct {
	net.Conn
	wait time.Duration
}

func (c *impatient) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.wait)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *impatient) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.wait)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// RemoteError is a refusal by the runner. errors.Is finds in it what the runner
// meant: spool.ErrNotFound, ErrContentGone, ErrNotAllowed, ErrConflict or ErrConfig.
type RemoteError struct {
	Code int // of HTTP
	Text string
}

func (e *RemoteError) Error() string { return e.Text }

// Is matches the errors that a Server tells apart.
func (e *RemoteError) Is(target error) bool {
	switch e.Code {
	case http.StatusNotFound:
		return target == spool.ErrNotFound
	case http.StatusGone:
		return target == ErrContentGone
	case http.StatusForbidden:
		return target == ErrNotAllowed
	case http.StatusConflict:
		return target == ErrConflict
	case http.StatusUnprocessableEntity:
		return target == ErrConfig
	}
	return false
}

// do sends a request and returns an answer of success.
func (c *Client) do(ctx context.Context, method, path string) (*http.Response, error) {
	return c.send(ctx, method, path, http.NoBody)
}

// send is do with a body.
func (c *Client) send(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://postino"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, explain(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var f failure
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxHeader))
	if err != nil || json.Unmarshal(text, &f) != nil || f.Error == "" {
		f.Error = "the runner answered " + resp.Status + ": is it of the same version?"
	}
	return nil, &RemoteError{Code: resp.StatusCode, Text: f.Error}
}

// explain makes an error of the HTTP client one that a person can use.
func explain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the runner does not answer: %w", err)
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return errors.New("the runner closed the connection: it is ending, or too many ask at once")
	}
	return err
}

// call has one object for an answer.
func (c *Client) call(ctx context.Context, method, path string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := c.do(ctx, method, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(v); err != nil {
		return explain(err)
	}
	// To its end, or the connection cannot be used again.
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
	return err
}

// list has one object a line for an answer.
func list[T any](ctx context.Context, c *Client, method, path string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		resp, err := c.do(ctx, method, path)
		if err != nil {
			yield(none, err)
			return
		}
		defer resp.Body.Close()
		for dec := json.NewDecoder(resp.Body); ; {
			var line json.RawMessage
			if err := dec.Decode(&line); err == io.EOF {
				return
			} else if err != nil {
				yield(none, explain(err))
				return
			}
			v, err := element[T](line)
			if !yield(v, err) {
				return
			}
		}
	}
}

// element reads one line of a list: an object, or the error in its place.
func element[T any](line []byte) (T, error) {
	var v T
	if bytes.HasPrefix(line, []byte(`{"error":`)) {
		var f failure
		if err := json.Unmarshal(line, &f); err != nil {
			return v, err
		}
		return v, &RemoteError{Code: f.Code, Text: f.Error}
	}
	err := json.Unmarshal(line, &v)
	return v, err
}

// Status returns what the runner says of itself; ErrNoRunner when there is none.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.call(ctx, http.MethodGet, "/status", &s)
	return s, err
}

// Route asks where mail for an address would go: one place, or several for an alias.
func (c *Client) Route(ctx context.Context, a address.Address) iter.Seq2[Route, error] {
	return list[Route](ctx, c, http.MethodGet, "/route?address="+url.QueryEscape(a.String()))
}

// Queue is View.Queue. After an error that is no *RemoteError there is nothing more.
func (c *Client) Queue(ctx context.Context, sel Selection) iter.Seq2[Message, error] {
	return c.messages(ctx, http.MethodGet, "queue", sel)
}

// Preview yields the messages that Steer would change, and changes nothing. Both
// are refused with ErrNotAllowed to all but administrators.
func (c *Client) Preview(ctx context.Context, v Verb, sel Selection) iter.Seq2[Message, error] {
	return c.messages(ctx, http.MethodGet, string(v), sel)
}

// Steer does a verb to the messages that sel means and yields each as it is then.
// Those that the verb does not concern (Hold of held mail) are passed over, unless
// sel names them. Whoever stops early has changed some hundred more than were seen.
func (c *Client) Steer(ctx context.Context, v Verb, sel Selection) iter.Seq2[Message, error] {
	return c.messages(ctx, http.MethodPost, string(v), sel)
}

func (c *Client) messages(ctx context.Context, method, what string, sel Selection) iter.Seq2[Message, error] {
	return listSelected[Message](ctx, c, method, what, sel)
}

// listSelected asks once for each maxIDs messages that sel names.
func listSelected[T any](ctx context.Context, c *Client, method, what string, sel Selection) iter.Seq2[T, error] {
	ask := func(sel Selection) iter.Seq2[T, error] {
		return list[T](ctx, c, method, "/"+what+"?"+sel.Values().Encode())
	}
	if len(sel.IDs) <= maxIDs {
		return ask(sel)
	}
	return first(sel.Limit, func(yield func(T, error) bool) {
		part := sel
		for part.IDs = range slices.Chunk(sel.IDs, maxIDs) {
			for m, err := range ask(part) {
				if !yield(m, err) {
					return
				}
			}
		}
	})
}

// Show is View.Show.
func (c *Client) Show(ctx context.Context, id spool.ID) (Trace, error) {
	var t Trace
	err := c.call(ctx, http.MethodGet, "/message/"+id.String(), &t)
	return t, err
}

// Trace is View.Trace.
func (c *Client) Trace(ctx context.Context, what string) iter.Seq2[Trace, error] {
	return list[Trace](ctx, c, http.MethodGet, "/trace?q="+url.QueryEscape(what))
}

// Log yields lines of the log, in the order of their times: what the spool knows of
// messages, and warnings of the runner. With Follow it goes on with what happens,
// until the runner ends.
func (c *Client) Log(ctx context.Context, q LogQuery) iter.Seq2[Entry, error] {
	return list[Entry](ctx, c, http.MethodGet, "/log?"+q.Values().Encode())
}

// Captured is View.Captured.
func (c *Client) Captured(ctx context.Context) iter.Seq2[Trace, error] {
	return list[Trace](ctx, c, http.MethodGet, "/capture")
}

// Content is View.Content.
func (c *Client) Content(ctx context.Context, id spool.ID) (io.ReadCloser, error) {
	resp, err := c.do(ctx, http.MethodGet, "/content/"+id.String())
	if err != nil {
		return nil, err
	}
	return &remoteContent{resp}, nil
}

// remoteContent turns the error that follows damaged content into one of Read.
type remoteContent struct{ resp *http.Response }

func (r *remoteContent) Read(p []byte) (int, error) {
	n, err := r.resp.Body.Read(p)
	if err == io.EOF {
		if text := r.resp.Trailer.Get(errorTrailer); text != "" {
			err = &RemoteError{Code: http.StatusOK, Text: text}
		}
	}
	return n, err
}

func (r *remoteContent) Close() error { return r.resp.Body.Close() }

// Export yields the envelopes of the messages that sel means; Content has the rest.
func (c *Client) Export(ctx context.Context, sel Selection) iter.Seq2[Envelope, error] {
	return listSelected[Envelope](ctx, c, http.MethodGet, "export", sel)
}

// GiveAway settles a message that was exported when it had so many attempts.
// ErrConflict: something happened to it since, or is happening, and it stays.
func (c *Client) GiveAway(ctx context.Context, id spool.ID, attempts int) (Message, error) {
	var m Message
	err := c.call(ctx, http.MethodPost, fmt.Sprintf("/export/%s?attempts=%d", id, attempts), &m)
	return m, err
}

// Import hands over a message from another spool: its envelope, which must have one
// line, and its content. ErrConflict: it is here already, or was.
func (c *Client) Import(ctx context.Context, envelope []byte, content io.Reader) (Message, error) {
	var m Message
	resp, err := c.send(ctx, http.MethodPost, "/import", io.MultiReader(bytes.NewReader(envelope), strings.NewReader("\n"), content))
	if err != nil {
		return m, err
	}
	defer resp.Body.Close()
	err = json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&m)
	return m, err
}

// Flush makes all deferred mail due at once; what is held stays so. Nothing is
// written for it: when the runner ends, what it did not come to has its old time.
func (c *Client) Flush(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/flush", new(struct{}))
}

// Yield asks a runner that was started for the moment alone to end; ErrConflict
// from any other.
func (c *Client) Yield(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/yield", new(struct{}))
}

// Reload has the runner read its configuration again, as SIGHUP does, and returns when
// that holds; ErrConfig if it is wrong.
func (c *Client) Reload(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/reload", new(struct{}))
}
