// Package cmd_test holds the end-to-end tests: the two programs as they are
// installed, called by the programs that call them, sending to mail servers.
//
// Where a caller or server is not installed its test is skipped, but not in CI.
package cmd_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"postino/delivery/relay/servertest"
)

// patience bounds every wait. It is far more than anything takes, on a machine too that
// is busy and stands still for half a minute, for nothing here is about speed.
const patience = 3 * time.Minute

// binVariable is how TestMain tells the tests where the programs are: bin/ has
// both under all their names, alone/ has sendmail without its sibling, which then
// cannot start a runner behind a test's back.
const binVariable = "POSTINO_TEST_PROGRAMS"

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
	if err := buildPrograms(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := os.Setenv(binVariable, dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// buildPrograms builds what is installed, as it is installed: static.
func buildPrograms(dir string) error {
	bin, alone := filepath.Join(dir, "bin"), filepath.Join(dir, "alone")
	for _, d := range []string{dir, bin, alone} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(d, 0o755); err != nil { // other uids call them too
			return err
		}
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-o", bin+"/", "postino/cmd/sendmail", "postino/cmd/postino")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	for _, name := range []string{"mailq", "newaliases", "send-mail"} {
		if err := os.Symlink("sendmail", filepath.Join(bin, name)); err != nil {
			return err
		}
	}
	return os.Link(filepath.Join(bin, "sendmail"), filepath.Join(alone, "sendmail"))
}

// program is the path of one of our programs.
func program(name string) string { return filepath.Join(os.Getenv(binVariable), "bin", name) }

// sendmailAlone is the path of a sendmail that finds no postino.
func sendmailAlone() string { return filepath.Join(os.Getenv(binVariable), "alone", "sendmail") }

// needs returns the path of a program of the system. A test that needs one that
// is missing proves nothing, so in CI it fails.
func needs(t testing.TB, name, pkg string) string {
	t.Helper()
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/bin", "/sbin"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	servertest.Missing(t, "%s is not installed: apt-get install %s", name, pkg)
	return ""
}

// needsRoot skips a test that only root can set up.
func needsRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		servertest.Missing(t, "only root can do this")
	}
}
