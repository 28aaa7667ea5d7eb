package submit_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"postino/spool"
	"postino/spool/spooltest"
	"postino/spool/submit"
)

// A flood of drop files of one user does not delay the single file of another: that
// is among the next to be taken, be it there before or come meanwhile. Positions are
// counted. Run at full size: POSTINO_TEST_FLOOD=50000.
func TestSingleDropFileIsTakenAmongTheNextDespiteAFlood(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can leave files of two users")
	}
	flood := 2000
	if text := os.Getenv("POSTINO_TEST_FLOOD"); text != "" {
		flood, _ = strconv.Atoi(text)
	}
	dir := t.TempDir()
	r := &rig{t: t, dir: dir, log: new(logBuffer)}
	if err := os.Mkdir(filepath.Join(dir, "drop"), 0o700); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var order []int // uids, as their mail is stored
	began := make(chan struct{})
	var taken time.Time
	came := make(chan struct{})
	r.spool = spooltest.Open(t, dir, spool.Options{Queued: func(m *spool.Message) {
		mu.Lock()
		defer mu.Unlock()
		if order = append(order, m.Origin.UID); len(order) == 100 {
			close(began)
		}
		if m.Origin.UID == 1001 {
			taken = time.Now()
			close(came)
		}
	}})
	for i := range flood {
		r.dropAs(33, fmt.Sprintf("%032x", i))
	}
	r.dropAs(1000, fmt.Sprintf("%032x", flood)) // the last by name
	r.srv = submit.New(r.spool, testPolicy, slog.New(slog.NewTextHandler(r.log, nil)))
	defer r.srv.Shutdown(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = r.srv.Drops(ctx)
	}()
	r.ends("a hundred files are taken", began)
	r.dropAs(1001, fmt.Sprintf("%032x", flood+1))
	left := time.Now()
	mu.Lock()
	before := len(order)
	mu.Unlock()
	r.ends("the file that came is taken", came)
	cancel()
	<-ended
	mu.Lock()
	defer mu.Unlock()
	first, second := slices.Index(order, 1000), slices.Index(order, 1001)
	t.Logf("of %d: the one that was there was number %d, the one that came was number %d since, stored after %v",
		flood, first+1, second+1-before, taken.Sub(left).Round(time.Millisecond))
	if first < 0 || first > 100 { // what was being taken already, and shared its commit
		t.Errorf("the file that was there was number %d", first+1)
	}
	if second-before > flood/4 { // the notice of it takes its time on a busy machine
		t.Errorf("the file that came was number %d since", second+1-before)
	}
}

func (r *rig) dropAs(uid int, name string) {
	r.t.Helper()
	tmp := filepath.Join(r.dir, "x."+name)
	if err := os.WriteFile(tmp, []byte(recorded(name, "a@b.test", []string{"b@y.test"}, hello)), 0o640); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Chown(tmp, uid, uid); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(r.dir, "drop", name)); err != nil {
		r.t.Fatal(err)
	}
}
