// Package warnings bounds the lines of log that somebody can cause at will, or that one
// cause makes again and again: of each kind there is one a minute, with a count of those
// that were left out.
package warnings

import (
	"bytes"
	"context"
	golog "log"
	"log/slog"
	"sync"
	"time"
)

// Interval is the least time between two lines of one kind: whoever reads the log sees
// that it goes on, and nobody fills a disk with it.
const Interval = time.Minute

// LeftOut is the key of how many lines of a kind were left out since the last one.
const LeftOut = "left_out"

// Log writes such lines. Its kinds are few: a kind is what a line says in the program's
// words.
type Log struct {
	log *slog.Logger

	mu    sync.Mutex
	kinds map[string]*kind // guarded by mu
}

type kind struct {
	last    time.Time
	leftOut int
}

// New returns a Log that writes to log.
func New(log *slog.Logger) *Log { return &Log{log: log, kinds: make(map[string]*kind)} }

// Warn logs a warning of a kind, or counts it.
func (l *Log) Warn(msg string, args ...any) { l.say(slog.LevelWarn, msg, args) }

// Error logs an error of a kind, or counts it.
func (l *Log) Error(msg string, args ...any) { l.say(slog.LevelError, msg, args) }

func (l *Log) say(level slog.Level, msg string, args []any) {
	leftOut, due := l.due(msg)
	if !due {
		return
	}
	if leftOut > 0 {
		args = append(args[:len(args):len(args)], LeftOut, leftOut)
	}
	l.log.Log(context.Background(), level, msg, args...)
}

// due reports whether a line of a kind may be written now, and how many were left out
// before it.
func (l *Log) due(msg string) (leftOut int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, now := l.kinds[msg], time.Now()
	if k == nil {
		k = new(kind)
		l.kinds[msg] = k
	} else if now.Sub(k.last) < Interval {
		k.leftOut++
		return 0, false
	}
	leftOut, k.leftOut, k.last = k.leftOut, 0, now
	return leftOut, true
}

// Logger is for a library that writes lines of its own: they are warnings of one kind.
func (l *Log) Logger(msg string) *golog.Logger { return golog.New(writer{l, msg}, "", 0) }

type writer struct {
	log *Log
	msg string
}

func (w writer) Write(line []byte) (int, error) {
	w.log.Warn(w.msg, "err", string(bytes.TrimSpace(line)))
	return len(line), nil
}
