package spooltest

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"postino/spool/standstill"
)

// patience is how long a disk is waited for, which may stand still for half a minute.
const patience = 3 * time.Minute

// Mount mounts a new file system on the directory where until the end of the test.
// The kind is "tmpfs", or one that there is a mkfs for, such as "ext4", which then
// has size octets; options are mount's. A test that cannot have one is skipped,
// except where that has to work: for root in CI.
func Mount(t testing.TB, where, kind string, size int64, options string) {
	t.Helper()
	cannot := t.Skipf
	if os.Getenv("CI") == "true" && os.Geteuid() == 0 {
		cannot = t.Fatalf
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	device := kind
	if kind != "tmpfs" {
		device = filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(device, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(device, size); err != nil {
			t.Fatal(err)
		}
		if out, err := standstill.Command(t, patience, "mkfs."+kind, mkfs(kind, device)...).CombinedOutput(); err != nil {
			cannot("mkfs.%s: %v\n%s", kind, err, out)
		}
		options = "loop," + options
	}
	if out, err := standstill.Command(t, patience, "mount", "-t", kind, "-o", options, device, where).CombinedOutput(); err != nil {
		cannot("mount: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		// A process that another test starts has our files open until it is another program.
		err := syscall.Unmount(where, 0)
		for end := time.Now().Add(patience); err == syscall.EBUSY && time.Now().Before(end); err = syscall.Unmount(where, 0) {
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			t.Errorf("unmount: %v\n%s", err, standstill.Of(os.Getpid()))
			_ = syscall.Unmount(where, syscall.MNT_DETACH)
		}
	})
	if err := os.Chmod(where, 0o755); err != nil {
		t.Fatal(err)
	}
}

// mkfs returns the arguments of mkfs. Nothing is kept for root, as whom tests run.
func mkfs(kind, device string) []string {
	switch kind {
	case "ext4":
		return []string{"-q", "-F", "-m", "0", device}
	case "xfs", "btrfs":
		return []string{"-q", "-f", device}
	}
	return []string{device}
}

// Fill takes all the room that is left in dir. The function it returns gives it
// back.
func Fill(t testing.TB, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4 << 10, 1 << 10} {
		for chunk := make([]byte, size); err == nil; {
			_, err = f.Write(chunk)
		}
		err = nil
	}
	// What a file system has promised it may give back when it is asked to keep it.
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}
