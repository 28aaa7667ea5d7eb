package peer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The queues below testdata/queue were made by nullmailer 2.2 and dma 0.13 themselves.
// copyQueue lays one out as it was on their disk.
func copyQueue(t *testing.T, from, to string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join("testdata/queue", from))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join("testdata/queue", from, e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func nullmailerSpool(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	copyQueue(t, "nullmailer", filepath.Join(dir, "queue"))
	if err := syscall.Mkfifo(filepath.Join(dir, "trigger"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// dmaSpool has the two recipients of a message on one file, as dma's links have them.
func dmaSpool(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	copyQueue(t, "dma", dir)
	a, b := filepath.Join(dir, "M3.55f4466118f0"), filepath.Join(dir, "M3.55f446611950")
	if err := errors.Join(os.Remove(b), os.Link(a, b)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func queueOf(t *testing.T, name, dir string) []Waiting {
	t.Helper()
	list, bad, err := new(Import).Queue(name, dir)
	if err != nil || len(bad) > 0 {
		t.Fatal(err, bad)
	}
	return list
}

// takeAll takes all there is, and writes it down.
func takeAll(t *testing.T, list []Waiting) string {
	t.Helper()
	var got strings.Builder
	for _, w := range list {
		err := w.Take(func(content io.Reader) error {
			text, err := io.ReadAll(content)
			fmt.Fprintf(&got, "<%s> %q\n%s|\n", w.Sender, w.Recipients, text)
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	return got.String()
}

func TestWaitingMailIsTakenWholeAndOnce(t *testing.T) {
	for _, tt := range []struct {
		peer, dir, left string
		want            []string
	}{
		{"nullmailer", nullmailerSpool(t), "queue/*", []string{
			`<alice@corp.example> ["bob@example.org" "carol@example.net" "dave@example.com"]`,
			"Received: (nullmailer pid 306 invoked by uid 0);\n\tWed", "\n\nLine one\n.\nÜmläut\n|\n",
			`<> ["bob@example.org"]`}},
		{"dma", dmaSpool(t), "*", []string{
			`<alice@corp.example> ["bob@example.org" "carol@example.net"]`, "Subject: hello dma\n", "\n\nLine one\n|\n",
			`<root@box.corp.example> ["root"]`, "Subject: local\n"}},
	} {
		list := queueOf(t, tt.peer, tt.dir)
		refused := errors.New("no room")
		for _, w := range list {
			if err := w.Take(func(io.Reader) error { return refused }); !errors.Is(err, refused) {
				t.Errorf("%s: got %v", tt.peer, err)
			}
		}
		if again := queueOf(t, tt.peer, tt.dir); len(again) != len(list) || len(list) != 2 {
			t.Fatalf("%s: %d messages, and %d after nothing was taken; want 2", tt.peer, len(list), len(again))
		}
		got := takeAll(t, list)
		for _, want := range tt.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %q in\n%s", tt.peer, want, got)
			}
		}
		if left, err := filepath.Glob(filepath.Join(tt.dir, tt.left)); err != nil || len(left) > 0 {
			t.Errorf("%s: %q are left, %v", tt.peer, left, err)
		}
		if len(queueOf(t, tt.peer, tt.dir)) > 0 {
			t.Errorf("%s: still waiting", tt.peer)
		}
	}
}

// Two programs that send the same mail would send it twice.
func TestMailInUseIsLeftAlone(t *testing.T) {
	dir := nullmailerSpool(t)
	list := queueOf(t, "nullmailer", dir)
	daemon, err := os.OpenFile(filepath.Join(dir, "trigger"), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer daemon.Close()
	if _, _, err := new(Import).Queue("nullmailer", dir); err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("while nullmailer-send runs: %v", err)
	}
	never := func(io.Reader) error { t.Error("given to store"); return nil }
	if err := list[0].Take(never); err == nil {
		t.Error("taken while nullmailer-send runs")
	}

	dir = dmaSpool(t)
	list = queueOf(t, "dma", dir)
	q, err := os.OpenFile(filepath.Join(dir, "Q3.55f446611950"), os.O_RDWR, 0)
	if err == nil {
		err = syscall.Flock(int(q.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	for _, w := range list {
		if len(w.Recipients) == 2 {
			if err := w.Take(never); err == nil || !strings.Contains(err.Error(), "sending it just now") {
				t.Errorf("while dma has it: %v", err)
			}
		}
	}
	if err := os.Remove(filepath.Join(dir, "Q6.55b3906268f0")); err != nil {
		t.Fatal(err)
	}
	for _, w := range list {
		if len(w.Recipients) == 1 {
			if err := w.Take(never); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("after dma has sent it: %v", err)
			}
		}
	}
}

// What is no message is told, and keeps nothing from being taken.
func TestDamagedQueueFilesAreTold(t *testing.T) {
	dir := nullmailerSpool(t)
	queue := filepath.Join(dir, "queue")
	if err := errors.Join(
		os.WriteFile(filepath.Join(queue, "1"), []byte("a@b.example\nc@d.example"), 0o600),
		os.WriteFile(filepath.Join(queue, "2"), []byte("a@b.example\n\nno recipient\n"), 0o600),
		os.WriteFile(filepath.Join(queue, "3"), []byte(strings.Repeat("x\n", maxEnvelope)), 0o600),
		os.Mkdir(filepath.Join(queue, "4"), 0o700),
		syscall.Mkfifo(filepath.Join(queue, "5"), 0o600),
		os.Symlink("/etc/passwd", filepath.Join(queue, "6")),
	); err != nil {
		t.Fatal(err)
	}
	if list, bad, err := new(Import).Queue("nullmailer", dir); err != nil || len(list) != 2 || len(bad) != 6 {
		t.Errorf("%d taken, %v, %v", len(list), bad, err)
	}
	dir = dmaSpool(t)
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "Q1"), []byte("Sender: a\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "Q2"), []byte("Sender: a\nRecipient: b\n"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	if list, bad, err := new(Import).Queue("dma", dir); err != nil || len(list) != 2 || len(bad) != 2 {
		t.Errorf("%d taken, %v, %v", len(list), bad, err)
	}
	root := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(root, "etc/dma"), 0o755), os.MkdirAll(filepath.Join(root, "srv/mail"), 0o755),
		os.WriteFile(filepath.Join(root, "etc/dma/dma.conf"), []byte("#SPOOLDIR /var/spool/dma\nSPOOLDIR /srv/mail\n"), 0o644),
		os.Rename(filepath.Join(dir, "Q6.55b3906268f0"), filepath.Join(root, "srv/mail/Q6.55b3906268f0")),
		os.Rename(filepath.Join(dir, "M6.55b3906268f0"), filepath.Join(root, "srv/mail/M6.55b3906268f0"))); err != nil {
		t.Fatal(err)
	}
	if list, _, err := (&Import{Root: root}).Queue("dma", ""); err != nil || len(list) != 1 {
		t.Errorf("where SPOOLDIR says: %d, %v", len(list), err)
	}
	if _, _, err := new(Import).Queue("msmtp", ""); err == nil {
		t.Error("msmtp has no queue")
	}
}
