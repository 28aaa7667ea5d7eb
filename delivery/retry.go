package delivery

import (
	"math/rand/v2"
	"time"

	"postino/config"
	"postino/spool"
)

// RetryAfter returns how long a recipient waits after its nth failed attempt (n
// counts from 1). The wait doubles from first up to most and is then spread by
// ±10 %, so that mail deferred together is not tried together again (RFC 5321
// §4.5.4.1 asks for a schedule that backs off).
func RetryAfter(n int, first, most time.Duration) time.Duration {
	wait := step(n, first, most)
	return wait + time.Duration((rand.Float64()-0.5)*0.2*float64(wait))
}

// step is RetryAfter before it is spread.
func step(n int, first, most time.Duration) time.Duration {
	wait := first
	for i := 1; i < n && wait < most; i++ {
		wait *= 2
	}
	return min(wait, most)
}

// due returns the recipients to attempt.
func due(m *spool.Message, now time.Time, force bool) []int {
	var list []int
	if m.Held != "" {
		return nil
	}
	for i, rcpt := range m.Recipients {
		if !rcpt.Status.Settled() && (force || ripe(rcpt.Next, now)) {
			list = append(list, i)
		}
	}
	return list
}

// farthest is how far away a next attempt can be, by any schedule. One that is
// farther was set while the clock was wrong.
const farthest = 31 * 24 * time.Hour

// ripe reports whether an attempt planned for next is due.
func ripe(next, now time.Time) bool { return !next.After(now) || next.Sub(now) > farthest }

// nullLifetime is how long mail with the null reverse-path, reports above all, is
// tried at most: nobody hears of it, and nobody misses it for long.
const nullLifetime = 24 * time.Hour

// lifetime is how old a message gets before it is given up.
func lifetime(m *spool.Message, retry config.Retry) time.Duration {
	if m.Sender.IsNull() {
		return min(time.Duration(retry.Lifetime), nullLifetime)
	}
	return time.Duration(retry.Lifetime)
}

// expiry is when a message is given up, by the clock.
func expiry(m *spool.Message, retry config.Retry) time.Time { return m.Since().Add(lifetime(m, retry)) }

// triedLeast is the time over which a message is tried at least, whatever the clock
// says of its age: the machine may have been off, or suspended, or the clock wrong, or
// the way shut for days. It is more than most servers keep whom they do not know
// waiting.
const triedLeast = 30 * time.Minute

// spread is the time that passes by the schedule from the first attempt to the nth.
// It does not depend on any clock.
func spread(n int, retry config.Retry) time.Duration {
	total := time.Duration(0)
	for i := 1; i < n && total < time.Duration(retry.Lifetime); i++ {
		total += step(i, time.Duration(retry.First), time.Duration(retry.Max))
	}
	return total
}

// over reports whether a message is to be given up when the nth attempt fails at now.
// Attempts that a fault of ours ended do not count. A message that seems to come from
// the future is as old as its attempts make it.
func over(m *spool.Message, n int, retry config.Retry, now time.Time) bool {
	life, tried := lifetime(m, retry), spread(n, retry)
	age := now.Sub(m.Since())
	if age < 0 {
		age = tried
	}
	return age >= life && tried >= min(life/2, triedLeast)
}

// outcome decides what a reply means for recipient n.
func outcome(m *spool.Message, n int, reply spool.Reply, success spool.Status, retry config.Retry, now time.Time) spool.Outcome {
	o := spool.Outcome{Recipient: n, Reply: reply}
	switch reply.Class() {
	case spool.Success:
		o.Status = success
		return o
	case spool.Permanent:
		o.Status = spool.Failed
		return o
	}
	rcpt := &m.Recipients[n]
	nth := rcpt.Attempts - rcpt.Waited + 1
	if reply.Fault == "" && over(m, nth, retry, now) {
		o.Status, o.Reply = spool.Failed, reply.Expired(lifetime(m, retry))
		return o
	}
	o.Status = spool.Deferred
	o.Warned = reply.Fault == "" && retry.WarnAfter > 0 && !now.Before(m.Since().Add(time.Duration(retry.WarnAfter))) && !rcpt.Warned
	// In whole microseconds, as the schedule has it: else the message is taken for
	// due a moment before its recipient is, again and again until that has passed.
	o.Next = now.Add(RetryAfter(nth, time.Duration(retry.First), time.Duration(retry.Max))).Truncate(time.Microsecond)
	if end := expiry(m, retry); now.Before(end) && o.Next.After(end) {
		o.Next = end // one more, just before it is given up
	}
	return o
}
