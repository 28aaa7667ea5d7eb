package control_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"postino/delivery/control"
	"postino/spool"
)

func suspensions(t *testing.T, c *control.Client) []spool.Suspension {
	t.Helper()
	var list []spool.Suspension
	for sus, err := range c.Suspensions(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, sus)
	}
	return list
}

func TestSuspendedMailIsHeldUntilResume(t *testing.T) {
	w := newWorld(t, control.Options{Owner: os.Geteuid()})
	before := w.add(t, 33, "before", nil)
	pending := func() int {
		t.Helper()
		s, err := w.client.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Pending
	}
	if pending() != 1 {
		t.Fatalf("%d pending, want 1", pending())
	}
	sus, err := w.client.Suspend(t.Context(), 33, "a blog with\na hole")
	if err != nil || sus.UID != 33 || sus.Reason != "a blog with a hole" || sus.Since.IsZero() {
		t.Fatalf("Suspend = %+v, %v", sus, err)
	}
	if pending() != 0 {
		t.Errorf("%d pending of a suspended uid", pending())
	}
	during := w.add(t, 33, "during", nil)
	m, err := w.client.Show(t.Context(), during)
	if err != nil || m.Status != control.StatusHeld || !strings.Contains(m.Held, "uid 33 is suspended: a blog with a hole") {
		t.Errorf("mail of a suspended uid: %+v, %v", m.Message, err)
	}
	if m, err = w.client.Show(t.Context(), before); err != nil || m.Status != control.StatusQueued {
		t.Errorf("mail of before: %+v, %v", m.Message, err)
	}
	if list := suspensions(t, w.client); len(list) != 1 || list[0] != sus {
		t.Errorf("list = %+v, want %+v alone", list, sus)
	}
	if r, err := w.client.Resume(t.Context(), 33); err != nil || r != (control.Resumed{UID: 33, Released: 1}) {
		t.Errorf("Resume = %+v, %v", r, err)
	}
	if n := pending(); n != 2 || len(suspensions(t, w.client)) != 0 {
		t.Errorf("%d pending after Resume, want 2", n)
	}
	if _, err := w.client.Resume(t.Context(), 33); !errors.Is(err, control.ErrConflict) || !strings.Contains(err.Error(), "uid 33: not suspended") {
		t.Errorf("second Resume: %v", err)
	}
}

func TestSuspensionsOfAnOddFormAreRefused(t *testing.T) {
	w := newWorld(t, control.Options{Owner: os.Geteuid()})
	if _, err := w.client.Suspend(t.Context(), 33, strings.Repeat("x", 201)); err == nil {
		t.Error("a long reason was taken")
	}
	if _, err := w.client.Suspend(t.Context(), -1, ""); err == nil {
		t.Error("uid -1 was taken")
	}
	if list := suspensions(t, w.client); len(list) != 0 {
		t.Errorf("suspended: %+v", list)
	}
	for _, uid := range []int{7, 0, 99} {
		if _, err := w.client.Suspend(t.Context(), uid, ""); err != nil {
			t.Error(err)
		}
	}
	list := suspensions(t, w.client)
	if !slices.IsSortedFunc(list, func(a, b spool.Suspension) int { return a.UID - b.UID }) || len(list) != 3 {
		t.Errorf("list = %+v", list)
	}
}
