package cmd_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postino/delivery/relay/relaytest"
	"postino/spool/spooltest"
)

// fullDiskMail is how many messages are in the queue when the disk fills up.
const fullDiskMail = 40

// A full disk loses nothing: who submits is told by a status, what is queued is
// delivered once, and with room again everything goes on by itself.
func TestFullDiskLosesNothing(t *testing.T) {
	needsRoot(t)
	for _, tt := range []struct {
		kind, options string
		uid           int
	}{
		{"ext4", "defaults", 0},
		{"ext4", "defaults", 33},
		{"tmpfs", "size=24m", 33},
	} {
		t.Run(fmt.Sprintf("%s as %d", tt.kind, tt.uid), func(t *testing.T) {
			t.Parallel()
			s := relaytest.New(t, relaytest.Options{Rules: []relaytest.Rule{{At: "MAIL", Reply: "451 4.3.0 later"}}})
			b := newBox(t, relayTo(s.Port())+"[retry]\nfirst = \"1h\"\nmax = \"1h\"\n")
			spooltest.Mount(t, b.spool, tt.kind, 24<<20, tt.options)
			b.giveTo(tt.uid)
			r := b.start()
			f := &fullDisk{box: b}
			for range fullDiskMail {
				f.submit(2 << 10)
			}
			f.refused = 0
			free, began := spooltest.Fill(t, b.spool), time.Now()
			for range 50 { // as many as fit into what is free inside the file
				f.submit(60 << 10)
			}
			if f.refused == 0 {
				t.Error("50 messages of 60 KiB fit on a full disk: this test tests nothing")
			}
			f.submit(1 << 20)
			f.refusesByProtocol()
			if n := b.log.count("no room: not accepted"); n == 0 || n > 2+int(time.Since(began)/time.Minute) {
				t.Errorf("%d lines about %d messages", n, f.refused)
			}
			f.warns(tt.kind == "tmpfs")

			// Each outcome is recorded, which takes more room than is free in the file.
			whole := f.reserve()
			s.SetRules(relaytest.Rule{At: "MAIL", Reply: "451 4.3.0 " + strings.Repeat("later ", 150)})
			for round := 0; f.reserve() == whole; round++ {
				if round > 100 {
					t.Fatal("nothing of the reserve is needed: this test tests nothing")
				}
				before := b.log.count("msg=attempt")
				b.postino("retry", "--all")
				b.log.awaitN(t, before+f.accepted, "msg=attempt")
			}
			s.SetRules()
			b.postino("retry", "--all")
			b.log.awaitN(t, f.accepted, "msg=finished")
			free()
			before := f.accepted
			poll(t, "room", func() bool { f.submit(2 << 10); return f.accepted > before })
			b.log.awaitN(t, f.accepted, "msg=finished")
			r.stop()
			f.count(s)
		})
	}
}

// fullDisk counts what was submitted.
type fullDisk struct {
	box               *box
	accepted, refused int
}

// submit has a front end submit a message of that size, and wants success, or
// status 73 or 74 and the words that there is no room.
func (f *fullDisk) submit(size int) {
	f.box.t.Helper()
	r := f.box.run(f.box.command(fmt.Sprintf("Subject: number %d.\n\n%s", f.accepted, strings.Repeat("0123456789abcde\n", size/16)), f.box.front, "alice@example.org"))
	switch {
	case r == result{}:
		f.accepted++
	case (r.code == 73 || r.code == 74) && strings.Contains(r.err, "no space left") && strings.Contains(r.err, "make room"):
		f.refused++
	default:
		f.box.t.Fatalf("a submission on a full disk: %+v", r)
	}
}

// warns wants the runner to say what is wrong with the spool: that there is no
// room, and, from the start and once, that it is in memory.
func (f *fullDisk) warns(memory bool) {
	t := f.box.t
	t.Helper()
	status := f.box.postino("status")
	if !strings.Contains(status, "warning: no room in the spool") || strings.Contains(status, "tmpfs") != memory {
		t.Errorf("postino status: %s", status)
	}
	want := 0
	if memory {
		want = 1
	}
	if n := f.box.log.count("tmpfs"); n != want {
		t.Errorf("%d lines of the log about tmpfs, want %d", n, want)
	}
}

// reserve is how many slices of the reserve are there.
func (f *fullDisk) reserve() int {
	f.box.t.Helper()
	slices, err := os.ReadDir(filepath.Join(f.box.spool, "reserve"))
	if err != nil {
		f.box.t.Fatal(err)
	}
	return len(slices)
}

// refusesByProtocol wants 452 on the socket and from sendmail -bs.
func (f *fullDisk) refusesByProtocol() {
	t := f.box.t
	t.Helper()
	session := "EHLO client\r\nMAIL FROM:<a@web.test>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n" + "Subject: x\r\n\r\n" + strings.Repeat("0123456789abcd\r\n", 4000) + ".\r\nQUIT\r\n"
	conn, err := net.Dial("unix", filepath.Join(f.box.spool, "submit.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, session); err != nil {
		t.Fatal(err)
	}
	bs := f.box.run(f.box.command(session, program("sendmail"), "-bs"))
	var said []string
	for lines := bufio.NewScanner(io.MultiReader(conn, strings.NewReader(bs.out))); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "452 4.3.1 ") && strings.Contains(lines.Text(), "make room") {
			said = append(said, lines.Text())
		}
	}
	if len(said) != 2 {
		t.Errorf("on the socket and by -bs: %q, want two refusals with 452 4.3.1; -bs says %+v", said, bs)
	}
}

// count wants each accepted message to have arrived once, and nothing left.
func (f *fullDisk) count(s *relaytest.Server) {
	t := f.box.t
	t.Helper()
	times := make(map[string]int)
	for _, m := range s.Messages() {
		_, rest, _ := strings.Cut(string(m.Data), "Subject: number ")
		number, _, _ := strings.Cut(rest, ".")
		times[number]++
	}
	for n := range f.accepted {
		if got := times[fmt.Sprint(n)]; got != 1 {
			t.Errorf("message %d arrived %d times, want once", n, got)
		}
	}
	if len(times) != f.accepted {
		t.Errorf("%d different messages arrived, want %d", len(times), f.accepted)
	}
	f.box.empty()
	if left, err := os.ReadDir(filepath.Join(f.box.spool, "content")); err != nil || len(left) > 0 {
		t.Errorf("left in content/: %v %v", left, err)
	}
}
