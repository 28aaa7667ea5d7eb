package handoff

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"postino/spool/address"
)

func TestDropFileHoldsTheSessionByteForByte(t *testing.T) {
	for _, mask := range []int{0, 0o777} {
		dir := newSpool(t)
		old := unix.Umask(mask)
		_, dropped, err := Submit(dir, small())
		unix.Umask(old)
		if !dropped || err != nil {
			t.Fatalf("umask %o: Submit = %v, %v; want true, nil", mask, dropped, err)
		}
		wantDrop(t, dir, smallWire)
		wantMode(t, filepath.Join(dir, "drop", testHex), fileMode)
	}
}

// wantMode checks mode and link count; the runner takes no file with two links.
func wantMode(t *testing.T, path string, mode uint32) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Mode&0o7777 != mode || st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink != 1 {
		t.Errorf("%s: mode %o, %d links; want %o and 1", path, st.Mode&0o7777, st.Nlink, mode)
	}
}

func TestOrdinaryUserDropsWhatTheGroupMayRead(t *testing.T) {
	needRoot(t)
	const group = 12345
	dir := newSpool(t)
	drop := filepath.Join(dir, "drop")
	if err := errors.Join(os.Chown(drop, 0, group), unix.Chmod(drop, dropMode)); err != nil {
		t.Fatal(err)
	}
	if got := submitAs(t, dir, nobody); got != "dropped=true err=<nil>" {
		t.Fatalf("as uid %d: %s", nobody, got)
	}
	wantDrop(t, dir, smallWire)
	wantMode(t, filepath.Join(drop, testHex), fileMode)
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(drop, testHex), &st); err != nil || st.Uid != nobody || st.Gid != group {
		t.Errorf("owner %d:%d, %v; want %d:%d", st.Uid, st.Gid, err, nobody, group)
	}
}

func TestNamedFallbackLeavesOneCompleteFile(t *testing.T) {
	dir := newSpool(t)
	d, failure := openDrop(dir)
	if failure != nil {
		t.Fatal(failure)
	}
	defer d.close()
	if failure := d.leaveNamed(small()); failure != nil {
		t.Fatal(failure)
	}
	wantDrop(t, dir, smallWire)
	wantMode(t, filepath.Join(dir, "drop", testHex), fileMode)
}

func TestOwnSpoolGetsItsDropDirectory(t *testing.T) {
	dir := newSpool(t)
	if err := os.Remove(filepath.Join(dir, "drop")); err != nil {
		t.Fatal(err)
	}
	old := unix.Umask(0o077)
	_, dropped, err := Submit(dir, small())
	unix.Umask(old)
	if !dropped || err != nil {
		t.Fatalf("Submit = %v, %v; want true, nil", dropped, err)
	}
	wantDrop(t, dir, smallWire)
	wantMode(t, filepath.Join(dir, "drop"), dropMode)
}

func TestSameFileIsThereAlready(t *testing.T) {
	dir := newSpool(t)
	for range 2 {
		if _, dropped, err := Submit(dir, small()); !dropped || err != nil {
			t.Fatalf("Submit = %v, %v; want true, nil", dropped, err)
		}
		wantDrop(t, dir, smallWire)
	}
}

func TestAnotherFileOfThatNameIsAFailure(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"shorter":   func(path string) error { return os.WriteFile(path, []byte("x"), 0o640) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"symlink":   func(path string) error { return os.Symlink("/etc/passwd", path) },
		"two links": func(path string) error {
			return errors.Join(os.WriteFile(path, []byte(smallWire), 0o640), os.Link(path, path+".2"))
		},
	} {
		dir := newSpool(t)
		if err := plant(filepath.Join(dir, "drop", testHex)); err != nil {
			t.Fatal(err)
		}
		before := len(dropFiles(t, dir))
		var failure *Failure
		if _, dropped, err := Submit(dir, small()); dropped || !errors.As(err, &failure) {
			t.Errorf("%s: Submit = %v, %v; want a failure", name, dropped, err)
		}
		if names := dropFiles(t, dir); len(names) != before {
			t.Errorf("%s: drop/ holds %q", name, names)
		}
	}
}

func TestFailureSaysWhatToDo(t *testing.T) {
	spool := newSpool(t)
	noDrop := newSpool(t)
	if err := os.Remove(filepath.Join(noDrop, "drop")); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // then it is not ours to make
		if err := os.Chown(noDrop, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(spool, "drop", "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dirs := []string{filepath.Join(spool, "missing"), file}
	if os.Geteuid() == 0 { // who owns it would get a drop/
		dirs = append(dirs, noDrop)
	}
	for _, dir := range dirs {
		_, dropped, err := Submit(dir, small())
		var failure *Failure
		if dropped || !errors.As(err, &failure) || !failure.Create || !strings.Contains(err.Error(), "postino run") ||
			!strings.HasPrefix(err.Error(), dir) {
			t.Errorf("Submit(%q) = %v, %v; want a failure that names it and the remedy", dir, dropped, err)
		}
	}
}

func TestClosedDropDirectoryIsAFailure(t *testing.T) {
	needRoot(t)
	dir := newSpool(t)
	if err := os.Chmod(filepath.Join(dir, "drop"), 0o755); err != nil {
		t.Fatal(err)
	}
	got := submitAs(t, dir, nobody)
	if !strings.Contains(got, "dropped=false") || !strings.Contains(got, "permission denied: start \"postino run\"") {
		t.Errorf("as uid %d: %s; want permission denied and the remedy", nobody, got)
	}
	if names := dropFiles(t, dir); len(names) != 0 {
		t.Errorf("drop/ holds %q; want nothing", names)
	}
}

// When both ways fail, the error has both reasons.
func TestFailureKeepsTheRunnersReason(t *testing.T) {
	dir := newSpool(t)
	if err := os.Remove(filepath.Join(dir, "drop")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "drop"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	startRunner(t, dir, but("BDAT", "452 4.3.1 Disk full\r\n"))
	_, _, err := Submit(dir, small())
	if err == nil || !strings.Contains(err.Error(), "452 4.3.1 Disk full") || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("Submit = %v; want both reasons", err)
	}
}

func TestFullDiskLeavesNothing(t *testing.T) {
	needRoot(t)
	dir := newSpool(t)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=755"); err != nil {
		t.Skipf("mount: %v", err)
	}
	defer unix.Unmount(dir, 0)
	newDrop(t, dir)
	for name, leave := range map[string]func(*dropDir, *Submission) *Failure{
		"nameless": (*dropDir).leaveNameless,
		"named":    (*dropDir).leaveNamed,
	} {
		s := small()
		s.Body = bufferOf(strings.Repeat("x", 100<<10))
		d, failure := openDrop(dir)
		if failure != nil {
			t.Fatal(failure)
		}
		failure = leave(d, s)
		d.close()
		if failure == nil || failure.Err != unix.ENOSPC || failure.Create || failure.Remedy == "" {
			t.Errorf("%s: %v; want ENOSPC and a remedy", name, failure)
		}
		if names := dropFiles(t, dir); len(names) != 0 {
			t.Errorf("%s: drop/ holds %q; want nothing", name, names)
		}
	}
}

func TestEnvelopeIDIsXtext(t *testing.T) {
	for in, want := range map[string]string{
		"QQ314159": "QQ314159",
		"a+00b":    "a+2B00b",
		"a\r\nb=":  "a+0D+0Ab+3D",
		"é":        "+C3+A9",
	} {
		if got := string(appendXtext(nil, in)); got != want {
			t.Errorf("appendXtext(%q) = %q; want %q", in, got, want)
		}
	}
}

func TestBareNamesTravelAsLocalhost(t *testing.T) {
	for in, want := range map[address.Address]string{
		{}:                             "",
		{Local: "root"}:                "root@localhost",
		{Local: "a", Domain: "b"}:      "a@b",
		{Local: "a b", Domain: ""}:     `"a b"@localhost`,
		{Local: "a\"\\", Domain: "c."}: `"a\"\\"@c.`,
	} {
		if got := path821(in); got != want {
			t.Errorf("path821(%+v) = %q; want %q", in, got, want)
		}
	}
}
