package cmd_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"postino/delivery/relay/relaytest"
)

// damaged spoils the spool file from one octet on, in pages of 4096.
func (b *box) damaged(page, pages int) {
	b.t.Helper()
	f, err := os.OpenFile(filepath.Join(b.spool, "spool.db"), os.O_WRONLY, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, pages*4096), int64(page)*4096); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) aside() []string {
	b.t.Helper()
	names, err := filepath.Glob(filepath.Join(b.spool, "spool.db.damaged.*Z"))
	if err != nil {
		b.t.Fatal(err)
	}
	return names
}

// The runner starts whatever is in the place of spool.db, takes new mail, says what
// happened, and delivers what it can bring back: each message once, and whole. What
// may have been sent already waits for a person.
func TestRunnerOutlivesADamagedSpool(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(b *box)
		least int // messages that come back
	}{
		"first pages gone": {func(b *box) { b.damaged(0, 2) }, 20},
		"a meta page gone": {func(b *box) { b.damaged(1, 1) }, 20},
		"middle gone":      {func(b *box) { b.damaged(6, 8) }, 10},
		"all gone":         {func(b *box) { b.damaged(0, 4096) }, 0},
		"empty":            {func(b *box) { b.truncate(0) }, 0},
		"cut off":          {func(b *box) { b.truncate(10*4096 + 77) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := relaytest.New(t, relaytest.Options{})
			b := newBox(t, "mode = \"hold\"\n"+relayTo(s.Port()))
			r := b.start()
			for i := range 20 {
				b.sendmail(fmt.Sprintf("Subject: old %d\n\n%s", i, strings.Repeat("0123456789\n", 1+i%4*1000)), "alice@example.org")
			}
			r.stop()
			tt.spoil(b)
			b.configure(relayTo(s.Port()))
			if got := b.run(b.command("", program("postino"), "spool", "check")); got.code != 1 || !strings.Contains(got.err, "damaged") {
				t.Errorf("spool check ended with %d: %s", got.code, got.err)
			}
			r = b.start()
			b.sendmail("Subject: new\n\nx\n", "alice@example.org")
			b.log.await(t, "spool file damaged and set aside")
			b.log.await(t, "spool file salvaged")
			if got := b.aside(); len(got) != 1 {
				t.Errorf("set aside: %q", got)
			}
			poll(t, "nothing but held mail", func() bool {
				for _, m := range b.queue() {
					if m.Status != "held" {
						return false
					}
				}
				return b.drops() == 0
			})
			for _, m := range b.queue() {
				b.postino("release", m.ID)
			}
			poll(t, "nothing but damaged mail", func() bool {
				for _, m := range b.queue() {
					if m.Status != "held" {
						return false
					}
				}
				return true
			})
			r.stop()
			messageWith(t, s, "new")
			seen := make(map[string]bool)
			for _, m := range s.Messages() {
				head, body := headerAndBody(t, m.Data)
				subject := value(t, head, "Subject")
				if seen[subject] {
					t.Errorf("%q arrived twice", subject)
				}
				seen[subject] = true
				var i int
				if _, err := fmt.Sscanf(subject, "old %d", &i); err == nil && body != strings.Repeat("0123456789\r\n", 1+i%4*1000) {
					t.Errorf("%q is not whole: %d octets", subject, len(body))
				}
			}
			if back := len(seen) - 1; back < tt.least {
				t.Errorf("%d of 20 came back, want %d at least", back, tt.least)
			}
			b.start().stop()
			if got := b.aside(); len(got) != 1 {
				t.Errorf("set aside: %q", got)
			}
		})
	}
}

func (b *box) truncate(size int64) {
	b.t.Helper()
	if err := os.Truncate(filepath.Join(b.spool, "spool.db"), size); err != nil {
		b.t.Fatal(err)
	}
}

// The commands of the administrator, and what scripts see of them.
func TestSpoolCommands(t *testing.T) {
	s := relaytest.New(t, relaytest.Options{})
	b := newBox(t, "mode = \"hold\"\n"+relayTo(s.Port()))
	r := b.start()
	b.sendmail("Subject: x\n\nx\n", "alice@example.org")
	if got := b.run(b.command("", program("postino"), "spool", "check")); got.code != 69 || !strings.Contains(got.err, "held by pid") {
		t.Errorf("check beside a runner ended with %d: %s", got.code, got.err)
	}
	var sizes struct{ Before, After int64 }
	for range 2 { // with a runner, and without
		if err := json.Unmarshal([]byte(b.postino("spool", "compact", "--json")), &sizes); err != nil || sizes.Before == 0 || sizes.After > sizes.Before {
			t.Errorf("compact: %+v, %v", sizes, err)
		}
		if r != nil {
			r.stop()
			r = nil
		}
	}
	var check struct {
		OK     bool
		Faults []string
	}
	if err := json.Unmarshal([]byte(b.postino("spool", "check", "--json")), &check); err != nil || !check.OK || len(check.Faults) > 0 {
		t.Errorf("check: %+v, %v", check, err)
	}
	if got := b.postino("spool", "salvage"); got != "nothing to salvage\n" {
		t.Errorf("salvage of nothing: %q", got)
	}
	// A file from elsewhere, and damaged.
	elsewhere := filepath.Join(b.dir, "old.db")
	if err := os.Rename(filepath.Join(b.spool, "spool.db"), elsewhere); err != nil {
		t.Fatal(err)
	}
	var salvaged struct{ Queued, Held, Known int }
	if err := json.Unmarshal([]byte(b.postino("spool", "salvage", "--json", elsewhere)), &salvaged); err != nil || salvaged.Queued != 1 {
		t.Errorf("salvage: %+v, %v", salvaged, err)
	}
	if err := json.Unmarshal([]byte(b.postino("spool", "salvage", "--json", elsewhere)), &salvaged); err != nil || salvaged.Queued != 0 || salvaged.Known != 1 {
		t.Errorf("salvage again: %+v, %v", salvaged, err)
	}
	if os.Geteuid() == 0 {
		b.giveTo(spoolUID)
		if err := os.Chown(elsewhere, 0, 0); err != nil {
			t.Fatal(err)
		}
		if got := b.run(b.command("", program("postino"), "spool", "salvage", elsewhere)); got.code == 0 || !strings.Contains(got.err, "permission denied for the owner of") {
			t.Errorf("salvage of what the owner cannot read: %+v", got)
		}
		b.giveTo(0)
	}
	b.damaged(0, 2)
	got := b.run(b.command("", program("postino"), "spool", "salvage", "--json"))
	if err := json.Unmarshal([]byte(got.out), &salvaged); err != nil || got.code != 1 || salvaged.Held != 1 || !strings.Contains(got.err, "held") {
		t.Errorf("salvage ended with %d: %+v, %v, %s", got.code, salvaged, err, got.err)
	}
	b.configure(relayTo(s.Port()))
	last := b.start()
	b.postino("release", "--all")
	poll(t, "an empty queue", func() bool { return len(b.queue()) == 0 })
	last.stop()
	messageWith(t, s, "x")
}

// fromEnv is a number that makes a test larger or repeats it.
func fromEnv(t testing.TB, name string, usual int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s=%q: %v", name, text, err)
	}
	return n
}

// POSTINO_DAMAGED_RUNNERS says how many runners meet a damaged spool.
func TestRunnerStartsWhateverTheDamage(t *testing.T) {
	seed := uint64(fromEnv(t, "POSTINO_SEED", int(time.Now().UnixNano())))
	t.Logf("POSTINO_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	b := newBox(t, "mode = \"hold\"\n")
	r := b.start()
	for i := range 30 {
		b.sendmail(fmt.Sprintf("Subject: %d\n\n%s", i, strings.Repeat("0123456789\n", 1+i%4*1000)), "alice@example.org")
	}
	r.stop()
	old := make(map[string]bool)
	for _, m := range b.queue() {
		old[m.ID] = true
	}
	path := filepath.Join(b.spool, "spool.db")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	back, damages := 0, fromEnv(t, "POSTINO_DAMAGED_RUNNERS", 10)
	for n := range damages {
		if err := os.WriteFile(path, spoil(random, bytes.Clone(good)), 0o600); err != nil {
			t.Fatal(err)
		}
		r := b.start()
		b.sendmail("Subject: new\n\nx\n", "alice@example.org")
		b.log.awaitN(t, len(b.aside()), "spool file salvaged")
		taken := false
		for _, m := range b.queue() {
			if old[m.ID] {
				back++
			} else {
				taken = true
			}
		}
		if !taken {
			t.Errorf("damage %d: the new message is not in the queue", n)
		}
		r.stop()
	}
	t.Logf("%d damages, %d of %d messages came back", damages, back, damages*len(old))
	if back < damages*len(old)/2 {
		t.Error("less than half of the mail came back")
	}
}

// spoil damages one of the pages that are in use, or cuts the file off there.
func spoil(random *rand.Rand, b []byte) []byte {
	const page = 4096
	used := (len(bytes.TrimRight(b, "\x00")) + page - 1) / page
	at := random.IntN(used) * page
	switch random.IntN(5) {
	case 0:
		clear(b[at : at+page])
	case 1:
		b[at+random.IntN(page)] ^= 1 << random.IntN(8)
	case 2:
		copy(b[at:at+page], b[random.IntN(used)*page:])
	case 3:
		return b[:at+random.IntN(page)]
	default:
		for i := range page {
			b[at+i] = byte(random.Uint32())
		}
	}
	return b
}
