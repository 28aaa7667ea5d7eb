package main

import (
	"io"
	"sync"
	"time"
)

const (
	// maxLogBacklog is how many octets of log wait for whoever reads it. Some
	// thousand lines: a terminal may be stopped for a moment.
	maxLogBacklog = 1 << 20
	// logGrace is how long the end of the runner waits for the rest to be written; in
	// turns, since on a machine that stood still a wait in one piece is over before
	// anything could be.
	logGrace = 2 * time.Second
	logTurns = 20
)

// logWriter writes lines in its own time. A log that nobody reads (a pipe, a stopped
// terminal, a full disk behind a slow daemon) must not stop mail: what there is no
// room for is dropped and counted.
type logWriter struct {
	out  io.Writer
	wake chan struct{} // a nudge: there is something in buf, or it is the end
	done chan struct{}

	spare []byte // what run wrote last, to be filled again

	mu    sync.Mutex
	buf   []byte // guarded by mu
	lost  int    // guarded by mu: lines dropped since lostLines was told
	ended bool   // guarded by mu

	// lostLines is told how many lines were dropped when there is room again. It may
	// write a line. Nil is allowed; it is set before the first Write.
	lostLines func(n int)
}

func newLogWriter(out io.Writer) *logWriter {
	l := &logWriter{out: out, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go l.run()
	return l
}

// Write takes one line and never waits for its reader. It always succeeds.
func (l *logWriter) Write(line []byte) (int, error) {
	l.mu.Lock()
	if len(l.buf)+len(line) > maxLogBacklog {
		l.lost++
	} else {
		l.buf = append(l.buf, line...)
	}
	l.mu.Unlock()
	nudge(l.wake, struct{}{})
	return len(line), nil
}

func (l *logWriter) run() {
	defer close(l.done)
	for range l.wake {
		for l.writeOut() {
		}
		l.mu.Lock()
		ended := l.ended
		l.mu.Unlock()
		if ended {
			return
		}
	}
}

// writeOut writes what there is and reports whether there was anything.
func (l *logWriter) writeOut() bool {
	l.mu.Lock()
	text, lost := l.buf, l.lost
	l.buf, l.lost = l.spare[:0], 0
	l.mu.Unlock()
	if len(text) > 0 {
		_, _ = l.out.Write(text) // who closed it does not want it
	}
	l.spare = text
	if lost > 0 && l.lostLines != nil {
		l.lostLines(lost)
	}
	return len(text) > 0
}

// close writes what is left, unless nobody reads it.
func (l *logWriter) close() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	nudge(l.wake, struct{}{})
	for range logTurns {
		select {
		case <-l.done:
			return
		case <-time.After(logGrace / logTurns):
		}
	}
}
