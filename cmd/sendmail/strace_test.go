package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// trace runs c under strace and returns its system calls of some kinds, without
// those of the runner it may start.
func trace(t *testing.T, kinds string, c call) []string {
	t.Helper()
	const strace = "/usr/bin/strace"
	// Where there is none, or none that may trace, this proves nothing: in CI that is
	// a failure.
	skip := t.Skipf
	if os.Getenv("CI") == "true" {
		skip = t.Fatalf
	}
	if _, err := os.Stat(strace); err != nil {
		skip("%v", err)
	}
	log := filepath.Join(c.spool, "strace")
	if err := os.WriteFile(log, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(log, 0o666); err != nil { // for a call as somebody else
		t.Fatal(err)
	}
	c.shell = "cd / && exec " + strace + " -f -o " + log + " -e trace=" + kinds + ` "$0" "$@"`
	if r := c.run(t); r.code != 0 || r.mail == nil {
		skip("strace: status %d, %s", r.code, r.stderr)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	runner := "" // the process that became postino
	var calls []string
	for line := range strings.Lines(string(text)) {
		pid, call, _ := strings.Cut(line, " ")
		call = strings.TrimLeft(call, " ")
		if strings.HasPrefix(call, "execve(") && strings.Contains(call, `/postino"`) {
			runner = pid
		}
		if pid != runner {
			calls = append(calls, call)
		}
	}
	return calls
}

// Nothing on the command line names a file that is opened, and nothing is opened
// by a relative name.
func TestOnlyTheSpoolIsTouched(t *testing.T) {
	spool := newSpool(t)
	known := []string{spool, "/etc/passwd", "/proc/", "/sys/", "/dev/null", filepath.Dir(program(t, "sendmail")),
		"/usr/", "/sbin/postino", "/bin/postino"}
	for _, call := range trace(t, "file", call{
		args:  []string{"-X/tmp/x.php", "-C/etc/shadow", "-oQ/tmp/q", "-oA/tmp/a", "-OQueueDirectory=/tmp/q", "-p/tmp/p", "bob@example.net"},
		stdin: plain,
		env:   []string{"HOME=/tmp/home", "TMPDIR=/tmp/t", "TZ=/tmp/tz", "PATH=."},
		spool: spool,
	}) {
		_, name, ok := strings.Cut(call, `AT_FDCWD, "`)
		if !ok {
			continue
		}
		name, _, _ = strings.Cut(name, `"`)
		if !slices.ContainsFunc(known, func(k string) bool { return strings.HasPrefix(name, k) }) {
			t.Errorf("touches %s", call)
		}
	}
}

// The file is on the disk before it has its name, and the name before the end.
func TestStatusZeroMeansSynced(t *testing.T) {
	for _, tt := range []struct {
		uid  uint32
		want []string
	}{
		{0, []string{"fsync", "linkat", "fsync", "fsync", "fsync"}}, // file; file, drop/ and the spool directory
		{54321, []string{"fsync", "linkat", "syncfs"}},              // who may not read drop/
	} {
		if tt.uid != 0 && os.Geteuid() != 0 {
			continue
		}
		var got []string
		for _, call := range trace(t, "fsync,fdatasync,syncfs,linkat,rename,renameat", call{
			args: []string{"bob@example.net"}, stdin: plain, uid: tt.uid, spool: newSpool(t),
		}) {
			name, _, ok := strings.Cut(call, "(")
			// "<... resumed>" is the rest of a call, "???" a thread that ended in one.
			if ok && !strings.HasPrefix(name, "<") && name != "???" {
				got = append(got, name)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("uid %d: %q; want %q", tt.uid, got, tt.want)
		}
	}
}
