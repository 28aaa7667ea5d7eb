package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// scene is a spool that is closed, and whose pages can be spoiled one by one.
type scene struct {
	t    *testing.T
	dir  string
	path string
	ids  []ID // of messages to two recipients, small content
}

// newScene stores n messages, has act do something with the open spool, and closes
// it.
func newScene(t *testing.T, n int, act func(s *Spool, ids []ID)) *scene {
	t.Helper()
	c := &scene{t: t, dir: t.TempDir()}
	c.path = filepath.Join(c.dir, dbFile)
	s, err := Open(c.dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		c.ids = append(c.ids, store(t, s, fmt.Appendf(nil, "Subject: %d\r\n\r\n%s", i, strings.Repeat("x", 500)), 2))
	}
	act(s, c.ids)
	if err := errors.Join(s.Check(), s.Close()); err != nil {
		t.Fatal(err)
	}
	return c
}

// spoilLeaf zeroes the page in which a bucket has the row of id.
func (c *scene) spoilLeaf(bucket []byte, id ID) {
	c.t.Helper()
	var at int64
	w := walk{gap: func(gap) {}, row: func(name string, r row) error {
		if name == string(bucket) && keyID(r.key) == id {
			at = r.head
		}
		return nil
	}}
	f, err := os.Open(c.path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	if w.f, err = readDB(f); err == nil {
		err = w.run()
	}
	if err != nil || at == 0 {
		c.t.Fatalf("%s of %s is nowhere: %v", bucket, id, err)
	}
	c.zero(at / w.f.pageSize)
}

// spoilRoot zeroes the page at which a bucket begins, which has to be a branch.
func (c *scene) spoilRoot(bucket []byte) {
	c.t.Helper()
	db, err := bolt.Open(c.path, 0o600, dbOptions(true))
	if err != nil {
		c.t.Fatal(err)
	}
	var root int64
	err = db.View(func(tx *bolt.Tx) error {
		root = int64(tx.Bucket(bucket).RootPage())
		if tx.Bucket(bucket).Stats().BranchPageN == 0 {
			return errors.New("it has no branch")
		}
		return nil
	})
	if err = errors.Join(err, db.Close()); err != nil {
		c.t.Fatal(err)
	}
	c.zero(root)
}

// spoilMeta zeroes the newest meta page, or the other one.
func (c *scene) spoilMeta(newest bool) {
	c.t.Helper()
	f, err := os.Open(c.path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	d, err := readDB(f)
	if err != nil {
		c.t.Fatal(err)
	}
	page := int64(d.meta.txid % 2)
	if !newest {
		page = 1 - page
	}
	c.zero(page)
}

func (c *scene) zero(page int64) {
	c.t.Helper()
	f, err := os.OpenFile(c.path, os.O_WRONLY, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	size := int64(os.Getpagesize())
	if _, err := f.WriteAt(make([]byte, size), page*size); err != nil {
		c.t.Fatal(err)
	}
}

// salvage opens the spool, has act do something with it, and salvages what was set
// aside.
func (c *scene) salvage(act func(*Spool)) (*Spool, Salvaged) {
	c.t.Helper()
	s, err := Open(c.dir, Options{})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			c.t.Error(err)
		}
	})
	if act != nil {
		act(s)
	}
	aside, err := s.SetAside()
	if err != nil || len(aside) != 1 {
		c.t.Fatalf("set aside: %v, %v", aside, err)
	}
	r, err := s.Salvage(c.t.Context(), aside[0].Path)
	if err != nil {
		c.t.Fatal(err)
	}
	return s, r
}

// state is what there is of a message: "gone", "finished", or for a queued one why
// it is held and the states of its recipients.
func state(s *Spool, id ID) string {
	m, err := s.Message(id)
	switch {
	case err != nil:
		return "gone"
	case !m.Finished.IsZero():
		return "finished"
	}
	words := []string{m.Held}
	for _, r := range m.Recipients {
		words = append(words, string(r.Status))
	}
	if _, err := readContent(s, m); err != nil {
		words = append(words, "damaged")
	}
	return strings.TrimSpace(strings.Join(words, " "))
}

func (c *scene) expect(s *Spool, want func(i int, id ID) string) {
	c.t.Helper()
	for i, id := range c.ids {
		if got, want := state(s, id), want(i, id); got != want {
			c.t.Errorf("message %d: %q, want %q", i, got, want)
		}
	}
}

// half records that the first recipient of message x got it.
func half(t *testing.T, x int) func(*Spool, []ID) {
	return func(s *Spool, ids []ID) { settleSome(t, s, ids[x], Relayed, 0) }
}

// whole records that both did, so that message x is finished.
func whole(t *testing.T, x int) func(*Spool, []ID) {
	return func(s *Spool, ids []ID) { settleSome(t, s, ids[x], Relayed, 0, 1) }
}

const both = "queued queued"

func TestLostBranchLosesAndHoldsNothing(t *testing.T) {
	const x, y = 20, 21
	c := newScene(t, 60, func(s *Spool, ids []ID) { half(t, x)(s, ids); whole(t, y)(s, ids) })
	c.spoilRoot(bucketMessage)
	s, r := c.salvage(nil)
	c.expect(s, func(i int, _ ID) string {
		return map[int]string{x: "relayed queued", y: "finished"}[i] + map[bool]string{true: both}[i != x && i != y]
	})
	if r.Queued != 59 || r.Held != 0 || r.Finished != 1 || r.Known != 0 || len(r.Partial) != 0 {
		t.Errorf("report %+v", r)
	}
	if err := s.Check(); err != nil {
		t.Error(err)
	}
}

// Its leaf is lost: an older copy of the record, and the attempts since, are what it
// is now. Who has it already is not sent it again.
func TestOlderCopyIsBroughtUpToDateByAttempts(t *testing.T) {
	const x = 20
	c := newScene(t, 60, half(t, x))
	c.spoilLeaf(bucketMessage, c.ids[x])
	s, _ := c.salvage(nil)
	c.expect(s, func(i int, _ ID) string {
		if i == x {
			return "relayed queued"
		}
		return both
	})
}

func TestOlderCopyIsHeldWhenItsAttemptsMayBeLost(t *testing.T) {
	const x = 20
	c := newScene(t, 60, func(s *Spool, ids []ID) {
		for i := range ids[:9] { // so that attempts have pages of their own
			half(t, i)(s, ids)
		}
		half(t, x)(s, ids)
	})
	c.spoilLeaf(bucketMessage, c.ids[x])
	c.spoilLeaf(bucketAttempt, c.ids[x])
	s, r := c.salvage(nil)
	if got := state(s, c.ids[x]); got != heldUnknown+" "+both && got != heldUnknown+" relayed queued" {
		t.Errorf("message %d: %q", x, got)
	}
	if got := state(s, c.ids[59]); got != both || r.Held == 0 || r.Held > 20 {
		t.Errorf("the last message: %q; report %+v", got, r)
	}
}

// The older copies of what was sent stay where they are, be its history there or
// not.
func TestFinishedMailStaysFinished(t *testing.T) {
	const x = 20
	for name, tt := range map[string]struct {
		spoil func(c *scene)
		want  string
	}{
		"history there": {func(c *scene) { c.spoilLeaf(bucketMessage, c.ids[x-1]) }, "finished"},
		"content lost":  {func(c *scene) { c.spoilLeaf(bucketMessage, c.ids[x-1]); c.spoilRoot(bucketContent) }, "finished"},
		"attempts lost": {func(c *scene) {
			c.spoilLeaf(bucketMessage, c.ids[x-1])
			c.spoilLeaf(bucketAttempt, c.ids[x])
			c.spoilRoot(bucketContent)
		}, "finished"},
		"history lost": {func(c *scene) { c.spoilLeaf(bucketMessage, c.ids[x-1]); c.spoilLeaf(bucketHistory, c.ids[x]) }, "gone"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newScene(t, 60, func(s *Spool, ids []ID) {
				for i := range ids[:9] { // so that the history has pages of its own
					whole(t, i)(s, ids)
				}
				whole(t, x)(s, ids)
			})
			tt.spoil(c)
			s, _ := c.salvage(nil)
			if got := state(s, c.ids[x]); got != tt.want {
				t.Errorf("what was sent is %q, want %q", got, tt.want)
			}
		})
	}
}

// Where the tree has no gap it is believed.
func TestTrimmedMailStaysGone(t *testing.T) {
	c := newScene(t, 60, func(s *Spool, ids []ID) {
		for i := range ids[:30] {
			whole(t, i)(s, ids)
		}
		if _, err := s.TrimHistory(time.Now().Add(time.Hour), 1<<30); err != nil {
			t.Fatal(err)
		}
	})
	c.spoilRoot(bucketContent)
	s, _ := c.salvage(nil)
	for i, id := range c.ids[:30] {
		if got := state(s, id); got != "gone" {
			t.Errorf("message %d: %q", i, got)
		}
	}
}

func TestLostContentIsHeldAndTold(t *testing.T) {
	c := newScene(t, 60, func(*Spool, []ID) {})
	b, err := os.ReadFile(c.path)
	if err != nil {
		t.Fatal(err)
	}
	// All copies of one message's content, and a page of another bucket.
	const x = 30
	b = []byte(strings.ReplaceAll(string(b), fmt.Sprintf("Subject: %d\r\n\r\nxxxx", x), fmt.Sprintf("Subject: %d\r\n\r\nxx#x", x)))
	if err := os.WriteFile(c.path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	c.spoilMeta(false)
	s, r := c.salvage(nil)
	c.expect(s, func(i int, _ ID) string {
		if i == x {
			return heldDamaged + " " + both + " damaged"
		}
		return both
	})
	if r.Queued != 59 || r.Held != 1 || len(r.Partial) != 1 || !strings.Contains(r.Partial[0], c.ids[x].String()) {
		t.Errorf("report %+v", r)
	}
}

// The last transaction is lost with its meta page, and nobody knows what was in it.
func TestLastMessageIsHeldWhenItsMetaPageIsLost(t *testing.T) {
	c := newScene(t, 60, func(*Spool, []ID) {})
	c.spoilMeta(true)
	s, _ := c.salvage(nil)
	c.expect(s, func(i int, _ ID) string {
		if i == 59 {
			return heldUnknown + " " + both
		}
		return both
	})
}

// The front end hands in again what it got no answer for.
func TestSalvageDoesNotDoubleWhatWasHandedInAgain(t *testing.T) {
	name := SubmissionID{0: 1, 15: 7}
	put := func(s *Spool) ID {
		d, err := s.NewDraft(0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Write([]byte("Subject: again\r\n")); err != nil {
			t.Fatal(err)
		}
		id, err := d.Commit(&Message{Submission: name, Arrived: time.Now(), Recipients: []Recipient{{Status: Queued}}})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	var first, second ID
	c := newScene(t, 60, func(s *Spool, _ []ID) { first = put(s) })
	c.spoilRoot(bucketMessage)
	s, r := c.salvage(func(s *Spool) { second = put(s) })
	if got := state(s, first); r.Known != 1 || got != "gone" && first != second {
		t.Errorf("the first arrival is %q, report %+v", got, r)
	}
	if got := state(s, second); got != "queued" {
		t.Errorf("the second arrival is %q", got)
	}
}

// Neither at the start nor later is content removed whose record is lost.
func TestContentWithoutItsRecordIsKept(t *testing.T) {
	var id ID
	text := []byte("Subject: large\r\n\r\n" + strings.Repeat("y", 2*smallContent))
	c := newScene(t, 1, func(s *Spool, _ []ID) { id = store(t, s, text, 1) })
	if err := os.Truncate(c.path, 0); err != nil {
		t.Fatal(err)
	}
	_, r := c.salvage(nil)
	kept := filepath.Join(c.dir, salvagedDir, id.String()+".eml")
	if got, err := os.ReadFile(kept); err != nil || !slices.Equal(got, text) {
		t.Errorf("%d octets, %v", len(got), err)
	}
	if len(r.Partial) != 1 || !strings.Contains(r.Partial[0], kept) {
		t.Errorf("report %+v", r)
	}
}
