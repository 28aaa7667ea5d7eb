package delivery

import (
	"math/rand/v2"
	"time"
)

// RetryAfter returns how long a recipient waits after its nth failed attempt (n
// counts from 1). The wait doubles from first up to most and is then spread by
// ±10 %, so that mail deferred together is not tried together again (RFC 5321
// §4.5.4.1 asks for a schedule that backs off).
func RetryAfter(n int, first, most time.Duration) time.Duration {
	wait := first
	for i := 1; i < n && wait < most; i++ {
		wait *= 2
	}
	wait = min(wait, most)
	return wait + time.Duration((rand.Float64()-0.5)*0.2*float64(wait))
}
