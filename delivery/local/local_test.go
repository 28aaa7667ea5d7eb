package local

import (
	"context"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postino/config"
	"postino/spool"
	"postino/spool/address"
	"postino/spool/standstill"
)

// patience is how long a test waits for what has to come, so that a broken program ends
// it instead of hanging it. No stall of the machine comes near it.
const patience = 2 * time.Minute

const content = "Subject: hi\r\nFrom: ann@example.org\r\n\r\nFrom here on\r\n>From there\r\n.\r\nend\r\n"

// batch is a message, of that ID, for these recipients.
func batch(t *testing.T, id spool.ID, to ...string) *spool.Batch {
	t.Helper()
	m := &spool.Message{ID: id, Arrived: time.Date(2026, 11, 2, 10, 0, 0, 0, time.UTC), Sender: address.Address{Local: "ann", Domain: "example.org"}, Size: int64(len(content))}
	b := &spool.Batch{Message: m, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }}
	for i, text := range to {
		a, err := address.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		m.Recipients = append(m.Recipients, spool.Recipient{Address: a, Status: spool.Queued})
		b.Recipients = append(b.Recipients, i)
	}
	return b
}

func store(t *testing.T, text string) *Store {
	t.Helper()
	var to config.Transport
	if err := to.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return New(to, "host.test")
}

func statuses(replies []spool.Reply) string {
	var list []string
	for _, r := range replies {
		list = append(list, r.Status)
	}
	return strings.Join(list, " ")
}

// me is a user that there is.
func me(t *testing.T) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}

const letterText = "Subject: hi\nFrom: ann@example.org\n\nFrom here on\n>From there\n.\nend\n"

// Each recipient has the message once, whole, however often it is delivered, and
// whether somebody has read it meanwhile or not.
func TestMaildirHasTheMessageOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, me(t)), 0o700); err != nil {
		t.Fatal(err)
	}
	s := store(t, "maildir:"+dir+"/{user}/Maildir")
	box := filepath.Join(dir, me(t), "Maildir")
	deliver := func() {
		t.Helper()
		if got := statuses(s.Deliver(context.Background(), batch(t, 1, me(t)+"@host.test", "nosuchuser-x@host.test", "../x@host.test"))); got != "2.0.0 5.1.1 5.1.1" {
			t.Errorf("%s", got)
		}
	}
	deliver()
	deliver()
	files, err := filepath.Glob(box + "/new/*")
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if want := "Return-Path: <ann@example.org>\nDelivered-To: " + me(t) + "@host.test\n" + letterText; err != nil || string(text) != want {
		t.Errorf("%q, %v, want %q", text, err, want)
	}
	if err := os.Rename(files[0], filepath.Join(box, "cur", filepath.Base(files[0])+":2,S")); err != nil {
		t.Fatal(err)
	}
	deliver()
	if left, err := filepath.Glob(box + "/[tn]*/*"); err != nil || len(left) != 0 {
		t.Errorf("delivered again: %q, %v", left, err)
	}
}

// What a user puts in the place of a mailbox leads nowhere else.
func TestLinksLeadNowhereElse(t *testing.T) {
	t.Parallel()
	dir, target := t.TempDir(), t.TempDir()
	home := filepath.Join(dir, me(t))
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(target, "file")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"Maildir": target, "mbox": victim, "mail": target} {
		if err := os.Symlink(to, filepath.Join(home, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, transport := range []string{"maildir:" + dir + "/{user}/Maildir", "mbox:" + dir + "/{user}/mbox", "mbox:" + dir + "/{user}/mail/box", "maildir:" + dir + "/{user}/mail/{user}"} {
		if got := statuses(store(t, transport).Deliver(context.Background(), batch(t, 1, me(t)+"@host.test"))); got != "4.2.0" {
			t.Errorf("%s: %s", transport, got)
		}
	}
	entries, err := os.ReadDir(target)
	info, statErr := os.Stat(victim)
	if err != nil || len(entries) != 1 || statErr != nil || info.Size() != 0 {
		t.Errorf("%v, %v, %v, %v", entries, err, info, statErr)
	}
}

// An mbox keeps its messages apart, and a second delivery of the last adds nothing.
func TestMboxKeepsMessagesApart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := store(t, "mbox:"+dir+"/box")
	for _, id := range []spool.ID{1, 1, 2} {
		b := batch(t, id, "bob@host.test")
		b.Message.Arrived = b.Message.Arrived.Add(time.Duration(id) * time.Minute)
		if got := statuses(s.Deliver(context.Background(), b)); got != "2.0.0" {
			t.Errorf("%s", got)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "box"))
	entry := "Return-Path: <ann@example.org>\nDelivered-To: bob@host.test\n" + strings.NewReplacer("\nFrom here", "\n>From here", "\n>From there", "\n>>From there").Replace(letterText) + "\n"
	want := "From ann@example.org Mon Nov  2 10:01:00 2026\n" + entry + "From ann@example.org Mon Nov  2 10:02:00 2026\n" + entry
	if err != nil || string(text) != want {
		t.Errorf("%q, %v, want\n%q", text, err, want)
	}
	if left, err := filepath.Glob(dir + "/*.lock"); err != nil || len(left) != 0 {
		t.Errorf("locks are left: %q, %v", left, err)
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	out, err := standstill.Command(t, patience, python, "-c", `import mailbox, sys
for m in mailbox.mbox(sys.argv[1], create=False): print(m.get_from(), m["subject"], m["delivered-to"])`, filepath.Join(dir, "box")).CombinedOutput()
	if err != nil || strings.Count(string(out), "hi bob@host.test") != 2 {
		t.Errorf("Python reads %s, %v", out, err)
	}
}

// Who was killed with a mailbox locked leaves a lock that the next one knows for what it
// is, and one of another kernel, or of another program, holds.
func TestOwnLockIsNoLockAfterACrash(t *testing.T) {
	t.Parallel()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"postino " + string(boot): "2.0.0", "postino 0f0f0f0f-0000-4000-8000-000000000000\n": "4.2.0", "4711\n": "4.2.0", "": "4.2.0",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "box.lock"), []byte(text), 0o444); err != nil {
			t.Fatal(err)
		}
		wait := patience
		if want != "2.0.0" {
			wait = 50 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		if got := statuses(store(t, "mbox:"+dir+"/box").Deliver(ctx, batch(t, 1, "bob@host.test"))); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// Many messages at a time come into one mbox one after the other.
func TestMboxTakesManyMessagesAtATime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := store(t, "mbox:"+dir+"/box")
	var all sync.WaitGroup
	for id := range spool.ID(10) {
		all.Go(func() {
			b := batch(t, id+1, "bob@host.test")
			b.Message.Arrived = b.Message.Arrived.Add(time.Duration(id) * time.Minute)
			// Who finds it locked for too long comes again, as the runner does.
			replies, end := s.Deliver(context.Background(), b), time.Now().Add(patience)
			for statuses(replies) == "4.2.0" && time.Now().Before(end) {
				replies = s.Deliver(context.Background(), b)
			}
			if statuses(replies) != "2.0.0" {
				t.Errorf("%d: %+v", id, replies)
			}
		})
	}
	all.Wait()
	text, err := os.ReadFile(filepath.Join(dir, "box"))
	if n := strings.Count(string(text), "\nReturn-Path: <ann@example.org>\nDelivered-To: bob@host.test\n"); err != nil || n != 10 || len(text)%10 != 0 {
		t.Errorf("%d of 10 messages in %d octets, %v", n, len(text), err)
	}
}

// Mail waits while a mail program has the mailbox, and while a line of it is longer
// than a buffer nothing is lost.
func TestMboxIsLockedAndLinesMayBeLong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "box.lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := store(t, "mbox:"+dir+"/box")
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if got := statuses(s.Deliver(ctx, batch(t, 1, "bob@host.test"))); got != "4.2.0" {
		t.Errorf("although it is locked: %s", got)
	}
	if err := os.Remove(filepath.Join(dir, "box.lock")); err != nil {
		t.Fatal(err)
	}
	long := "X: y\r\n\r\n" + strings.Repeat("From \r", 40_000) + "\r\nlast"
	b := batch(t, 2, "bob@host.test")
	b.Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(long)), nil }
	if got := statuses(s.Deliver(context.Background(), b)); got != "2.0.0" {
		t.Errorf("%s", got)
	}
	text, err := os.ReadFile(filepath.Join(dir, "box"))
	if want := ">" + strings.Repeat("From \r", 40_000) + "\nlast\n\n"; err != nil || !strings.HasSuffix(string(text), "\n\n"+want) {
		t.Errorf("%d octets, %v: %q", len(text), err, text[max(0, len(text)-60):])
	}
}
