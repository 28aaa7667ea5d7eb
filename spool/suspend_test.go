package spool_test

import (
	"errors"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"postino/spool"
	"postino/spool/spooltest"
)

func of(uid int) func(*spool.Message) { return func(m *spool.Message) { m.Origin.UID = uid } }

func held(t *testing.T, s *spool.Spool, id spool.ID) string {
	t.Helper()
	m, err := s.Message(id)
	if err != nil {
		t.Fatal(err)
	}
	return m.Held
}

func TestSuspensionHoldsMailOfItsUIDAndResumeReleasesThatAlone(t *testing.T) {
	dir := t.TempDir()
	var queued []spool.ID
	options := spool.Options{Queued: func(m *spool.Message) { queued = append(queued, m.ID) }}
	s, err := spool.Open(dir, options)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Suspend(spool.Suspension{UID: 33, Reason: "hacked", By: 0}); err != nil {
		t.Fatal(err)
	}
	other := putFor(t, s, of(34), "a@x.test")
	first := putFor(t, s, of(33), "a@x.test")
	report := putFor(t, s, func(m *spool.Message) { m.Origin = spool.Origin{UID: 33, Via: spool.ViaDSN} }, "a@x.test")
	policy := putFor(t, s, func(m *spool.Message) { m.Origin.UID, m.Held = 33, "too large" }, "a@x.test")
	spooltest.Close(t, s)

	s = spooltest.Open(t, dir, options)
	second, byHand := putFor(t, s, of(33), "a@x.test"), putFor(t, s, of(33), "a@x.test")
	if _, err := s.Hold(byHand, "evidence"); err != nil {
		t.Fatal(err)
	}
	const why = "uid 33 is suspended: hacked"
	for id, want := range map[spool.ID]string{
		other: "", first: why, report: "", policy: "too large", second: why, byHand: "evidence",
	} {
		if got := held(t, s, id); got != want {
			t.Errorf("held = %q, want %q", got, want)
		}
	}
	if len(queued) != 2 { // other and report
		t.Errorf("%d messages queued while suspended, want 2", len(queued))
	}
	if list, err := s.Suspensions(); err != nil || len(list) != 1 || list[0].UID != 33 || list[0].Reason != "hacked" {
		t.Errorf("Suspensions = %+v, %v", list, err)
	}
	if n, err := s.Resume(33); n != 2 || err != nil {
		t.Errorf("Resume released %d, %v; want 2", n, err)
	}
	for id, want := range map[spool.ID]string{first: "", second: "", policy: "too large", byHand: "evidence"} {
		if got := held(t, s, id); got != want {
			t.Errorf("held = %q after Resume, want %q", got, want)
		}
	}
	if len(queued) != 4 {
		t.Errorf("%d messages queued after Resume, want 4", len(queued))
	}
	if _, err := s.Resume(33); !errors.Is(err, spool.ErrNotSuspended) {
		t.Errorf("second Resume: %v", err)
	}
	if got := held(t, s, putFor(t, s, of(33), "a@x.test")); got != "" {
		t.Errorf("held after Resume: %q", got)
	}
}

// A crash in the middle of Resume leaves mail that no suspension holds any more.
func TestReleaseResumedEndsWhatACrashCutShort(t *testing.T) {
	dir := t.TempDir()
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, uid := range []int{33, 34} {
		if err := s.Suspend(spool.Suspension{UID: uid}); err != nil {
			t.Fatal(err)
		}
	}
	mine, others := putFor(t, s, of(33), "a@x.test"), putFor(t, s, of(34), "a@x.test")
	spooltest.Close(t, s)
	edit(t, dir, func(tx *bolt.Tx) error { return tx.Bucket([]byte("suspension")).Delete([]byte{0, 0, 0, 33}) })
	s = spooltest.Open(t, dir, spool.Options{})
	if n, err := s.ReleaseResumed(); n != 1 || err != nil {
		t.Errorf("released %d, %v; want 1", n, err)
	}
	if held(t, s, mine) != "" || !strings.Contains(held(t, s, others), "uid 34 is suspended") {
		t.Errorf("held = %q and %q", held(t, s, mine), held(t, s, others))
	}
}
