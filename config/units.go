package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Size is a number of octets. Text is a whole number with KiB, MiB or GiB after
// it, or without a unit for octets: "50MiB", "65536".
type Size int64

// maxSize bounds a Size to 1 PiB, above any file system this is meant for and far
// from the end of an int64, so that sums of sizes need no check.
const maxSize = 1 << 50

// sizeUnits, the largest first: String takes the first that divides.
var sizeUnits = []struct {
	name   string
	octets int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// UnmarshalText refuses zero, what is no whole number, and more than 1 PiB.
func (s *Size) UnmarshalText(b []byte) error {
	digits, unit := string(b), int64(1)
	for _, u := range sizeUnits {
		if before, found := strings.CutSuffix(digits, u.name); found {
			digits, unit = before, u.octets
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n == 0 || n > uint64(maxSize/unit) {
		return fmt.Errorf(`%s is not a size: write a whole number and KiB, MiB or GiB, such as "50MiB"`, quote(string(b)))
	}
	*s = Size(int64(n) * unit)
	return nil
}

// String is the shortest text that UnmarshalText reads as s.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && int64(s)%u.octets == 0 {
			return strconv.FormatInt(int64(s)/u.octets, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// Duration is a time.Duration whose text may also count days and weeks: "90s",
// "1h30m", "5d", "1w2d12h".
type Duration time.Duration

const day = Duration(24 * time.Hour)

// maxDuration bounds a Duration to about ten years: more is a slip, and times
// with as much added stay far from the end of an int64 of nanoseconds.
const maxDuration = 3660 * day

func minutes(n int) Duration { return Duration(n) * Duration(time.Minute) }
func hours(n int) Duration   { return Duration(n) * Duration(time.Hour) }

// D is d as the type of package time.
func (d Duration) D() time.Duration { return time.Duration(d) }

// UnmarshalText refuses zero, signs, numbers without a unit and more than ten
// years. Weeks come before days, and both before what time.ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) error {
	rest, sum, ok := string(b), Duration(0), true
	for _, unit := range []struct {
		name  string
		hours Duration
	}{{"w", 7 * 24}, {"d", 24}} {
		number, after, found := strings.Cut(rest, unit.name)
		if !found {
			continue
		}
		n, valid := parseGo(number + "h")
		ok = ok && valid && strings.Trim(number, "0123456789.") == "" && n <= maxDuration/unit.hours
		sum, rest = sum+n*unit.hours, after
	}
	if rest != "" || sum == 0 {
		n, valid := parseGo(rest)
		ok = ok && valid
		sum += n
	}
	if !ok || sum <= 0 || sum > maxDuration {
		return fmt.Errorf(`%s is not a duration: write a number and s, m, h, d or w, such as "5m" or "5d"`, quote(string(b)))
	}
	*d = sum
	return nil
}

// parseGo is time.ParseDuration without signs and above ten years.
func parseGo(s string) (Duration, bool) {
	n, err := time.ParseDuration(s)
	if err != nil || strings.ContainsAny(s, "+-") || Duration(n) > maxDuration {
		return 0, false
	}
	return Duration(n), true
}

// String is text that UnmarshalText reads as d, in days where that is exact.
func (d Duration) String() string {
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
