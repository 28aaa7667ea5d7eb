// Package oracle says whether mail was lost. All tests of durability use it, so
// that they mean the same by it.
//
// A test makes each message with Compose, hands it to a front end, and has a
// Ledger remember, outside of whatever is put to the test, how that front end
// ended. After a fault it asks Judge, which opens the spool as the next runner
// would, has spool.Check read all of it, and compares the union of queue, drop/
// and what the server was given with the Ledger:
//
//	message, sub := oracle.Compose(random, "subject 7", 40)
//	sub.Status = run(sendmail, message) // -1 when it was killed
//	ledger.Add(sub)
//	… fault, power cut, kill …
//	if err := ledger.Judge(dir, delivered).Err(0); err != nil { t.Error(err) }
//
// The law: what ended with 0 is in the union at least once, and whole; one
// hand-over makes one message; nothing is there that was never handed over.
package oracle

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
)

// Submission is one run of a front end.
type Submission struct {
	// Subject is the message's, and names it; no two submissions share one.
	Subject string
	// Sum is of the body as it has to arrive, lines ending in CRLF.
	Sum [sha256.Size]byte
	// Status is the front end's exit status, -1 after a signal. 0 promises that the
	// message is stored.
	Status int
}

// Compose makes a message with so many lines of 68 octets in its body, which a
// front end is given as it is; line ends are LF. The caller fills in Status.
func Compose(random *rand.Rand, subject string, lines int) (message string, s Submission) {
	var body strings.Builder
	for range lines {
		fmt.Fprintf(&body, "%016x %016x %016x %016x\n", random.Uint64(), random.Uint64(), random.Uint64(), random.Uint64())
	}
	body.WriteString("end of " + subject + "\n")
	sum := sha256.Sum256([]byte(strings.ReplaceAll(body.String(), "\n", "\r\n")))
	return "Subject: " + subject + "\n\n" + body.String(), Submission{Subject: subject, Sum: sum}
}

// Ledger is what front ends said. The zero value is empty; it may be used by
// several goroutines.
type Ledger struct {
	mu      sync.Mutex
	sent    map[string]Submission // by subject; guarded by mu
	givenUp map[string]bool       // by subject; guarded by mu
}

// Add records how a front end ended.
func (l *Ledger) Add(s Submission) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sent == nil {
		l.sent = make(map[string]Submission)
	}
	l.sent[s.Subject] = s
}

// GiveUp records that an administrator may have deleted a message, from when on
// it may be missing. It is called before the deletion is tried.
func (l *Ledger) GiveUp(subject string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.givenUp == nil {
		l.givenUp = make(map[string]bool)
	}
	l.givenUp[subject] = true
}

// Submissions are all that were added, by subject.
func (l *Ledger) Submissions() []Submission {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []Submission
	for _, subject := range slices.Sorted(maps.Keys(l.sent)) {
		list = append(list, l.sent[subject])
	}
	return list
}

// Verdict is what Judge found.
type Verdict struct {
	// Accepted is how many submissions ended with 0, Killed with -1.
	Accepted, Killed int
	// Queued, Dropped and Delivered are how many messages are in the queue, in drop/
	// and at the server, a second copy counted again.
	Queued, Dropped, Delivered int
	// Duplicates is how many times the server was given a message that it had.
	Duplicates int
	// Lost were accepted and are nowhere. Torn are somewhere, accepted or not, and
	// not whole. Doubled became two messages. Unknown were never handed over.
	Lost, Torn, Doubled, Unknown []string
	// Refused are somewhere although their front end ended with an error: a test
	// decides whether it may, for with two faults it cannot always know.
	Refused []string
	// Damage is what kept the spool from being opened, and all that spool.Check does
	// not allow; nil when it is sound.
	Damage error
}

// Err is everything that must never be, and more than so many duplicates at the
// delivery, as one error. Refused is not among it.
func (v Verdict) Err(duplicates int) error {
	var found []error
	for _, of := range []struct {
		what     string
		subjects []string
	}{
		{"accepted and lost", v.Lost}, {"not whole", v.Torn}, {"became two messages", v.Doubled}, {"never handed over", v.Unknown},
	} {
		if len(of.subjects) > 0 {
			found = append(found, fmt.Errorf("%d %s: %q", len(of.subjects), of.what, of.subjects[:min(10, len(of.subjects))]))
		}
	}
	if v.Duplicates > duplicates {
		found = append(found, fmt.Errorf("%d messages delivered again, at most %d may be", v.Duplicates, duplicates))
	}
	if v.Damage != nil {
		found = append(found, fmt.Errorf("the spool: %w", v.Damage))
	}
	return errors.Join(found...)
}

// Judge compares the spool directory dir, which no runner may have, and the
// messages that the server was given, as they came, with what front ends said.
func (l *Ledger) Judge(dir string, delivered [][]byte) Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, err := Look(dir)
	v := Verdict{Damage: err, Queued: len(s.Queue), Dropped: len(s.Drops), Delivered: len(delivered)}
	where := make(map[string]bool) // by subject: somewhere, and whole
	see := func(c Copy) {
		sub, known := l.sent[c.Subject]
		switch {
		case !c.Whole || known && c.Sum != sub.Sum:
			v.Torn = append(v.Torn, c.Subject)
		case !known:
			v.Unknown = append(v.Unknown, c.Subject)
		default:
			where[c.Subject] = true
		}
	}
	for _, c := range slices.Concat(s.Queue, s.Drops) {
		see(c)
	}
	first := make(map[string]string)
	for _, data := range delivered {
		c := read(data)
		see(c)
		// One that arrives again was sent again. Had it been stored twice, it would
		// have another queue ID in its Received field.
		if other, again := first[c.Subject]; !again {
			first[c.Subject] = string(data)
		} else if v.Duplicates++; other != string(data) {
			v.Doubled = append(v.Doubled, c.Subject)
		}
	}
	v.Doubled = append(v.Doubled, s.doubled()...)
	for subject, sub := range l.sent {
		switch {
		case sub.Status < 0:
			v.Killed++
		case sub.Status > 0 && where[subject]:
			v.Refused = append(v.Refused, subject)
		case sub.Status == 0:
			v.Accepted++
			if !where[subject] && !l.givenUp[subject] {
				v.Lost = append(v.Lost, subject)
			}
		}
	}
	for _, list := range [][]string{v.Lost, v.Torn, v.Doubled, v.Unknown, v.Refused} {
		slices.Sort(list)
	}
	return v
}
