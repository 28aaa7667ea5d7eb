package control

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"postino/spool"
	"postino/spool/address"
)

// errBadRequest: a client that does not know this interface.
var errBadRequest = errors.New("not a request that this postino knows")

// errorTrailer is the HTTP trailer that says what was wrong with content that had
// been sent in part already.
const errorTrailer = "Postino-Error"

// maxWhat is how many octets of what to trace are looked at: the length of the
// longest line a header field may have (RFC 5322 §2.1.1).
const maxWhat = 998

func (s *Server) queue(w http.ResponseWriter, r *request) error {
	sel, err := ParseSelection(r.URL.Query())
	if err != nil {
		return err
	}
	return stream(w, r.view.Queue(sel))
}

func (s *Server) message(w http.ResponseWriter, r *request) error {
	id, err := r.id()
	if err != nil {
		return err
	}
	t, err := r.view.Show(id)
	if err != nil {
		return err
	}
	return answer(w, t)
}

func (s *Server) trace(w http.ResponseWriter, r *request) error {
	what := r.URL.Query().Get("q")
	if what == "" || len(what) > maxWhat {
		return fmt.Errorf("%w: what to trace must have 1 to %d octets", errBadRequest, maxWhat)
	}
	return stream(w, r.view.Trace(what))
}

func (s *Server) route(w http.ResponseWriter, r *request) error {
	a, err := address.Parse(r.URL.Query().Get("address"))
	if err != nil {
		return fmt.Errorf("%w: %w", errBadRequest, err)
	}
	return stream(w, func(yield func(Route, error) bool) {
		for _, d := range s.o.Runner.Route(r.Context(), a) {
			if !yield(Route{Address: d.Address.String(), Hop: d.Hop, TLS: d.TLS, Problem: d.Problem}, nil) {
				return
			}
		}
	})
}

func (s *Server) capture(w http.ResponseWriter, r *request) error {
	return stream(w, r.view.Captured())
}

func (s *Server) content(w http.ResponseWriter, r *request) error {
	id, err := r.id()
	if err != nil {
		return err
	}
	content, err := r.view.Content(id)
	if err != nil {
		return err
	}
	defer content.Close()
	w.Header().Set("Content-Type", "message/rfc822")
	w.Header().Set("Trailer", errorTrailer)
	source := &keepError{r: content}
	_, _ = io.CopyBuffer(patient(w), source, make([]byte, chunk))
	if source.err != nil {
		w.Header().Set(errorTrailer, source.err.Error())
	}
	return nil
}

// keepError tells errors of reading from those of writing. It also hides what else
// a reader can do, or a copy would go round the deadlines.
type keepError struct {
	r   io.Reader
	err error
}

func (k *keepError) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	if err != nil && err != io.EOF {
		k.err = err
	}
	return n, err
}

func (r *request) id() (spool.ID, error) {
	id, err := spool.ParseID(r.PathValue("id"))
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errBadRequest, err)
	}
	return id, nil
}

// admin refuses h to ordinary users.
func (s *Server) admin(h func(http.ResponseWriter, *request) error) func(http.ResponseWriter, *request) error {
	return func(w http.ResponseWriter, r *request) error {
		if !r.admin {
			return ErrNotAllowed
		}
		return h(w, r)
	}
}

func (s *Server) flush(w http.ResponseWriter, _ *request) error {
	s.o.Runner.Retry()
	return answer(w, struct{}{})
}

func (s *Server) yield(w http.ResponseWriter, _ *request) error {
	if !s.o.UntilEmpty {
		return fmt.Errorf("%w: this runner was started to stay: stop it instead", ErrConflict)
	}
	return s.stop(w, nil)
}

func (s *Server) stop(w http.ResponseWriter, _ *request) error {
	if s.o.Stop != nil {
		s.o.Stop()
	}
	return answer(w, struct{}{})
}

func (s *Server) reload(w http.ResponseWriter, r *request) error {
	if s.o.Reload != nil {
		if err := s.o.Reload(r.Context()); err != nil {
			return fmt.Errorf("%w: %w", ErrConfig, err)
		}
	}
	return answer(w, struct{}{})
}
