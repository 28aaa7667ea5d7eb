package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Rate is how many of something there may be in how long a time: "200/h". The zero
// Rate, written as the empty text, is no limit.
type Rate struct {
	N   int // at least 1
	Per time.Duration
}

// maxRate is the largest N: a thousand messages a second for a day, and far from the
// end of an int on every machine.
const maxRate = 100_000_000

var rateUnits = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}

// UnmarshalText reads a whole number, a slash and s, m, h or d, or nothing at all.
func (r *Rate) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*r = Rate{}
		return nil
	}
	digits, unit, _ := strings.Cut(string(b), "/")
	n, err := strconv.ParseUint(digits, 10, 31)
	per, known := rateUnits[unit]
	if err != nil || n == 0 || n > maxRate || !known {
		return fmt.Errorf(`%s is not a rate: write a whole number from 1 to %d, a slash and s, m, h or d, such as "200/h"`, quote(string(b)), maxRate)
	}
	*r = Rate{N: int(n), Per: per}
	return nil
}

// String is the text that UnmarshalText reads as r.
func (r Rate) String() string {
	for unit, per := range rateUnits {
		if r.Per == per {
			return strconv.Itoa(r.N) + "/" + unit
		}
	}
	return ""
}
