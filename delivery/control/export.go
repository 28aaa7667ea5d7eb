package control

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"time"

	"postino/spool"
)

// Envelopes yields the envelopes of the messages that sel means, as Queue does. It
// is for administrators alone.
func (v View) Envelopes(sel Selection) iter.Seq2[Envelope, error] {
	return first(sel.Limit, func(yield func(Envelope, error) bool) {
		for m, err := range v.queue(sel) {
			var out Message
			if err == nil {
				out = newMessage(m, v.Access)
			}
			if (err != nil || sel.matches(&out, v.Hop)) && !yield(Envelope{envelopeVersion, m}, err) {
				return
			}
		}
	})
}

func (s *Server) envelopes(w http.ResponseWriter, r *request) error {
	sel, err := ParseSelection(r.URL.Query())
	if err != nil {
		return err
	}
	return stream(w, r.view.Envelopes(sel))
}

// exportHold is why a message is held while it is given away. Should we end in
// between, it stays held: whoever has the export decides.
const exportHold = "being exported"

// giveAway settles a message that was exported, if nothing happened to it since.
func (s *Server) giveAway(w http.ResponseWriter, r *request) error {
	id, err := r.id()
	if err != nil {
		return err
	}
	attempts, err := natural(r.URL.Query().Get("attempts"))
	if err != nil {
		return fmt.Errorf("%w: %w", errBadRequest, err)
	}
	m, err := s.o.Spool.Message(id)
	if err == nil && !m.Finished.IsZero() {
		err = fmt.Errorf("%s: %w: it is finished", id, ErrConflict)
	}
	if err == nil && m.Held == "" {
		// Then no attempt begins any more.
		_, err = s.o.Spool.Hold(id, exportHold)
	}
	if err != nil {
		return err
	}
	after, err := (*spool.Message)(nil), fmt.Errorf("%s: %w: an attempt is under way", id, ErrConflict)
	if !s.o.Runner.Attempting(id) {
		after, err = s.o.Spool.GiveAway(id, attempts, spool.Reply{Status: "2.0.0",
			Text: fmt.Sprintf("exported by uid %d", r.peer.uid), Command: spool.CommandExport})
	}
	if err != nil && m.Held == "" {
		_, undone := s.o.Spool.Hold(id, "") // as it was
		err = errors.Join(err, undone)
	}
	if err != nil {
		return err
	}
	return answer(w, newMessage(after, r.view.Access))
}

// importMessage takes an envelope, a line end and content.
func (s *Server) importMessage(w http.ResponseWriter, r *request) error {
	body := bufio.NewReaderSize(&patientReader{r.Body, http.NewResponseController(w)}, chunk)
	text, err := readLine(body, MaxEnvelope)
	if err != nil {
		return err
	}
	m, err := ParseEnvelope(text, time.Now())
	if err != nil {
		return fmt.Errorf("%w: %w", errBadRequest, err)
	}
	d, err := s.o.Spool.NewImport(m.ID)
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(&crlfOnly{w: d}, io.LimitReader(body, m.Size+1), make([]byte, chunk)); err != nil {
		d.Discard()
		return fmt.Errorf("%w: %s: %w", errBadRequest, m.ID, err)
	}
	if err := d.Import(m); err != nil {
		return err
	}
	s.o.Log.Info("imported", "id", m.ID, "by", r.peer.uid, "from", m.Sender.String(), "rcpts", len(m.Recipients), "size", m.Size)
	return answer(w, newMessage(m, r.view.Access))
}

// readLine reads a line of at most limit octets, without its end.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > limit:
			return nil, fmt.Errorf("%w: an envelope of more than %d octets", errBadRequest, limit)
		case err == nil:
			return bytes.TrimSuffix(line, []byte("\n")), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("%w: no envelope: %w", errBadRequest, err)
		}
	}
}

// patientReader gives each read of a request its own deadline.
type patientReader struct {
	r   io.Reader
	ctl *http.ResponseController
}

func (p *patientReader) Read(b []byte) (int, error) {
	if err := p.ctl.SetReadDeadline(time.Now().Add(ioTimeout)); err != nil {
		return 0, err
	}
	return p.r.Read(b)
}
