package spool_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postino/spool"
	"postino/spool/spooltest"
	"postino/spool/standstill"
)

// patience is how long a test waits before it fails, longer than a machine may stand
// still. Only a broken program has it waited for.
const patience = 3 * time.Minute

// fullDisk calls f with a directory that has little room: on file systems that are
// small, and on one that is large and has a quota, which statfs does not show.
func fullDisk(t *testing.T, f func(t *testing.T, dir string)) {
	t.Helper()
	t.Run("ext4", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		spooltest.Mount(t, dir, "ext4", 24<<20, "noatime")
		f(t, dir)
	})
	t.Run("tmpfs", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		spooltest.Mount(t, dir, "tmpfs", 0, "size=24m")
		f(t, dir)
	})
	t.Run("quota", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		spooltest.Mount(t, dir, "btrfs", 256<<20, "noatime")
		for _, args := range []string{"quota enable", "qgroup limit 24M"} {
			if out, err := standstill.Command(t, patience, "btrfs", append(strings.Fields(args), dir)...).CombinedOutput(); err != nil {
				t.Fatalf("btrfs %s: %v\n%s", args, err, out)
			}
		}
		f(t, dir)
	})
}

// reserveFiles is how many files the reserve has.
func reserveFiles(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "reserve"))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// awaitRoom waits until a submission can be taken.
func awaitRoom(t *testing.T, s *spool.Spool) {
	t.Helper()
	standstill.Wait(t, patience, "the room that there is is noticed", func() bool { return s.Room() == nil })
}

// untilRefused puts messages into a spool on a full disk until there is no room for
// another, and returns those that fitted into what was free inside the file.
func untilRefused(t *testing.T, s *spool.Spool) (ids []spool.ID) {
	t.Helper()
	for range 10_000 {
		d, err := s.NewDraft(0)
		if err == nil {
			_, err = d.Write(make([]byte, 60<<10))
		}
		var id spool.ID
		if err == nil {
			id, err = d.Commit(spooltest.Message(t, "a@x.test"))
		}
		if errors.Is(err, spool.ErrNoSpace) {
			// The next one is refused before it has cost anything.
			if _, err := s.NewDraft(0); !errors.Is(err, spool.ErrNoSpace) {
				t.Errorf("a draft without room for it: %v, want ErrNoSpace", err)
			}
			return ids
		}
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	t.Fatal("the disk is full and takes 600 MB more")
	return nil
}

func deferred(text string) *spool.Attempt {
	return &spool.Attempt{At: time.Now(), Hop: "relay", Outcomes: []spool.Outcome{{
		Status: spool.Deferred, Next: time.Now().Add(time.Hour),
		Reply: spool.Reply{Code: 451, Status: "4.2.1", Text: text, Command: "RCPT"},
	}}}
}

func relayed() *spool.Attempt {
	return &spool.Attempt{At: time.Now(), Hop: "relay", Outcomes: []spool.Outcome{{
		Status: spool.Relayed, Reply: spool.Reply{Code: 250, Status: "2.0.0", Text: "ok", Command: "dot"},
	}}}
}

// New mail is refused on a full disk, and all that happens to the mail that is
// there is recorded nevertheless. With room again new mail is taken again.
func TestFullDiskRefusesNewMailAndRecordsTheRest(t *testing.T) {
	fullDisk(t, func(t *testing.T, dir string) {
		s := spooltest.Open(t, dir, spool.Options{})
		var ids []spool.ID
		for range 300 {
			ids = append(ids, spooltest.Put(t, s, strings.Repeat("text\r\n", 300), "a@x.test"))
		}
		whole := reserveFiles(t, dir)
		free := spooltest.Fill(t, dir)

		ids = append(ids, untilRefused(t, s)...)
		long := strings.Repeat("x", spool.MaxReplyText)
		for _, id := range ids {
			if m, err := s.Record(id, deferred(long)); err != nil || m.Recipients[0].Attempts != 1 {
				t.Fatalf("an outcome on a full disk: %v", err)
			}
		}
		if reserveFiles(t, dir) == whole {
			t.Error("nothing of the reserve was needed: this test tests nothing")
		}
		for _, id := range ids {
			if _, err := s.Hold(id, "for a moment"); err != nil {
				t.Fatalf("hold on a full disk: %v", err)
			}
			if _, err := s.Retry(id, true); err != nil {
				t.Fatalf("release on a full disk: %v", err)
			}
			if m, err := s.Record(id, relayed()); err != nil || !m.Settled() {
				t.Fatalf("a delivery on a full disk: %v", err)
			}
		}
		if err := s.Check(); err != nil {
			t.Errorf("the spool on a full disk: %v", err)
		}

		free()
		awaitRoom(t, s)
		if got := reserveFiles(t, dir); got != whole {
			t.Errorf("the reserve has %d slices again, want %d", got, whole)
		}
		spooltest.Put(t, s, "after it", "a@x.test")
	})
}

// What does not fit is refused as a whole, wherever it is found out, and nothing
// stays of it.
func TestMessageThatDoesNotFitLeavesNothing(t *testing.T) {
	fullDisk(t, func(t *testing.T, dir string) {
		s := spooltest.Open(t, dir, spool.Options{})
		d, err := s.NewDraft(0)
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = d.Write(make([]byte, 1<<20))
		}
		if !errors.Is(err, spool.ErrNoSpace) {
			t.Errorf("content larger than the disk: %v, want ErrNoSpace", err)
		}
		d.Discard()
		if got := files(t, dir); len(got) != 0 {
			t.Errorf("content files = %v, want none", got)
		}

		// Taken for room when it began, and none left at its commit.
		awaitRoom(t, s)
		if d, err = s.NewDraft(0); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Write(make([]byte, 60<<10)); err != nil {
			t.Fatal(err)
		}
		free := spooltest.Fill(t, dir)
		untilRefused(t, s)
		id, err := d.Commit(spooltest.Message(t, "a@x.test"))
		if !errors.Is(err, spool.ErrNoSpace) || id != 0 {
			t.Errorf("commit on a full disk: %v, %v, want ErrNoSpace", id, err)
		}
		select {
		case <-s.Fenced():
			t.Error("the spool is fenced for want of room")
		default:
		}
		free()
		awaitRoom(t, s)
		spooltest.Put(t, s, "after it", "a@x.test")
	})
}

// A spool opens on a full disk and goes on with what is in it.
func TestSpoolOpensOnAFullDisk(t *testing.T) {
	fullDisk(t, func(t *testing.T, dir string) {
		s, err := spool.Open(dir, spool.Options{})
		if err != nil {
			t.Fatal(err)
		}
		id := spooltest.Put(t, s, "hello", "a@x.test")
		spooltest.Close(t, s)
		if err := os.RemoveAll(filepath.Join(dir, "reserve")); err != nil {
			t.Fatal(err)
		}
		free := spooltest.Fill(t, dir)
		s = spooltest.Open(t, dir, spool.Options{})
		if s.CanRecord() || s.Room() == nil {
			t.Error("there is no reserve, and neither attempts nor new mail mind")
		}
		free()
		awaitRoom(t, s)
		if _, err := s.Record(id, relayed()); err != nil {
			t.Error(err)
		}
	})
}

// Without inodes mail that needs none is taken, and what needs one is refused.
func TestWithoutInodesOnlyLargeMailIsRefused(t *testing.T) {
	dir := t.TempDir()
	spooltest.Mount(t, dir, "tmpfs", 0, "size=64m,nr_inodes=16")
	s := spooltest.Open(t, dir, spool.Options{})
	for n := 0; ; n++ {
		if err := os.Mkdir(filepath.Join(dir, string(rune('a'+n))), 0o700); err != nil {
			break
		}
	}
	id := spooltest.Put(t, s, "small", "a@x.test")
	d, err := s.NewDraft(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Write(make([]byte, large)); !errors.Is(err, spool.ErrNoSpace) {
		t.Errorf("content that needs a file: %v, want ErrNoSpace", err)
	}
	d.Discard()
	if _, err := s.Record(id, relayed()); err != nil {
		t.Error(err)
	}
}
