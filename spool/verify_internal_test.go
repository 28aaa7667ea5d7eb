package spool

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What verify accepts bbolt can open: in a goroutine of its own bbolt looks at the whole
// tree as well, and nobody can recover from its panic there. Each octet of the branches
// is damaged, and of the heads of all pages.
func TestWhatIsAcceptedBboltOpens(t *testing.T) {
	seed := uint64(setting(t, damageSeed, int(time.Now().UnixNano())))
	t.Logf("%s=%d", damageSeed, seed)
	random := rand.New(rand.NewPCG(seed, 0))
	sp := newSpecimen(t, random, setting(t, messagesVariable, 60))
	path := filepath.Join(t.TempDir(), dbFile)
	sp.lay(t, filepath.Dir(path), sp.db, sp.size)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := readDB(f)
	if err != nil {
		t.Fatal(err)
	}
	whole := walk{f: d, row: func(string, row) error { return nil }, gap: func(g gap) { t.Error(g.err) }}
	if err := whole.run(); err != nil {
		t.Fatal(err)
	}
	branches, accepted, refused := 0, 0, 0
	for id := uint64(2); id < d.meta.high; id++ {
		p, err := d.page(id)
		if err != nil || !whole.reached(id) {
			continue // free, or the middle of a long page
		}
		octets := int64(pageHeader)
		if !p.leaf {
			branches++
			if octets, err = p.parse(int64(len(p.data))); err != nil {
				t.Fatal(err)
			}
		}
		for i := range octets {
			at := p.off + i
			bad := []byte{p.data[i] ^ 1<<random.IntN(8)}
			if _, err := f.WriteAt(bad, at); err != nil {
				t.Fatal(err)
			}
			if verifyOnly(d) {
				accepted++
				db, err := openDB(path, false)
				if err != nil {
					t.Fatalf("page %d, octet %d: %#x for %#x is accepted: %v", id, i, bad[0], p.data[i], err)
				}
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
			} else {
				refused++
			}
			if _, err := f.WriteAt(p.data[i:i+1], at); err != nil {
				t.Fatal(err)
			}
		}
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now[:len(sp.db)], sp.db) {
		t.Fatalf("the file is not as it was: %v", err)
	}
	t.Logf("%d branches; %d damages accepted, %d refused", branches, accepted, refused)
	if branches == 0 || refused == 0 {
		t.Error("this test tests nothing")
	}
}

// verifyOnly is verify of a file whose meta pages are good.
func verifyOnly(d *pageFile) bool {
	good := true
	w := walk{f: d, row: func(string, row) error { return nil }, gap: func(gap) { good = false }}
	return w.run() == nil && good && w.checkFree() == nil
}
