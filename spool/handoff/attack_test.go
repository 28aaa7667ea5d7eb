package handoff

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A message is left only where nobody but its owner and the runner's can take it away.
func TestUnsafeDropDirectoryGetsNothing(t *testing.T) {
	needRoot(t)
	const runner, stranger = 54320, 54321
	for name, tt := range map[string]struct {
		spool, drop int // owners
		mode        uint32
		as          int // the caller; 0 is root
		taken       bool
	}{
		"as it is laid out":             {runner, runner, 0o3733, nobody, true},
		"as it is laid out, for root":   {runner, runner, 0o3733, 0, true},
		"root's":                        {runner, 0, 0o3733, nobody, true},
		"the caller's own spool":        {nobody, nobody, 0o700, nobody, true},
		"the caller's own drop":         {runner, nobody, 0o3733, nobody, true},
		"a stranger's":                  {runner, stranger, 0o3733, nobody, false},
		"a stranger's, for root":        {runner, stranger, 0o3733, 0, false},
		"a stranger's in root's spool":  {0, stranger, 0o1777, 0, false},
		"not sticky":                    {runner, runner, 0o2733, nobody, false},
		"not sticky, for root":          {runner, runner, 0o777, 0, false},
		"not sticky, for a whole group": {runner, runner, 0o2773, nobody, false},
	} {
		dir := newSpool(t)
		drop := filepath.Join(dir, "drop")
		for path, uid := range map[string]int{dir: tt.spool, drop: tt.drop} {
			if err := os.Chown(path, uid, uid); err != nil {
				t.Fatal(err)
			}
		}
		if err := syscall.Chmod(drop, tt.mode); err != nil {
			t.Fatal(err)
		}
		got := ""
		if tt.as == 0 {
			if _, dropped, err := Submit(dir, small()); dropped == (err != nil) {
				t.Errorf("%s: dropped=%v, %v", name, dropped, err)
			} else if err != nil {
				got = err.Error()
			}
		} else {
			got = submitAs(t, dir, uint32(tt.as))
		}
		if n := len(dropFiles(t, dir)); (n == 1) != tt.taken {
			t.Errorf("%s: %d files, want one: %v; %s", name, n, tt.taken, got)
		}
	}
}
