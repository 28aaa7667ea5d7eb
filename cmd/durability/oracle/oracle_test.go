package oracle_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"postino/cmd/durability/oracle"
	"postino/spool"
	"postino/spool/spooltest"
)

const dropName = "0123456789abcdef0123456789abcdef"

// world is a spool directory and what front ends said of it.
type world struct {
	dir       string
	ledger    oracle.Ledger
	delivered [][]byte
}

// message has a front end end with that status, and returns the message as it
// arrives.
func (w *world) message(subject string, status int) string {
	text, s := oracle.Compose(rand.New(rand.NewPCG(1, 2)), subject, 3)
	s.Status = status
	w.ledger.Add(s)
	return strings.ReplaceAll(text, "\n", "\r\n")
}

func (w *world) deliver(text string) { w.delivered = append(w.delivered, []byte(text)) }

func (w *world) put(t *testing.T, content, subject string) {
	t.Helper()
	s, err := spool.Open(w.dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer spooltest.Close(t, s)
	d, err := s.NewDraft(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	m := spooltest.Message(t, "a@example.org")
	m.Subject = subject
	if _, err := d.Commit(m); err != nil {
		t.Fatal(err)
	}
}

func (w *world) drop(t *testing.T, session string) {
	t.Helper()
	dir := filepath.Join(w.dir, spool.DropDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, dropName), []byte(session), 0o644); err != nil {
		t.Fatal(err)
	}
}

func session(text string) string {
	return "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT " + strconv.Itoa(len(text)) + " LAST\r\n" + text
}

// An oracle that says yes to everything proves nothing.
func TestOracleSeesEachKindOfHarm(t *testing.T) {
	for name, tt := range map[string]struct {
		do   func(*testing.T, *world)
		want string // part of the error; empty: no harm
	}{
		"nothing":             {func(*testing.T, *world) {}, ""},
		"delivered":           {func(_ *testing.T, w *world) { w.deliver(w.message("x", 0)) }, ""},
		"queued":              {func(t *testing.T, w *world) { w.put(t, w.message("x", 0), "x") }, ""},
		"dropped":             {func(t *testing.T, w *world) { w.drop(t, session(w.message("x", 0))) }, ""},
		"killed and nowhere":  {func(_ *testing.T, w *world) { w.message("x", -1) }, ""},
		"killed and queued":   {func(t *testing.T, w *world) { w.put(t, w.message("x", -1), "x") }, ""},
		"refused and nowhere": {func(_ *testing.T, w *world) { w.message("x", 74) }, ""},
		"given up":            {func(_ *testing.T, w *world) { w.message("x", 0); w.ledger.GiveUp("x") }, ""},
		"lost":                {func(_ *testing.T, w *world) { w.message("x", 0) }, "lost"},
		"torn at the server": {func(_ *testing.T, w *world) {
			text := w.message("x", 0)
			w.deliver(text[:len(text)-2])
		}, "not whole"},
		"torn in the queue": {func(t *testing.T, w *world) { w.put(t, w.message("x", -1)+"more\r\n", "x") }, "not whole"},
		"torn in drop": {func(t *testing.T, w *world) {
			text := session(w.message("x", -1))
			w.drop(t, text[:len(text)-1])
		}, "not whole"},
		"cut in its envelope": {func(t *testing.T, w *world) { w.drop(t, "EHLO x\r\nMAIL") }, "not whole"},
		"one message twice": {func(_ *testing.T, w *world) {
			text := w.message("x", 0)
			w.deliver(text)
			w.deliver(text)
		}, "delivered again"},
		"two messages of one": {func(_ *testing.T, w *world) {
			text := w.message("x", 0)
			w.deliver("Received: one\r\n" + text)
			w.deliver("Received: two\r\n" + text)
		}, "two messages"},
		"two records of one": {func(t *testing.T, w *world) {
			text := w.message("x", 0)
			w.put(t, text, "x")
			w.put(t, text, "x")
		}, "two messages"},
		"out of nothing": {func(_ *testing.T, w *world) { w.deliver("Subject: y\r\n\r\nhi\r\n") }, "never handed over"},
		"a damaged spool": {func(t *testing.T, w *world) {
			if err := os.WriteFile(filepath.Join(w.dir, "spool.db"), []byte("what is this?"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "the spool"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{dir: t.TempDir()}
			tt.do(t, w)
			err := w.ledger.Judge(w.dir, w.delivered).Err(0)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// What ended with an error and is there all the same is told, and is no harm by
// itself.
func TestOracleTellsWhatWasRefusedAndStored(t *testing.T) {
	w := &world{dir: t.TempDir()}
	w.put(t, w.message("x", 74), "x")
	v := w.ledger.Judge(w.dir, nil)
	if len(v.Refused) != 1 || v.Err(0) != nil || v.Queued != 1 {
		t.Errorf("%+v", v)
	}
}
