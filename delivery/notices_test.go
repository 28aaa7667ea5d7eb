package delivery

import (
	"testing"
	"time"
)

// One report an hour goes to a person of this machine, a hundred to anybody else.
func TestReportsAnHour(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	never := func() time.Time { return time.Time{} }
	for _, tt := range []struct {
		one  bool
		most int
	}{{true, 1}, {false, storm}} {
		var n notices
		for hour := range 3 {
			for i := range 3 * storm {
				now := begin.Add(time.Duration(hour)*noticeInterval + time.Duration(i)*time.Second)
				until, wait := n.until("ops@x.test", tt.one, now, never)
				if wait != (i >= tt.most) || wait && !until.Equal(begin.Add(time.Duration(hour+1)*noticeInterval)) {
					t.Fatalf("one %v, hour %d, report %d: until %v, wait %v", tt.one, hour, i, until.Sub(begin), wait)
				}
			}
		}
	}
	var n notices
	told := begin.Add(-20 * time.Minute)
	if until, wait := n.until("ops@x.test", true, begin, func() time.Time { return told }); !wait || !until.Equal(told.Add(time.Hour)) {
		t.Errorf("after a restart: %v, %v", until, wait)
	}
	n.forget("ops@x.test")
	if _, wait := n.until("ops@x.test", true, begin, never); wait {
		t.Error("a report that could not be queued counts")
	}
	n.digest("ops@x.test", begin)
	if until, wait := n.until("ops@x.test", true, begin.Add(time.Minute), never); !wait || !until.Equal(begin.Add(time.Hour)) {
		t.Errorf("after a digest: %v, %v", until, wait)
	}
	for i := range 3 * maxNoticed {
		n.until(string(rune(i)), true, begin, never)
	}
	if len(n.log) > maxNoticed {
		t.Errorf("%d are remembered", len(n.log))
	}
}
