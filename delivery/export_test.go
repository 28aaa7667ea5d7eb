package delivery

import "time"

// SetGrace has a stop wait so long for attempts under way, for the tests outside.
func (r *Runner) SetGrace(d time.Duration) { r.grace = d }
