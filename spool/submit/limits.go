package submit

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"postino/spool"
)

// Rate is how many of something there may be in how long a time. The zero Rate is no
// limit.
type Rate struct {
	N   int
	Per time.Duration
}

// limits hold what a uid submits above its rates. The counts are in memory and made
// anew from the spool, so that a restart does not favour who was above them.
type limits struct {
	messages, recipients Rate

	mu    sync.Mutex
	meter [2]meter // guarded by mu: of messages, of recipients
}

// newLimits counts what the spool has of the time that matters at now.
func newLimits(s *spool.Spool, p *Policy, now time.Time) *limits {
	l := &limits{messages: p.PerUID, recipients: p.RecipientsPerUID}
	l.meter = [2]meter{
		{key: "limits.per_uid", what: "messages", rate: p.PerUID},
		{key: "limits.recipients_per_uid", what: "recipients", rate: p.RecipientsPerUID},
	}
	longest := max(p.PerUID.Per, p.RecipientsPerUID.Per)
	if longest == 0 {
		return l
	}
	// An ID is of the time when a submission began, which may be long before it came.
	for m := range s.Arrivals(now.Add(-2 * longest)) {
		if m.Origin.Via != spool.ViaDSN {
			l.count(m, now, 1)
		}
	}
	return l
}

// admit counts m, or holds it if it is more than its uid may submit, and returns the
// meter that says so. What is held already is not counted, nor is what admit holds.
func (l *limits) admit(m *spool.Message, now time.Time) *meter {
	if m.Held != "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, n := range amounts(m) {
		if mt := &l.meter[i]; !mt.room(m.Origin.UID, m.Arrived, now, n) {
			m.HeldBy = spool.ByLimit
			m.Held = fmt.Sprintf("uid %d submits more than %d %s in %s: %s sets the limit",
				m.Origin.UID, mt.rate.N, mt.what, inWords(mt.rate.Per), mt.key)
			return mt
		}
	}
	for i, n := range amounts(m) {
		l.meter[i].add(m.Origin.UID, m.Arrived, now, n)
	}
	return nil
}

// amounts are what the meters count of a message.
func amounts(m *spool.Message) [2]int { return [2]int{1, len(m.Recipients)} }

// count adds m sign times, without a limit: -1 is for what admit counted and did not
// come about.
func (l *limits) count(m *spool.Message, now time.Time, sign int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, n := range amounts(m) {
		l.meter[i].add(m.Origin.UID, m.Arrived, now, sign*n)
	}
}

// alert logs that mail of a uid is held, once for each time that the rate is for.
func (l *limits) alert(log *slog.Logger, mt *meter, m *spool.Message, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if mt.news(m.Origin.UID, now) {
		log.Warn("limit reached: more is held until released", "uid", m.Origin.UID, "limit", mt.key,
			"n", mt.rate.N, "per", mt.rate.Per, "id", m.ID)
	}
}

func inWords(d time.Duration) string {
	for per, words := range map[time.Duration]string{
		time.Second: "a second", time.Minute: "a minute", time.Hour: "an hour", 24 * time.Hour: "a day",
	} {
		if d == per {
			return words
		}
	}
	return d.String()
}

// steps is in how many a meter's time slides.
const steps = 60

// meter counts something for each uid over a sliding time.
type meter struct {
	key, what string
	rate      Rate
	uids      map[int]*usage
	tidyAt    int // how many uids there may be before idle ones are forgotten
}

// usage is what one uid used in each step of twice the time: a drop file that has
// waited for the runner counts when it came.
type usage struct {
	newest  int64 // the last step counted, since 1970
	alerted time.Time
	used    [2 * steps]int32
}

// minTidy is how many uids are remembered at least: some 512 octets each.
const minTidy = 1024

// of returns the usage of a uid and the step that a time is in.
func (mt *meter) of(uid int, at, now time.Time) (*usage, int64) {
	step := int64(mt.rate.Per) / steps
	current := now.UnixNano() / step
	u := mt.uids[uid]
	if u == nil {
		mt.tidy(current)
		u = &usage{newest: current}
		mt.uids[uid] = u
	}
	if u.newest > current {
		*u = usage{newest: current} // the clock was wrong then
	}
	for ; u.newest < current; u.newest++ {
		if current-u.newest > 2*steps {
			u.newest = current - 2*steps
		}
		u.used[(u.newest+1)%(2*steps)] = 0
	}
	return u, max(min(at.UnixNano()/step, current), current-2*steps+1)
}

// tidy makes room for one more uid: those idle for long are as those never seen.
func (mt *meter) tidy(current int64) {
	if mt.uids == nil {
		mt.uids = make(map[int]*usage)
	}
	if len(mt.uids) < max(mt.tidyAt, minTidy) {
		return
	}
	for uid, u := range mt.uids {
		if current-u.newest >= 2*steps {
			delete(mt.uids, uid)
		}
	}
	mt.tidyAt = 2 * len(mt.uids)
}

// room reports whether n more at that time would be within the rate.
func (mt *meter) room(uid int, at, now time.Time, n int) bool {
	if mt.rate.N == 0 {
		return true
	}
	u, end := mt.of(uid, at, now)
	sum := n
	// One step more than the time has: it began in the middle of that.
	for s := max(end-steps, u.newest-2*steps+1); s <= end; s++ {
		sum += int(u.used[s%(2*steps)])
	}
	return sum <= mt.rate.N
}

func (mt *meter) add(uid int, at, now time.Time, n int) {
	if mt.rate.N == 0 {
		return
	}
	u, step := mt.of(uid, at, now)
	used := &u.used[step%(2*steps)]
	*used = max(0, *used+int32(n))
}

// news reports whether it is time again for an alert about a uid.
func (mt *meter) news(uid int, now time.Time) bool {
	u, _ := mt.of(uid, now, now)
	if age := now.Sub(u.alerted); age >= 0 && age < mt.rate.Per {
		return false
	}
	u.alerted = now
	return true
}
