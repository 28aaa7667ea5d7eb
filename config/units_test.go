package config

import (
	"testing"
	"time"
)

func TestDurationText(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want time.Duration // 0: refused
		text string
	}{
		{"5m", 5 * time.Minute, "5m"},
		{"4h", 4 * time.Hour, "4h"},
		{"5d", 120 * time.Hour, "5d"},
		{"1w2d12h30m", 228*time.Hour + 30*time.Minute, "228h30m"},
		{"1.5d", 36 * time.Hour, "36h"},
		{"90s", 90 * time.Second, "1m30s"},
		{"10m0s", 10 * time.Minute, "10m"},
		{"1h10s", time.Hour + 10*time.Second, "1h0m10s"},
		{"250ms", 250 * time.Millisecond, "250ms"},
		{"522w", 522 * 7 * 24 * time.Hour, "3654d"},
		{"523w", 0, ""},
		{"3660d1s", 0, ""},
		{"30501w", 0, ""}, // three days above 2^64 ns
		{"99999999999w", 0, ""},
		{"1h99999999999999999999d", 0, ""},
		{"", 0, ""},
		{"0", 0, ""},
		{"0d", 0, ""},
		{"0s", 0, ""},
		{"5", 0, ""},
		{"d", 0, ""},
		{"-5m", 0, ""},
		{"+5m", 0, ""},
		{"1d-1h", 0, ""},
		{"-1d", 0, ""},
		{"2d1w", 0, ""},
		{"1h5d", 0, ""},
		{"1d1d", 0, ""},
		{"5 m", 0, ""},
		{"5m ", 0, ""},
		{"5D", 0, ""},
	} {
		var d Duration
		err := d.UnmarshalText([]byte(tt.in))
		if d.D() != tt.want || (err == nil) != (tt.want != 0) {
			t.Errorf("%q: got %v, %v; want %v", tt.in, d.D(), err, tt.want)
		} else if err == nil && d.String() != tt.text {
			t.Errorf("%q: text %q; want %q", tt.in, d, tt.text)
		}
	}
}

func TestSizeText(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Size // 0: refused
		text string
	}{
		{"50MiB", 50 << 20, "50MiB"},
		{"1024KiB", 1 << 20, "1MiB"},
		{"1GiB", 1 << 30, "1GiB"},
		{"1000", 1000, "1000"},
		{"1048576GiB", 1 << 50, "1048576GiB"},
		{"1048577GiB", 0, ""},
		{"9223372036854775808", 0, ""},
		{"18014398509481984KiB", 0, ""}, // 2^64 octets
		{"0", 0, ""},
		{"0MiB", 0, ""},
		{"", 0, ""},
		{"MiB", 0, ""},
		{"-1MiB", 0, ""},
		{"+1MiB", 0, ""},
		{"1.5MiB", 0, ""},
		{"50MB", 0, ""},
		{"50mib", 0, ""},
		{"50 MiB", 0, ""},
		{"1KiBMiB", 0, ""},
	} {
		var s Size
		err := s.UnmarshalText([]byte(tt.in))
		if s != tt.want || (err == nil) != (tt.want != 0) {
			t.Errorf("%q: got %d, %v; want %d", tt.in, int64(s), err, int64(tt.want))
		} else if err == nil && s.String() != tt.text {
			t.Errorf("%q: text %q; want %q", tt.in, s, tt.text)
		}
	}
}

func TestRateText(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Rate // zero: refused, but for ""
	}{
		{"", Rate{}},
		{"200/h", Rate{200, time.Hour}},
		{"1/m", Rate{1, time.Minute}},
		{"14/s", Rate{14, time.Second}},
		{"100000000/d", Rate{maxRate, 24 * time.Hour}},
		{"100000001/d", Rate{}},
		{"99999999999999999999/h", Rate{}},
		{"0/h", Rate{}},
		{"200", Rate{}},
		{"/h", Rate{}},
		{"200/", Rate{}},
		{"200/w", Rate{}},
		{"200/H", Rate{}},
		{"200/h/h", Rate{}},
		{"200 /h", Rate{}},
		{"-1/h", Rate{}},
		{"+1/h", Rate{}},
		{"1.5/h", Rate{}},
	} {
		r := Rate{7, time.Hour}
		err := r.UnmarshalText([]byte(tt.in))
		if refused := tt.want == (Rate{}) && tt.in != ""; refused != (err != nil) || !refused && (r != tt.want || r.String() != tt.in) {
			t.Errorf("%q: got %v, %v; want %v", tt.in, r, err, tt.want)
		}
	}
}

// The law: text of an accepted size, duration or rate reads as the same, and none
// is ever zero or beyond its bound.
func FuzzUnits(f *testing.F) {
	for _, s := range []string{"5m", "1w2d3h4m5s", "1.5d", "0.1w1ns", "50MiB", "1024", "1h0m0.5s", "3660d", "200/h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var d, d2 Duration
		if err := d.UnmarshalText([]byte(text)); err != nil && d != 0 {
			t.Fatalf("%q: %v with error %v", text, d, err)
		} else if err == nil {
			if err := d2.UnmarshalText([]byte(d.String())); err != nil || d2 != d || d <= 0 || d > maxDuration {
				t.Fatalf("%q is %d, written %q, which is %d, %v", text, d, d, d2, err)
			}
		}
		var r, r2 Rate
		if err := r.UnmarshalText([]byte(text)); err != nil && r != (Rate{}) {
			t.Fatalf("%q: %v with error %v", text, r, err)
		} else if err == nil && text != "" {
			if err := r2.UnmarshalText([]byte(r.String())); err != nil || r2 != r || r.N <= 0 || r.N > maxRate {
				t.Fatalf("%q is %v, written %q, which is %v, %v", text, r, r, r2, err)
			}
		}
		var s, s2 Size
		if err := s.UnmarshalText([]byte(text)); err != nil && s != 0 {
			t.Fatalf("%q: %v with error %v", text, s, err)
		} else if err == nil {
			if err := s2.UnmarshalText([]byte(s.String())); err != nil || s2 != s || s <= 0 || s > maxSize {
				t.Fatalf("%q is %d, written %q, which is %d, %v", text, s, s, s2, err)
			}
		}
	})
}
