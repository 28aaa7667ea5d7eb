package spool_test

import (
	"strings"
	"testing"

	"postino/spool"
	"postino/spool/spooltest"
)

// A file system that does not keep what it was given is told of, and used; one of
// a local disk is not worth a word.
func TestDoubtfulFileSystemIsToldOf(t *testing.T) {
	for kind, want := range map[string]string{"ext4": "", "tmpfs": "is on tmpfs"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			spooltest.Mount(t, dir, kind, 24<<20, "noatime")
			s := spooltest.Open(t, dir, spool.Options{})
			spooltest.Put(t, s, "hello", "a@x.test")
			got := s.Warnings()
			if want == "" && len(got) > 0 || want != "" && (len(got) != 1 || !strings.Contains(got[0], want)) {
				t.Errorf("warnings: %q, want %q", got, want)
			}
		})
	}
}
