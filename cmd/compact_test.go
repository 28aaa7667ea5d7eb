package cmd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postino/delivery/relay/relaytest"
)

// fence leaves the mark that a runner leaves which ended after an I/O error.
func (b *box) fence() {
	b.t.Helper()
	f, err := os.OpenFile(filepath.Join(b.spool, "lock"), os.O_WRONLY, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("F"), 21); err != nil {
		b.t.Fatal(err)
	}
}

// Whoever compacts or rewrites the spool may be killed at any system call: the file
// is the old one or the new one, whole.
func TestKilledCompactionLeavesAWholeSpool(t *testing.T) {
	strace := needs(t, "strace", "strace")
	s := relaytest.New(t, relaytest.Options{})
	b := newBox(t, "mode = \"hold\"\n"+relayTo(s.Port()))
	r := b.start()
	const sent = 12
	for i := range sent {
		b.sendmail(fmt.Sprintf("Subject: %d\n\n%s", i, strings.Repeat("0123456789\n", 1+i%3*1000)), "alice@example.org")
	}
	r.stop()
	kills := 0
	for _, call := range []string{"openat", "unlinkat", "pwrite64", "ftruncate", "fdatasync", "fsync", "renameat", "flock", "mmap", "munmap"} {
		for n := 1; n <= 30; n++ {
			b.fence() // so that it rewrites before it compacts
			got := b.run(b.command("", strace, "-f", "-qq", "-o", os.DevNull, "-e", "trace="+call,
				"-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call, n), program("postino"), "spool", "compact"))
			if check := b.run(b.command("", program("postino"), "spool", "check")); check.code != 0 {
				t.Fatalf("killed at %s %d: spool check ended with %d: %s", call, n, check.code, check.err)
			}
			if got.code == 0 {
				break // it does not call that so often
			}
			kills++
		}
	}
	if kills < 30 {
		t.Errorf("%d kills: that proves nothing", kills)
	}
	if got := len(b.queue()); got != sent {
		t.Errorf("%d messages are left of %d", got, sent)
	}
	b.configure(relayTo(s.Port()))
	last := b.start()
	poll(t, "an empty queue", func() bool { return len(b.queue()) == 0 })
	last.stop()
	for i := range sent {
		messageWith(t, s, fmt.Sprint(i))
	}
	t.Logf("%d kills", kills)
}
