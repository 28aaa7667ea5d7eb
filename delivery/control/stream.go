package control

import (
	"io"
	"iter"
	"net/http"
	"sync"
	"time"
)

// heartbeat is how often a list that has nothing to tell says so, with an empty
// line: the other side gives up after ioTimeout.
const heartbeat = ioTimeout / 3

// linger is how long a line waits for others to be sent with it.
const linger = 100 * time.Millisecond

// stream writes one object a line. An element that is an error is a line with
// that error, and the rest follows.
func stream[T any](w http.ResponseWriter, elements iter.Seq2[T, error]) error {
	w.Header().Set("Content-Type", "application/jsonl")
	out := newLineWriter(w)
	defer out.close()
	for v, err := range elements {
		var line []byte
		if err == nil {
			line, err = Line(v)
		}
		if err != nil {
			line, _ = Line(newFailure(err))
		}
		if out.write(line) != nil {
			return nil // nobody listens any more
		}
	}
	return nil
}

// lineWriter collects lines and writes them when there is a chunk, or after linger.
type lineWriter struct {
	w    io.Writer
	stop chan struct{}
	done chan struct{}

	mu   sync.Mutex
	buf  []byte    // guarded by mu
	last time.Time // guarded by mu: of the last write
	err  error     // guarded by mu: the first of writing
}

func newLineWriter(w http.ResponseWriter) *lineWriter {
	l := &lineWriter{w: patient(w), stop: make(chan struct{}), done: make(chan struct{}), last: time.Now()}
	go l.beat()
	return l
}

func (l *lineWriter) beat() {
	defer close(l.done)
	tick := time.NewTicker(linger)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		l.mu.Lock()
		if time.Since(l.last) >= heartbeat {
			l.buf = append(l.buf, '\n')
		}
		if len(l.buf) > 0 {
			l.flush()
		}
		l.mu.Unlock()
	}
}

func (l *lineWriter) write(line []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf = append(l.buf, line...); len(l.buf) >= chunk {
		l.flush()
	}
	return l.err
}

// flush is called with mu held.
func (l *lineWriter) flush() {
	if l.err == nil && len(l.buf) > 0 {
		_, l.err = l.w.Write(l.buf)
	}
	l.buf, l.last = l.buf[:0], time.Now()
}

// close writes what is left.
func (l *lineWriter) close() {
	close(l.stop)
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flush()
}

// patient gives each write to w its own deadline, so that a long answer may take
// as long as its reader goes on reading, and sends it at once.
func patient(w http.ResponseWriter) io.Writer {
	return patientWriter{w, http.NewResponseController(w)}
}

type patientWriter struct {
	w   io.Writer
	ctl *http.ResponseController
}

func (p patientWriter) Write(b []byte) (int, error) {
	if err := p.ctl.SetWriteDeadline(time.Now().Add(ioTimeout)); err != nil {
		return 0, err
	}
	n, err := p.w.Write(b)
	if err == nil {
		err = p.ctl.Flush()
	}
	return n, err
}
