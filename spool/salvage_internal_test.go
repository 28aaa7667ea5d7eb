package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"postino/spool/address"
)

// These say how many damages are tried, on a spool of how many messages, and from
// which seed.
const (
	messagesVariable = "POSTINO_DAMAGED_MESSAGES"
	damagesVariable  = "POSTINO_DAMAGES"
	damageSeed       = "POSTINO_SEED"
)

// specimen is a spool as it is before the damage.
type specimen struct {
	db    []byte            // spool.db up to its last page in use
	size  int64             // of the file
	files map[string][]byte // content/
	rows  map[ID][][2]int64 // where the record and the content are in db
	want  map[ID]*Message   // in the queue
	text  map[ID][]byte     // their content
	ended map[ID]bool
}

func setting(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s=%q: %v", name, text, err)
	}
	return n
}

func randomText(random *rand.Rand, size int) []byte {
	b := fmt.Appendf(nil, "Subject: %d\r\n\r\n", random.Uint64())
	for len(b) < size {
		b = fmt.Appendf(b, "%016x\r\n", random.Uint64())
	}
	return b
}

func store(t *testing.T, s *Spool, text []byte, recipients int) ID {
	t.Helper()
	d, err := s.NewDraft(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Write(text); err != nil {
		t.Fatal(err)
	}
	m := &Message{Arrived: time.Now(), Sender: address.Address{Local: "a", Domain: "x.test"}, Origin: Origin{Via: ViaSocket, UID: 33}}
	for i := range recipients {
		m.Recipients = append(m.Recipients, Recipient{Address: address.Address{Local: strconv.Itoa(i), Domain: "y.test"}, Status: Queued})
	}
	id, err := d.Commit(m)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func settleSome(t *testing.T, s *Spool, id ID, status Status, recipients ...int) {
	t.Helper()
	a := &Attempt{At: time.Now(), Hop: "relay x"}
	for _, n := range recipients {
		a.Outcomes = append(a.Outcomes, Outcome{Recipient: n, Status: status, Reply: Reply{Code: 250, Status: "2.0.0", Text: "Ok"}})
	}
	if _, err := s.Record(id, a); err != nil {
		t.Fatal(err)
	}
}

// newSpecimen makes a spool in which mail came and went, so that its free pages are
// full of older copies.
func newSpecimen(t *testing.T, random *rand.Rand, messages int) *specimen {
	t.Helper()
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	sp := &specimen{files: make(map[string][]byte), want: make(map[ID]*Message), text: make(map[ID][]byte), ended: make(map[ID]bool)}
	for i := range messages {
		size := []int{300, 1500, 6000, 40000, smallContent + 5000}[min(random.IntN(40)/9, 4)]
		text := randomText(random, size)
		id := store(t, s, text, 2)
		switch i % 8 {
		case 0, 1, 2, 3:
			settleSome(t, s, id, Relayed, 0, 1)
		case 4:
			settleSome(t, s, id, Deferred, 0)
		case 5:
			settleSome(t, s, id, Relayed, 1)
		}
		sp.text[id] = text
	}
	for id := range sp.text {
		m, err := s.Message(id)
		if err != nil {
			t.Fatal(err)
		}
		if sp.ended[id] = m.Settled(); !sp.ended[id] {
			sp.want[id] = m
		}
	}
	if err := errors.Join(s.Check(), s.Close()); err != nil {
		t.Fatal(err)
	}
	sp.load(t, dir)
	return sp
}

func (sp *specimen) load(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, dbFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := readDB(f)
	if err != nil {
		t.Fatal(err)
	}
	sp.size = d.size
	sp.db = make([]byte, int64(d.meta.high)*d.pageSize)
	if _, err := io.ReadFull(f, sp.db); err != nil {
		t.Fatal(err)
	}
	d.r = bytes.NewReader(append(bytes.Clone(sp.db), make([]byte, d.size-int64(len(sp.db)))...))
	sp.rows = make(map[ID][][2]int64)
	w := walk{
		f:   d,
		gap: func(g gap) { t.Errorf("a whole file has a gap: %v", g.err) },
		row: func(bucket string, r row) error {
			if bucket == string(bucketMessage) || bucket == string(bucketContent) {
				sp.rows[keyID(r.key)] = append(sp.rows[keyID(r.key)], [2]int64{r.head, r.off + int64(len(r.value))})
			}
			return nil
		},
	}
	if err := w.run(); err != nil || len(d.faults) > 0 {
		t.Fatalf("a whole file has faults: %v %v", d.faults, err)
	}
	names, err := filepath.Glob(filepath.Join(dir, contentDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if sp.files[filepath.Base(name)], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
}

// lay puts the specimen into a directory, with that in the place of spool.db.
func (sp *specimen) lay(t *testing.T, dir string, db []byte, size int64) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, contentDir), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range sp.files {
		if err := os.WriteFile(filepath.Join(dir, contentDir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, dbFile)
	if err := os.WriteFile(path, db, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

// damage is one way to damage a file.
type damage struct {
	name string
	do   func(random *rand.Rand, b []byte, page int) (out []byte, size int64)
}

// damages work on whole pages of 4096 octets. The size they return is that of the
// file; 0 is as it was.
func damages() []damage {
	const page = 4096
	pages := func(b []byte, n int) []byte { return b[n*page : (n+1)*page] }
	return []damage{
		{"zeroed page", func(_ *rand.Rand, b []byte, n int) ([]byte, int64) { clear(pages(b, n)); return b, 0 }},
		{"misdirected page", func(random *rand.Rand, b []byte, n int) ([]byte, int64) {
			copy(pages(b, n), pages(b, random.IntN(len(b)/page)))
			return b, 0
		}},
		{"flipped bit", func(random *rand.Rand, b []byte, n int) ([]byte, int64) {
			pages(b, n)[random.IntN(page)] ^= 1 << random.IntN(8)
			return b, 0
		}},
		{"flipped bit in a page's head", func(random *rand.Rand, b []byte, n int) ([]byte, int64) {
			pages(b, n)[random.IntN(64)] ^= 1 << random.IntN(8)
			return b, 0
		}},
		{"cut short", func(random *rand.Rand, b []byte, n int) ([]byte, int64) {
			size := n*page + random.IntN(page)
			return b[:size], int64(size)
		}},
		{"garbage", func(random *rand.Rand, b []byte, n int) ([]byte, int64) {
			for i := n * page; i < min((n+1+random.IntN(4))*page, len(b)); i++ {
				b[i] = byte(random.Uint32())
			}
			return b, 0
		}},
		{"many zeroed pages", func(random *rand.Rand, b []byte, n int) ([]byte, int64) {
			clear(b[n*page : min((n+1+random.IntN(16))*page, len(b))])
			return b, 0
		}},
	}
}

// Whatever happens to a page: the spool opens, new mail is taken, each message that
// lay on other pages comes back with its content, none twice, none that was sent,
// and no content that is not the one that was stored.
func TestDamageLosesOnlyWhatItHit(t *testing.T) {
	seed := uint64(setting(t, damageSeed, int(time.Now().UnixNano())))
	t.Logf("%s=%d", damageSeed, seed)
	random := rand.New(rand.NewPCG(seed, 0))
	sp := newSpecimen(t, random, setting(t, messagesVariable, 200))
	kinds := damages()
	var total verdict
	for i := range setting(t, damagesVariable, 70) {
		kind := kinds[i%len(kinds)]
		page := random.IntN(len(sp.db) / 4096)
		if random.IntN(10) == 0 {
			page = random.IntN(6) // the meta pages are few
		}
		db, size := kind.do(random, bytes.Clone(sp.db), page)
		if size == 0 {
			size = sp.size
		}
		name := fmt.Sprintf("%d: %s, page %d", i, kind.name, page)
		sp.try(t, name, db, size, &total)
		if t.Failed() {
			break
		}
	}
	t.Logf("%d damages, %d found at open; undamaged messages: %d, %d came back, %d of them held; damaged: %d, %d came back; sent before: %d held again",
		total.cases, total.aside, total.undamaged, total.back, total.held, total.damaged, total.damagedBack, total.again)
	if total.back*100 < total.undamaged*99 {
		t.Errorf("less than 99 %% came back")
	}
}

type verdict struct{ cases, aside, undamaged, back, held, damaged, damagedBack, again int }

// hit reports whether the record or the content of a message lies on pages that are
// not as they were. The first page of several says where the rows are.
func (sp *specimen) hit(id ID, db []byte) bool {
	return slices.ContainsFunc(sp.rows[id], func(at [2]int64) bool {
		from, to := at[0]/4096*4096, min((at[1]+4095)/4096*4096, int64(len(sp.db)))
		return to > int64(len(db)) || !bytes.Equal(sp.db[from:to], db[from:to])
	})
}

func (sp *specimen) try(t *testing.T, name string, db []byte, size int64, total *verdict) {
	t.Helper()
	dir, err := os.MkdirTemp("", "postino-damage")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	sp.lay(t, dir, db, size)
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	defer s.Close()
	total.cases++
	fresh := store(t, s, []byte("Subject: new\r\n\r\n"), 1)
	aside, err := s.SetAside()
	if err != nil {
		t.Fatal(err)
	}
	var report Salvaged
	for _, a := range aside {
		total.aside++
		if report, err = s.Salvage(t.Context(), a.Path); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if left, err := s.SetAside(); err != nil || len(left) > 0 {
		t.Errorf("%s: %v is still to be salvaged, %v", name, left, err)
	}
	for m, err := range s.Queue() {
		switch {
		case err != nil:
			t.Errorf("%s: %v", name, err)
			continue
		case m.ID == fresh:
			continue
		case sp.ended[m.ID] && m.Held == "":
			t.Errorf("%s: %s was sent before and would be again", name, m.ID)
		case sp.ended[m.ID]:
			total.again++
		case sp.want[m.ID] == nil:
			t.Errorf("%s: %s was never there", name, m.ID)
		}
		if got, err := readContent(s, m); err == nil && !bytes.Equal(got, sp.text[m.ID]) {
			t.Errorf("%s: %s has content that was never stored", name, m.ID)
		} else if err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %s: %v", name, m.ID, err)
		}
	}
	for id, was := range sp.want {
		m, err := s.Message(id)
		back := err == nil && m.Finished.IsZero()
		if sp.hit(id, db) {
			total.damaged++
			if back {
				total.damagedBack++
			}
			continue
		}
		total.undamaged++
		if !back {
			t.Logf("%s: %s is lost: %v; %v", name, id, err, report.Faults)
			continue
		}
		if got, err := readContent(s, m); err != nil || !bytes.Equal(got, sp.text[id]) {
			t.Errorf("%s: %s: content of %d octets, %v", name, id, len(got), err)
		}
		for i := range was.Recipients {
			if m.Recipients[i].Status != was.Recipients[i].Status && m.Held == "" {
				t.Errorf("%s: %s: recipient %d is %s, was %s", name, id, i, m.Recipients[i].Status, was.Recipients[i].Status)
			}
		}
		total.back++
		if m.Held != "" {
			total.held++
		}
	}
}

func readContent(s *Spool, m *Message) ([]byte, error) {
	r, err := s.Content(m)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}
