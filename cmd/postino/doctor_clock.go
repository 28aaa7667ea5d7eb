package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// moment is a time that has passed for certain.
type moment struct {
	what string
	at   time.Time
}

// clockSlack is how far a clock may be set back without harm.
const clockSlack = time.Hour

// clock looks whether the time can be right. A wrong one makes certificates invalid, has
// mail rejected for its date and signatures for theirs, and moves the attempts.
func (d *doctor) clock(context.Context) []finding {
	var past []moment
	if path, err := os.Executable(); err == nil {
		if info, err := os.Stat(path); err == nil {
			past = append(past, moment{"this program was made", info.ModTime()})
		}
	}
	entries, _ := os.ReadDir(d.app.spool) // that it is not there is found elsewhere
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			past = append(past, moment{filepath.Join(d.app.spool, e.Name()) + " was written", info.ModTime()})
		}
	}
	return []finding{judgeClock(time.Now(), past)}
}

// judgeClock says whether it can be now, after all that has happened.
func judgeClock(now time.Time, past []moment) finding {
	const check = "host.clock"
	say := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	for _, m := range past {
		if m.at.Sub(now) > clockSlack {
			return finding{check, failing, fmt.Sprintf("it is %s by the clock, and %s at %s", say(now), m.what, say(m.at)),
				"set the clock: timedatectl set-ntp true; where the file is wrong, touch it"}
		}
	}
	return finding{check, well, say(now), ""}
}
