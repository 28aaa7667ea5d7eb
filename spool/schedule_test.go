package spool_test

import (
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"postino/spool"
	"postino/spool/spooltest"
)

// edit changes a closed spool's file behind its back.
func edit(t *testing.T, dir string, f func(tx *bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(filepath.Join(dir, "spool.db"), 0o600, &bolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(f), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// entries are the schedule and the queue, which must agree.
func entries(t *testing.T, s *spool.Spool) []spool.Entry {
	t.Helper()
	var list []spool.Entry
	for e, err := range s.Schedule() {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	i := 0
	for m, err := range s.Queue() {
		if err != nil {
			t.Fatal(err)
		}
		if i >= len(list) {
			t.Fatalf("%d entries in the schedule, more messages", len(list))
		}
		want := m.Entry()
		if got := list[i]; !got.Next.Equal(want.Next) {
			t.Errorf("entry %+v, want %+v", got, want)
		}
		want.Next = list[i].Next
		if list[i] != want {
			t.Errorf("entry %+v, want %+v", list[i], want)
		}
		i++
	}
	if i != len(list) {
		t.Errorf("%d entries in the schedule, %d messages", len(list), i)
	}
	return list
}

func putFor(t *testing.T, s *spool.Spool, change func(*spool.Message), recipients ...string) spool.ID {
	t.Helper()
	m := spooltest.Message(t, recipients...)
	change(m)
	d, err := s.NewDraft(0)
	if err != nil {
		t.Fatal(err)
	}
	id, err := d.Commit(m)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Whatever is done to messages, in any order: the schedule says of each what its
// record says, and so it does after a reopen.
func TestScheduleAgreesWithTheRecords(t *testing.T) {
	dir := t.TempDir()
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	many := strings.Split(strings.Repeat("a@x.test ", spool.LargeRecipients+1), " ")
	var ids []spool.ID
	for range 400 {
		if len(ids) < 10 || rng.IntN(4) == 0 {
			ids = append(ids, putFor(t, s, func(m *spool.Message) {
				m.Bulk, m.Origin.UID = rng.IntN(2) == 0, rng.IntN(4)
			}, many[:1+rng.IntN(2)*spool.LargeRecipients]...))
			continue
		}
		id := ids[rng.IntN(len(ids))]
		var err error
		switch rng.IntN(8) {
		case 0:
			_, err = s.Hold(id, "for a while")
		case 1:
			_, err = s.Retry(id, true)
		case 2:
			_, err = s.Fail(id, spool.Reply{Status: "5.7.1", Text: "deleted"})
		case 3:
			err = s.Suspend(spool.Suspension{UID: rng.IntN(4)})
		case 4:
			if _, err = s.Resume(rng.IntN(4)); errors.Is(err, spool.ErrNotSuspended) {
				err = nil
			}
		default:
			status := []spool.Status{spool.Deferred, spool.Deferred, spool.Relayed}[rng.IntN(3)]
			_, err = s.Record(id, &spool.Attempt{At: time.Now(), Outcomes: []spool.Outcome{{Recipient: 0, Status: status,
				Next: time.Now().Add(time.Duration(rng.Int64N(int64(time.Hour)))), Reply: spool.Reply{Status: "4.0.0"}}}})
		}
		if err != nil && !errors.Is(err, spool.ErrNotFound) {
			t.Fatal(err)
		}
	}
	before := entries(t, s)
	spooltest.Close(t, s)
	s = spooltest.Open(t, dir, spool.Options{})
	if after := entries(t, s); len(after) != len(before) || len(after) < 20 {
		t.Errorf("%d entries after a reopen, %d before", len(after), len(before))
	}
}

// format1 unpacks a spool as the first version of postino left it.
func format1(t *testing.T) string {
	t.Helper()
	f, err := os.Open("testdata/format1.db.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	db, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "spool.db"), db, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "content"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFormat1IsBroughtUpToDate(t *testing.T) {
	dir := format1(t)
	reader, err := spool.OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	spooltest.Close(t, reader) // who only reads, reads the old format as it is
	s := spooltest.Open(t, dir, spool.Options{})
	list := entries(t, s)
	if len(list) != 11 {
		t.Fatalf("%d entries, want one for each queued message: 11", len(list))
	}
	if list[0].Next.IsZero() || !list[1].Next.After(list[0].Next) || !list[2].Held || list[3].Held || !list[10].Large || list[10].UID != 33+11%3 {
		t.Errorf("schedule = %+v", list)
	}
	finished := 0
	for range s.History() {
		finished++
	}
	if finished != 1 {
		t.Errorf("%d finished messages, want 1", finished)
	}
	if err := s.Suspend(spool.Suspension{UID: 33}); err != nil {
		t.Error(err)
	}
}

// What an interrupted migration left may be out of date: an older postino may have
// had the file since.
func TestInterruptedMigrationBeginsAgain(t *testing.T) {
	dir := format1(t)
	edit(t, dir, func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("schedule"))
		if err != nil {
			return err
		}
		return b.Put(make([]byte, 8), []byte("left by a migration that was cut short"))
	})
	if list := entries(t, spooltest.Open(t, dir, spool.Options{})); len(list) != 11 {
		t.Errorf("%d entries, want 11", len(list))
	}
}

func TestNewerFormatIsRefusedAndLeftAlone(t *testing.T) {
	dir := t.TempDir()
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	spooltest.Put(t, s, "x", "a@x.test")
	spooltest.Close(t, s)
	for _, version := range []string{"3", "77"} {
		edit(t, dir, func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("version"), []byte(version)) })
		for name, open := range map[string]func() (*spool.Spool, error){
			"Open":         func() (*spool.Spool, error) { return spool.Open(dir, spool.Options{}) },
			"OpenReadOnly": func() (*spool.Spool, error) { return spool.OpenReadOnly(dir) },
		} {
			s, err := open()
			if err == nil {
				s.Close()
				t.Fatalf("%s: format %q was opened", name, version)
			}
			if !strings.Contains(err.Error(), "spool format") || !strings.Contains(err.Error(), "spool.db") {
				t.Errorf("%s: format %q: %v", name, version, err)
			}
		}
		edit(t, dir, func(tx *bolt.Tx) error {
			if got := string(tx.Bucket([]byte("meta")).Get([]byte("version"))); got != version {
				t.Errorf("format %q became %q", version, got)
			}
			return nil
		})
	}
}

// Mail is not forgotten because its entry is: the record stands in, and Check says
// what is wrong.
func TestRecordStandsInForItsEntry(t *testing.T) {
	dir := t.TempDir()
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []spool.ID
	for range 4 {
		ids = append(ids, spooltest.Put(t, s, "x", "a@x.test"))
	}
	finishAll(t, s, ids[3], spool.Relayed, false)
	spooltest.Close(t, s)
	key := func(id spool.ID) []byte {
		b := make([]byte, 8)
		for i := range b {
			b[i] = byte(id >> (56 - 8*i))
		}
		return b
	}
	edit(t, dir, func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("schedule"))
		flipped := append([]byte(nil), b.Get(key(ids[1]))...)
		flipped[3] ^= 1
		return errors.Join(b.Delete(key(ids[0])), b.Put(key(ids[1]), flipped), b.Put(key(ids[3]), b.Get(key(ids[2]))))
	})
	if s, err = spool.Open(dir, spool.Options{}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if list := entries(t, s); len(list) != 3 {
		t.Errorf("schedule = %+v", list)
	}
	err = s.Check()
	for i, id := range ids {
		if wrong := err != nil && strings.Contains(err.Error(), id.String()); wrong != (i != 2) {
			t.Errorf("Check of message %d: %v in\n%v", i, wrong, err)
		}
	}
}
