package control_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postino/delivery/control"
	"postino/spool"
)

func TestStrangersSeeThatThereIsMailAndOfTheirOwnAll(t *testing.T) {
	w := newWorld(t, control.Options{Group: admingroup})
	theirs := w.add(t, 1500, "private", nil)
	w.attempt(t, theirs, spool.Deferred, deferral, false)
	own := w.add(t, stranger, "own", nil)
	w.attempt(t, own, spool.Deferred, deferral, false)
	captured := w.add(t, 1500, "captured", nil)
	w.attempt(t, captured, spool.Delivered, spool.Reply{Status: "2.0.0"}, true)

	out := ask(t, w.dir, &syscall.Credential{Uid: stranger, Gid: stranger}, theirs)
	if len(out.Queue) != 2 {
		t.Fatalf("queue has %d entries, want 2", len(out.Queue))
	}
	hidden, full := out.Queue[0], out.Queue[1]
	if !hidden.Hidden || hidden.Sender != "" || len(hidden.Recipients) != 2 || hidden.Size != int64(len(content)) || hidden.Arrived.IsZero() {
		t.Errorf("another's message: %+v", hidden)
	}
	for _, r := range hidden.Recipients {
		if r.Address != "" || r.Reply == nil || r.Reply.Text != "" || r.Reply.Host != "" || r.Reply.Code != 451 {
			t.Errorf("another's recipient: %+v, reply %+v", r, r.Reply)
		}
	}
	if full.Hidden || full.Sender != "from@sender.test" || full.Recipients[0].Reply.Text != deferral.Text {
		t.Errorf("own message: %+v", full)
	}
	if !slices.Equal(out.Trace, []string{own.String()}) || len(out.Captured) != 0 {
		t.Errorf("trace found %v and capture %v, want own mail alone", out.Trace, out.Captured)
	}
	for name, want := range map[string]error{
		"show": spool.ErrNotFound, "content": spool.ErrNotFound,
		"hold": control.ErrNotAllowed, "release": control.ErrNotAllowed, "retry": control.ErrNotAllowed,
		"flush": control.ErrNotAllowed, "preview": control.ErrNotAllowed, "delete": control.ErrNotAllowed, "yield": control.ErrNotAllowed,
		"reload": control.ErrNotAllowed, "compact": control.ErrNotAllowed, "hosts": control.ErrNotAllowed, "logins": control.ErrNotAllowed, "forget": control.ErrNotAllowed, "suspend": control.ErrNotAllowed, "suspensions": control.ErrNotAllowed, "resume": control.ErrNotAllowed,
	} {
		if out.Errors[name] != want.Error() {
			t.Errorf("%s: got %q, want %q", name, out.Errors[name], want)
		}
	}
}

func TestMailqAllShowsRecordsButNoContent(t *testing.T) {
	w := newWorld(t, control.Options{Group: admingroup, MailqAll: func() bool { return true }})
	id := w.add(t, 1500, "private", nil)
	out := ask(t, w.dir, &syscall.Credential{Uid: stranger, Gid: stranger}, id)
	if out.Queue[0].Hidden || out.Errors["show"] != "ok" || out.Errors["content"] != spool.ErrNotFound.Error() ||
		out.Errors["hold"] != control.ErrNotAllowed.Error() {
		t.Errorf("got %+v", out)
	}
}

func TestAdministratorsAreRootOwnerAndGroup(t *testing.T) {
	for _, tt := range []struct {
		name string
		cred syscall.Credential
		want string
	}{
		{"root", syscall.Credential{Uid: 0, Gid: 0}, "ok"},
		{"owner", syscall.Credential{Uid: 1999, Gid: 1999}, "ok"},
		{"primary group", syscall.Credential{Uid: stranger, Gid: admingroup}, "ok"},
		{"supplementary group", syscall.Credential{Uid: stranger, Gid: stranger, Groups: []uint32{9, admingroup}}, "ok"},
		{"last of very many groups", syscall.Credential{Uid: stranger, Gid: stranger, Groups: manyGroups()}, "ok"},
		{"other group", syscall.Credential{Uid: stranger, Gid: stranger, Groups: []uint32{9}}, control.ErrNotAllowed.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			yielded := make(chan bool, 1)
			w := newWorld(t, control.Options{Owner: 1999, Group: admingroup, UntilEmpty: true, Stop: func() { yielded <- true }})
			id := w.add(t, 1500, "private", nil)
			out := ask(t, w.dir, &tt.cred, id)
			for _, name := range []string{"hold", "release", "retry", "flush", "yield", "reload", "compact", "hosts", "logins", "forget", "preview", "delete", "suspend", "suspensions", "resume"} {
				if out.Errors[name] != tt.want {
					t.Errorf("%s: got %q, want %q", name, out.Errors[name], tt.want)
				}
			}
			if got := len(yielded) == 1; got != (tt.want == "ok") {
				t.Errorf("the runner was told to yield: %v", got)
			}
		})
	}
}

func manyGroups() []uint32 {
	var groups []uint32
	for g := range uint32(300) {
		groups = append(groups, 10000+g)
	}
	return append(groups, admingroup)
}

func TestForeignServerIsNotTrusted(t *testing.T) {
	dir := sharedDir(t)
	cmd := runAs(t, dir, &syscall.Credential{Uid: stranger, Gid: stranger}, "listen")
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	c := control.Dial(dir)
	defer c.Close()
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "uid 65534") {
		t.Errorf("a stranger's socket: got %v", err)
	}
}

func TestNobodyListeningIsNoRunner(t *testing.T) {
	dir := sharedDir(t)
	c := control.Dial(dir)
	defer c.Close()
	if _, err := c.Status(t.Context()); !errors.Is(err, control.ErrNoRunner) {
		t.Errorf("no socket: got %v", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, spool.ControlSocket)})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := c.Status(t.Context()); !errors.Is(err, control.ErrNoRunner) {
		t.Errorf("a dead socket: got %v", err)
	}
	if _, err := control.Dial(filepath.Join(dir, "missing")).Status(t.Context()); !errors.Is(err, control.ErrNoRunner) {
		t.Errorf("no directory: got %v", err)
	}
}

func TestLongSpoolPathIsReached(t *testing.T) {
	w := newWorld(t, control.Options{})
	long := filepath.Join(w.dir, strings.Repeat("d", 120))
	if err := os.Symlink(w.dir, long); err != nil {
		t.Fatal(err)
	}
	c := control.Dial(long)
	defer c.Close()
	st, err := c.Status(t.Context())
	if err != nil || st.Version != "1.2.3" || st.PID != os.Getpid() || st.Mode != "deliver" {
		t.Errorf("got %+v, %v", st, err)
	}
}

func TestTraceFindsByEachName(t *testing.T) {
	w := newWorld(t, control.Options{Owner: os.Geteuid()})
	first := w.add(t, 1, "Backup done", func(m *spool.Message) { m.Subject = "Backup =?utf-8?q?f=C3=BCr?= Anna" })
	second := w.add(t, 1, "other", func(m *spool.Message) { m.Sender = addr(t, "boss@Corp.test") })
	w.attempt(t, first, spool.Relayed, spool.Reply{Code: 250, Status: "2.0.0", Text: "ok"}, false)
	for _, tt := range []struct {
		what string
		want []spool.ID
	}{
		{first.String(), []spool.ID{first}},
		{strings.ToLower(second.String()), []spool.ID{second}},
		{strings.ToLower(second.String()[5:]), []spool.ID{second}},
		{"Her <x@to.test>", []spool.ID{first, second}},
		{"<other@id.test>", []spool.ID{second}},
		{"Backup done@id.test", []spool.ID{first}},
		{"BOSS@corp.test", nil}, // a local part has case (RFC 5321 §2.4)
		{"boss@corp.TEST", []spool.ID{second}},
		{"y@to.test", []spool.ID{first, second}},
		{"FÜR a", []spool.ID{first}},
		{"nothing like it", nil},
		{"0000000000000001", nil},
	} {
		var got []spool.ID
		for tr, err := range w.client.Trace(t.Context(), tt.what) {
			if err != nil {
				t.Errorf("%q: %v", tt.what, err)
			}
			got = append(got, tr.ID)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("Trace(%q) = %v, want %v", tt.what, got, tt.want)
		}
	}
	tr, err := w.client.Show(t.Context(), first)
	if err != nil || tr.Status != control.StatusFinished || len(tr.Attempts) != 1 || tr.Attempts[0].TookMS != 340 ||
		!slices.Equal(tr.Attempts[0].Recipients, []string{"x@to.test", "y@To.TEST"}) || !tr.Recipients[0].Next.IsZero() {
		t.Errorf("Show = %+v, %v", tr, err)
	}
}

func TestChangesArriveInTheSpool(t *testing.T) {
	w := newWorld(t, control.Options{Owner: os.Geteuid()})
	id := w.add(t, 1500, "m", nil)
	ctx := t.Context()
	change := func(v control.Verb, id spool.ID) (got control.Message, err error) {
		for got, err = range w.client.Steer(ctx, v, control.Selection{IDs: []spool.ID{id}}) {
		}
		return got, err
	}
	m, err := change(control.Hold, id)
	if err != nil || m.Status != control.StatusHeld || m.Held != fmt.Sprintf("held by uid %d", os.Geteuid()) {
		t.Fatalf("hold = %+v, %v", m, err)
	}
	if _, err := change(control.Retry, id); !errors.Is(err, control.ErrConflict) {
		t.Errorf("retry of held mail: got %v", err)
	}
	if m, err := change(control.Release, id); err != nil || m.Status != control.StatusQueued {
		t.Errorf("release = %+v, %v", m, err)
	}
	if m, err := change(control.Delete, id); err != nil || m.Status != control.StatusFinished || m.Recipients[1].Status != spool.Failed {
		t.Errorf("delete = %+v, %v", m, err)
	}
	if _, err := change(control.Delete, id); !errors.Is(err, control.ErrConflict) {
		t.Errorf("second delete: got %v", err)
	}
	if _, err := w.client.Content(ctx, id); !errors.Is(err, control.ErrContentGone) {
		t.Errorf("Content of finished mail: got %v", err)
	}
	if _, err := change(control.Hold, 1); !errors.Is(err, spool.ErrNotFound) {
		t.Errorf("Hold of nothing: got %v", err)
	}
	if err := w.client.Yield(ctx); !errors.Is(err, control.ErrConflict) {
		t.Errorf("Yield of a runner that stays: got %v", err)
	}
}

func TestContentComesWholeOrWithAnError(t *testing.T) {
	w := newWorld(t, control.Options{Owner: os.Geteuid()})
	big := strings.Repeat("0123456789abcde\n", 20<<10)
	d, err := w.spool.NewDraft(0)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(d, big)
	id, err := d.Commit(&spool.Message{Arrived: time.Now(), Recipients: []spool.Recipient{{Status: spool.Queued, Address: addr(t, "a@b.test")}}})
	if err != nil {
		t.Fatal(err)
	}
	read := func() (string, error) {
		r, err := w.client.Content(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		b, err := io.ReadAll(r)
		return string(b), err
	}
	if got, err := read(); err != nil || got != big {
		t.Fatalf("got %d octets, %v; want %d", len(got), err, len(big))
	}
	path := filepath.Join(w.dir, "content", id.String())
	if err := os.WriteFile(path, []byte(strings.Replace(big, "9", "8", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := read(); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damaged content: got %v", err)
	}
	small := w.add(t, 1, "small", nil)
	w.attempt(t, small, spool.Delivered, spool.Reply{Status: "2.0.0"}, true)
	r, err := w.client.Content(t.Context(), small)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != content {
		t.Errorf("captured content: %q, %v", got, err)
	}
}

func TestLongQueueIsListedInOrder(t *testing.T) {
	w := newWorld(t, control.Options{Owner: os.Geteuid()})
	const n = 3000
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range n / 8 {
				w.add(t, 1500, "bulk", nil)
			}
		})
	}
	wg.Wait()
	last, count := spool.ID(0), 0
	for m, err := range w.client.Queue(t.Context(), control.Selection{}) {
		if err != nil {
			t.Fatal(err)
		}
		if m.ID <= last {
			t.Fatalf("%s comes behind %s", m.ID, last)
		}
		last, count = m.ID, count+1
	}
	if count != n {
		t.Errorf("got %d messages, want %d", count, n)
	}
	found, first := 0, spool.ID(0)
	for m, err := range w.client.Trace(t.Context(), "bulk") {
		if err != nil {
			t.Fatal(err)
		}
		if found == 0 {
			first = m.ID
		}
		found, last = found+1, m.ID
	}
	if found != 1000 || first >= last {
		t.Errorf("trace found %d messages, want the newest 1000", found)
	}
}

// A runner that dies in the middle of a list must not make it look complete.
func TestCutListIsAnError(t *testing.T) {
	dir := sharedDir(t)
	l, err := net.Listen("unix", filepath.Join(dir, spool.ControlSocket))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Read(make([]byte, 4096))
		const line = `{"id":"0000000000000001","recipients":[]}` + "\n"
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(line), line)
		c.Close()
	}()
	c := control.Dial(dir)
	defer c.Close()
	n, failed := 0, false
	for _, err := range c.Queue(t.Context(), control.Selection{}) {
		if err != nil {
			failed = true
			continue
		}
		n++
	}
	if n != 1 || !failed {
		t.Errorf("got %d messages, error %v; want 1 and an error", n, failed)
	}
}

func TestHostileRequestsAreRefused(t *testing.T) {
	w := newWorld(t, control.Options{Owner: os.Geteuid()})
	for request, want := range map[string]string{
		"GET /message/../../etc/passwd HTTP/1.1":                  " 307 ", // the mux cleans the path; nothing is a file here
		"GET /message/xyz HTTP/1.1":                               " 400 ",
		"GET /trace HTTP/1.1":                                     " 400 ",
		"GET /trace?q=" + strings.Repeat("a", 1000) + " HTTP/1.1": " 400 ",
		"GET /" + strings.Repeat("a", 100<<10) + " HTTP/1.1":      " 431 ",
		"POST /queue HTTP/1.1":                                    " 405 ",
		"POST /delete?form=a@b.test HTTP/1.1":                     " 400 ",
		"POST /delete?limit=-1 HTTP/1.1":                          " 400 ",
		"nonsense":                                                " 400 ",
	} {
		c, err := net.Dial("unix", filepath.Join(w.dir, spool.ControlSocket))
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(patience))
		go io.WriteString(c, request+"\r\nHost: x\r\nConnection: close\r\n\r\n")
		answer := make([]byte, 64)
		n, err := io.ReadAtLeast(c, answer, 16)
		c.Close()
		if got, _, _ := strings.Cut(string(answer[:n]), "\r\n"); !strings.Contains(got+" ", want) {
			t.Errorf("%.40q: got %q, %v; want%s", request, got, err, want)
		}
	}
}
