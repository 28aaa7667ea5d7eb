// Package mutant breaks postino on purpose, so that the tests of durability can
// show that they would notice. A Mutant is the real program with one piece of its
// source replaced, by go build -overlay; the tree is not touched.
package mutant

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Harness is the smallest test that has to notice a Mutant.
type Harness string

// The harnesses.
const (
	// PowerCut drops what was not synced, and finds it missing.
	PowerCut Harness = "power cut"
	// CrashPoint dies at one named place.
	CrashPoint Harness = "crash point"
	// Errno has one system call fail.
	Errno Harness = "errno"
	// Prefix leaves drop files that end too early.
	Prefix Harness = "prefix"
)

// Mutant is a mistake that somebody could make.
type Mutant struct {
	Name string
	// File is the path from the root of the module; Old is in it exactly once, and
	// New takes its place.
	File, Old, New string
	Harness        Harness
}

// Table is all mutants. Each has to turn the suite red.
func Table() []Mutant {
	return []Mutant{
		{"content file not synced", "spool/draft.go",
			"d.file.Sync()", "error(nil)", PowerCut},
		{"content directory not synced", "spool/draft.go",
			"syncDir(d.s.path(contentDir))", "error(nil)", PowerCut},
		{"database not synced", "spool/spool.go",
			"NoFreelistSync: true,", "NoSync: true, NoFreelistSync: true,", PowerCut},
		{"drop file not synced", "spool/handoff/drop.go",
			"err = fsync(fd)", "err = nil", PowerCut},
		{"nothing of drop/ synced", "spool/handoff/drop.go",
			"unix.Fsync(fd)", "error(nil)", PowerCut},
		{"drop directory not synced", "spool/handoff/drop.go",
			"err = d.sync(fd)", "err = nil", PowerCut},
		{"new database made in its place", "spool/repair.go",
			"newSuffix = \".new\"", "newSuffix = \"\"", PowerCut},
		{"new database not synced", "spool/compact.go",
			"err := db.Sync()", "err := error(nil)", PowerCut},
		{"new database's name not synced", "spool/compact.go",
			"err := syncDir(filepath.Dir(path))", "err, _ := error(nil), filepath.Dir(path)", PowerCut},
		{"answer before the commit", "spool/commit.go",
			"return <-o.done", "return nil", CrashPoint},
		{"second arrival not recognised", "spool/draft.go",
			"return keyID(tx.Bucket(bucketSubmission).Get(submissionKey(m)))", "return 0", CrashPoint},
		{"failed commit ignored", "spool/commit.go",
			"o.done <- err", "o.done <- nil", Errno},
		{"no fence after a failed sync", "spool/commit.go",
			"err = s.fail(err)", "err = errors.Join(ErrNoSpace, err)", Errno},
		{"truncated drop file taken", "spool/submit/conn.go",
			"return io.ErrUnexpectedEOF", "return io.EOF", Prefix},
	}
}

// Source is m.File with m's mistake in it, in the module whose root is root. The
// error is that m.Old is not there any more: then the Table has to follow.
func (m Mutant) Source(root string) ([]byte, error) {
	source, err := os.ReadFile(filepath.Join(root, m.File))
	if err != nil {
		return nil, err
	}
	if n := strings.Count(string(source), m.Old); n != 1 {
		return nil, fmt.Errorf("mutant %q: %s has %q %d times, want it once", m.Name, m.File, m.Old, n)
	}
	return []byte(strings.Replace(string(source), m.Old, m.New, 1)), nil
}

// Build builds the programs of the module whose root is root into the directory
// out, with m's mistake in them; args go to go build before the packages.
func (m Mutant) Build(root, out string, args ...string) error {
	source, err := m.Source(root)
	if err == nil {
		// An overlay with a path that is not absolute is passed over in silence.
		root, err = filepath.Abs(root)
	}
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "postino-mutant")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	broken, overlay := filepath.Join(dir, "broken.go"), filepath.Join(dir, "overlay.json")
	table, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(root, m.File): broken}})
	if err == nil {
		err = errors.Join(
			os.WriteFile(broken, source, 0o600),
			os.WriteFile(overlay, table, 0o600))
	}
	if err != nil {
		return err
	}
	return Build(root, out, append([]string{"-overlay", overlay}, args...)...)
}

// Build builds the programs as they are, static as they are installed.
func Build(root, out string, args ...string) error {
	args = append([]string{"build", "-buildvcs=false", "-trimpath", "-o", out + "/"}, args...)
	cmd := exec.Command("go", append(args, "postino/cmd/sendmail", "postino/cmd/postino")...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, text)
	}
	return nil
}
