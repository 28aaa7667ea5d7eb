package standstill

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
)

const (
	// least is what counts as a stall: more than a process waits for its turn on a
	// machine that is busy, and less than the time-outs of what is tested.
	least = time.Second
	// beat is how often the machine is asked whether it goes on.
	beat = 200 * time.Millisecond
	// tries bounds how often a test is begun. On a machine that stalls more often than
	// the test can bear it fails.
	tries = 4
)

// Steady runs a test that has time-outs in it which are shorter than a machine may stand
// still, as those of our programs and of others are, and runs it once more where it
// failed while the machine did. What an attempt wants done in the end is done before the
// next. A failure while the machine went on is one.
func Steady(t testing.TB, test func(t testing.TB)) {
	t.Helper()
	for try := 1; ; try++ {
		w := watchMachine(t)
		a := &attempt{TB: t}
		a.run(test)
		longest := w.end()
		switch {
		case !a.Failed():
			return
		case longest < least || try == tries:
			t.FailNow()
		}
		t.Logf("the machine stood still for %v: try %d of %d", longest.Round(time.Millisecond), try+1, tries)
	}
}

// attempt is a test whose failure is not yet that of the test around it. What it logs
// is logged there.
type attempt struct {
	testing.TB
	mu       sync.Mutex
	failed   bool     // guarded by mu
	cleanups []func() // guarded by mu
}

// run runs the test, and then what it wants done at its end, the last first.
func (a *attempt) run(test func(t testing.TB)) {
	a.toEnd(func() { test(a) })
	for {
		a.mu.Lock()
		n := len(a.cleanups)
		if n == 0 {
			a.mu.Unlock()
			return
		}
		last := a.cleanups[n-1]
		a.cleanups = a.cleanups[:n-1]
		a.mu.Unlock()
		a.toEnd(last)
	}
}

// toEnd runs something that may end its goroutine.
func (a *attempt) toEnd(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	<-done
}

func (a *attempt) Cleanup(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cleanups = append(a.cleanups, f)
}

func (a *attempt) Failed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failed
}

func (a *attempt) Fail() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed = true
}

func (a *attempt) FailNow() {
	a.Fail()
	runtime.Goexit()
}

func (a *attempt) Error(args ...any) {
	a.Helper()
	a.Log(args...)
	a.Fail()
}

func (a *attempt) Errorf(format string, args ...any) {
	a.Helper()
	a.Logf(format, args...)
	a.Fail()
}

func (a *attempt) Fatal(args ...any) {
	a.Helper()
	a.Log(args...)
	a.FailNow()
}

func (a *attempt) Fatalf(format string, args ...any) {
	a.Helper()
	a.Logf(format, args...)
	a.FailNow()
}

// watch looks whether the machine goes on, its processors and the disk of its
// temporary files.
type watch struct {
	file    *os.File
	over    chan struct{}
	ended   chan struct{}
	longest time.Duration // without a beat; good after ended
}

func watchMachine(t testing.TB) *watch {
	t.Helper()
	file, err := os.CreateTemp("", "postino-stall")
	if err == nil {
		err = os.Remove(file.Name())
	}
	if err != nil {
		t.Fatal(err)
	}
	w := &watch{file: file, over: make(chan struct{}), ended: make(chan struct{})}
	go w.listen(time.Now())
	return w
}

// listen knows of each moment since began, in which the test may have begun already.
func (w *watch) listen(began time.Time) {
	defer close(w.ended)
	for on := true; on; {
		// A disk that is full, or fails, does not stand still.
		_, _ = fmt.Fprintln(w.file, began)
		_ = w.file.Sync()
		select {
		case <-w.over:
			on = false
		case <-time.After(beat):
		}
		now := time.Now()
		w.longest = max(w.longest, now.Sub(began)-beat)
		began = now
	}
}

// end returns how long the machine stood still.
func (w *watch) end() time.Duration {
	close(w.over)
	<-w.ended
	w.file.Close()
	return w.longest
}
