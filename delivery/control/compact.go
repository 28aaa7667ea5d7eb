package control

import (
	"context"
	"net/http"
)

// Compacted is the size of the spool file, in octets, before and after it was
// compacted.
type Compacted struct {
	Before int64 `json:"before"`
	After  int64 `json:"after"`
}

// compact answers with a list of one element, since it may take long.
func (s *Server) compact(w http.ResponseWriter, _ *request) error {
	return stream(w, func(yield func(Compacted, error) bool) {
		before, after, err := s.o.Spool.Compact()
		yield(Compacted{before, after}, err)
	})
}

// Compact has the runner write the spool file anew without its free pages; who
// submits waits meanwhile.
func (c *Client) Compact(ctx context.Context) (Compacted, error) {
	var out Compacted
	var failed error
	for r, err := range list[Compacted](ctx, c, http.MethodPost, "/compact") {
		out, failed = r, err
	}
	return out, failed
}
