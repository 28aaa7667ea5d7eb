package submit

import (
	"errors"
	"log/slog"
	"time"

	"postino/spool"
	"postino/spool/warnings"
)

const (
	// maxLeft is how many files are remembered that are left in drop/, and maxReports
	// how many are named in the log within a minute: anybody may make many.
	maxLeft    = 10_000
	maxReports = 20
	// minLater and maxLater bound how long a file that was read in vain is left alone;
	// the wait doubles.
	minLater = 10 * time.Second
	maxLater = 10 * time.Minute
)

// leftFiles says what is wrong with files in drop/, of each once, and remembers
// which of them wait.
type leftFiles struct {
	log   *slog.Logger
	often *warnings.Log // for what is not named
	files map[string]*leftFile
	look  int // counts the looks at the directory

	since   time.Time // the minute that named is of
	named   int       // how many were
	unnamed int       // how many of those that stay this look found and did not name
	told    int       // the most of these that was told
}

type leftFile struct {
	look  int // the last one that saw it
	wait  time.Duration
	again time.Time
}

// begin begins a look.
func (l *leftFiles) begin() {
	l.look++
	l.unnamed = 0
	if now := time.Now(); now.Sub(l.since) >= warnings.Interval {
		l.since, l.named = now, 0
	}
}

// waits reports whether a file is to be left alone for now.
func (l *leftFiles) waits(name string) bool {
	f := l.files[name]
	if f == nil || !time.Now().Before(f.again) {
		return false
	}
	f.look = l.look
	return true
}

// note takes down what is wrong with a file; nil is nothing.
func (l *leftFiles) note(name string, err error) {
	var aside *setAsideError
	switch {
	case err == nil:
	case errors.As(err, &aside):
		// It is not seen again.
		say, msg := l.often.Warn, "more drop files rejected"
		if l.names() {
			say, msg = l.log.Warn, "drop file rejected"
		}
		say(msg, "file", spool.CleanText(name), "uid", aside.uid, "err", err)
	case !l.keep(name, err):
	case l.names():
		l.log.Warn("drop file left", "file", spool.CleanText(name), "err", err)
	default:
		l.unnamed++
	}
}

// names reports whether one more file may be named, and counts it.
func (l *leftFiles) names() bool {
	if l.named >= maxReports {
		return false
	}
	l.named++
	return true
}

// keep remembers a file that stays, and reports whether it was not known.
func (l *leftFiles) keep(name string, err error) bool {
	f := l.files[name]
	isNew := f == nil
	if isNew {
		if len(l.files) >= maxLeft {
			return true
		}
		f = new(leftFile)
		if l.files == nil {
			l.files = make(map[string]*leftFile)
		}
		l.files[name] = f
	}
	f.look = l.look
	var later *laterError
	if errors.As(err, &later) {
		f.wait = min(max(2*f.wait, minLater), maxLater)
		f.again = time.Now().Add(f.wait)
	}
	return isNew
}

// end forgets the files that are gone, and tells how many were not named.
func (l *leftFiles) end() {
	for name, f := range l.files {
		if f.look != l.look {
			delete(l.files, name)
		}
	}
	if l.unnamed > 2*l.told {
		l.told = l.unnamed
		l.often.Warn("more drop files left", "count", l.unnamed)
	}
}
