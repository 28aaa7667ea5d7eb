package warnings

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Of each kind there is a line a minute, and no line is left out that is not counted.
func TestOneLineAMinuteOfAKindAndACount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := New(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})))
		want := func(lines ...string) {
			t.Helper()
			if got := strings.Split(strings.TrimSpace(out.String()), "\n"); strings.Join(got, "\n") != strings.Join(lines, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
			}
			out.Reset()
		}
		for n := range 1000 {
			log.Warn("refused", "n", n)
			time.Sleep(time.Millisecond)
		}
		log.Error("broken", "n", 1)
		want("level=WARN msg=refused n=0", "level=ERROR msg=broken n=1")
		time.Sleep(Interval - time.Second)
		log.Warn("refused", "n", 1000)
		log.Warn("refused", "n", 1001)
		want("level=WARN msg=refused n=1000 left_out=999")
		time.Sleep(Interval)
		log.Warn("refused", "n", 1002)
		want("level=WARN msg=refused n=1002 left_out=1")
		time.Sleep(Interval)
		library := log.Logger("library")
		library.Printf("one\n")
		library.Printf("two")
		log.Warn("refused", "n", 1003)
		want("level=WARN msg=library err=one", "level=WARN msg=refused n=1003")
	})
}

// However many say something at a time, one line comes out and all others are counted.
func TestLinesAreCountedFromMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := New(slog.New(slog.NewTextHandler(&out, nil)))
		const many = 50
		var all sync.WaitGroup
		for range many {
			all.Go(func() { log.Warn("refused") })
		}
		all.Wait()
		time.Sleep(Interval)
		log.Warn("refused")
		if got := out.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, fmt.Sprintf("left_out=%d\n", many-1)) {
			t.Errorf("got\n%s", got)
		}
	})
}
