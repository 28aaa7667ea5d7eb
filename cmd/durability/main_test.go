package durability_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"postino/cmd/durability/mutant"
)

// patience bounds every wait. It is far more than anything takes, on a machine too that
// is busy and stands still for half a minute, for nothing here is about speed.
const patience = 3 * time.Minute

// The variables of the environment that CONTRIBUTING.md documents.
const (
	seedVariable    = "POSTINO_SEED"
	killsVariable   = "POSTINO_TEST_KILLS"
	callsVariable   = "POSTINO_TEST_SYSCALLS"
	errnosVariable  = "POSTINO_TEST_ERRNOS"
	programVariable = "POSTINO_TEST_PROGRAMS" // set by TestMain alone
)

func TestMain(m *testing.M) {
	os.Exit(withPrograms(m))
}

func withPrograms(m *testing.M) int {
	dir, err := os.MkdirTemp("", "postino-bin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	err = mutant.Build(root(), filepath.Join(dir, "plain"))
	if err == nil {
		err = mutant.Build(root(), filepath.Join(dir, "points"), "-tags", "crashpoints")
	}
	if err == nil {
		err = os.Setenv(programVariable, dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// root is the directory of the module.
func root() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err) // the working directory is gone
	}
	return dir
}

// programs is the directory of our programs of one kind: plain, as they are
// installed, or points, which die at crash points.
func programs(kind string) string { return filepath.Join(os.Getenv(programVariable), kind) }

// needsRoot skips what looks into a runner from outside, which that allows root alone.
func needsRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "only root sees which files a runner has open")
	}
}

// size is a number of the environment, or what fits into CI; less with -short.
func size(t testing.TB, variable string, inCI int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" && testing.Short() {
		return max(1, inCI/4)
	}
	if text == "" {
		return inCI
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: want a number", variable, text)
	}
	return n
}

// seed is where all chance of a test comes from. It is printed, so that a run can
// be repeated.
func seed(t testing.TB) uint64 {
	t.Helper()
	n := uint64(time.Now().UnixNano())
	if text := os.Getenv(seedVariable); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s=%q: want a number", seedVariable, text)
		}
	}
	t.Logf("%s=%d", seedVariable, n)
	return n
}

// chance is the nth independent stream of a seed.
func chance(seed uint64, n int) *rand.Rand { return rand.New(rand.NewPCG(seed, uint64(n))) }

// skip skips a test whose tool is missing, which in CI proves nothing.
func skip(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
