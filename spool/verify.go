package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxFaults is how many faults of a file are told; one is enough to distrust it.
const maxFaults = 10

// gap is a part of a bucket's keys that the tree does not lead to, because a page
// on the way is damaged: from lo, before hi, both nil where they are unknown.
type gap struct {
	bucket string // "" is the list of buckets
	lo, hi []byte
	err    error
}

// walk goes through the tree of a file. Each page is read once, whatever the
// damage, so that its time is bounded by the size of the file.
type walk struct {
	f    *pageFile
	seen []uint64 // a bit for each page
	row  func(bucket string, r row) error
	gap  func(gap)
}

// run calls row for each row of each of our buckets, and gap for what cannot be
// reached. The error is one of row.
func (w *walk) run() error {
	w.seen = make([]uint64, w.f.size/w.f.pageSize/64+1)
	if w.f.meta.root == 0 {
		w.gap(gap{err: errors.Join(w.f.faults...)})
		return nil
	}
	missing := bucketNames()
	err := w.tree("", w.f.meta.root, bounds{}, 0, func(r row) error {
		name := string(r.key)
		i := slices.Index(missing, name)
		if i < 0 || !r.bucket {
			w.gap(gap{bucket: "", lo: r.key, hi: after(r.key), err: fmt.Errorf("%q is no bucket of a spool", r.key)})
			return nil
		}
		missing = slices.Delete(missing, i, i+1)
		return w.bucket(name, r)
	})
	for _, name := range bucketNames()[:oldBuckets] {
		if slices.Contains(missing, name) {
			w.gap(gap{bucket: name, err: fmt.Errorf("the bucket %s is missing", name)})
		}
	}
	return err
}

// checkFree reports pages that are said to be free and are not: bbolt would write
// to them. It is called after run.
func (w *walk) checkFree() error {
	free, err := w.f.freelist()
	for _, id := range free {
		if w.reached(id) {
			return fmt.Errorf("page %d is in use and in the list of free pages", id)
		}
	}
	return err
}

// bucket walks one bucket, whose entry in the list of buckets is r.
func (w *walk) bucket(name string, r row) error {
	each := func(r row) error {
		if r.bucket {
			w.gap(gap{name, r.key, after(r.key), fmt.Errorf("%s: a bucket in the place of a row", name)})
			return nil
		}
		if err := checkRow(name, r); err != nil {
			w.gap(gap{name, r.key, after(r.key), err})
			return nil
		}
		return w.row(name, r)
	}
	if len(r.value) < bucketHeader {
		w.gap(gap{bucket: name, err: fmt.Errorf("bucket %s: too short", name)})
		return nil
	}
	if root := native.Uint64(r.value); root != 0 {
		return w.tree(name, root, bounds{}, 0, each)
	}
	p, err := r.inline()
	if err == nil && !p.ordered(nil, nil) {
		err = fmt.Errorf("bucket %s: its keys are out of order", name)
	}
	if err != nil {
		w.gap(gap{bucket: name, err: err})
		return nil
	}
	return eachRow(p, each)
}

func eachRow(p *page, each func(row) error) error {
	for i := range p.count {
		if err := each(p.row(i)); err != nil {
			return err
		}
	}
	return nil
}

// bounds are what the keys below a page keep to: at least from, before hi, both nil where
// nothing is known. Only where from is damaged can there be some before it, but not
// before lo.
type bounds struct{ lo, from, hi []byte }

// tree walks the part of a tree below page id.
func (w *walk) tree(bucket string, id uint64, keys bounds, depth int, each func(row) error) error {
	p, err := w.claim(id, depth)
	if err == nil && !p.ordered(keys.from, keys.hi) {
		err = fmt.Errorf("page %d: its keys are out of order", id)
		w.mark(p, false)
	}
	if err != nil {
		w.gap(gap{bucket, keys.lo, keys.hi, err})
		return nil
	}
	if p.leaf {
		return eachRow(p, each)
	}
	for i := range p.count {
		key, child := p.branch(i)
		below := bounds{lo: key, from: key, hi: keys.hi}
		if i == 0 {
			below.lo = keys.lo // what is before the first key is looked for here as well
		}
		if i+1 < p.count {
			below.hi, _ = p.branch(i + 1)
		}
		if err := w.tree(bucket, child, below, depth+1, each); err != nil {
			return err
		}
	}
	return nil
}

// claim reads a page that nothing else in the tree may lead to.
func (w *walk) claim(id uint64, depth int) (*page, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("page %d: more than %d levels deep", id, maxDepth)
	}
	p, err := w.f.page(id)
	if err != nil {
		return nil, err
	}
	if id+p.span > w.f.meta.high {
		return nil, fmt.Errorf("page %d: behind the last one in use", id)
	}
	for n := id; n < id+p.span; n++ {
		if w.reached(n) {
			return nil, fmt.Errorf("page %d is in two places", n)
		}
	}
	w.mark(p, true)
	return p, nil
}

func (w *walk) reached(id uint64) bool { return w.seen[id/64]&(1<<(id%64)) != 0 }

func (w *walk) mark(p *page, seen bool) {
	for n := p.id; n < p.id+p.span; n++ {
		if w.seen[n/64] &^= 1 << (n % 64); seen {
			w.seen[n/64] |= 1 << (n % 64)
		}
	}
}

// after is the first key behind key.
func after(key []byte) []byte { return append(slices.Clone(key), 0) }

// checkRow verifies the checksum of a record, and that it is the one of its key.
func checkRow(bucket string, r row) error {
	var what error
	switch bucket {
	case string(bucketMessage), string(bucketHistory):
		if what = checkSum(r.value); what == nil && !names(r.value, keyID(r.key)) {
			what = errors.New("damaged record: it is of another message")
		}
	case string(bucketAttempt):
		what = checkSum(r.value)
	case string(bucketMeta):
		if n, err := strconv.Atoi(string(r.value)); err != nil || n < 1 {
			return fmt.Errorf("spool format %q, which no postino ever wrote", r.value)
		}
	}
	if what != nil {
		return fmt.Errorf("%s %s: %w", bucket, keyID(r.key), what)
	}
	return nil
}

// verify reads the whole file that f is open on and reports what is wrong with
// it: nothing, if bbolt can use it and each record is as it was written.
func verify(f *os.File) error {
	d, err := readDB(f)
	if err != nil {
		return err
	}
	readAhead(f, d.size)
	faults := slices.Clone(d.faults)
	w := walk{
		f:   d,
		row: func(string, row) error { return nil },
		gap: func(g gap) {
			if len(faults) < maxFaults {
				faults = append(faults, g.err)
			}
		},
	}
	if len(faults) == 0 {
		if err := w.run(); err != nil {
			return err
		}
		if err := w.checkFree(); err != nil {
			faults = append(faults, err)
		}
	}
	if len(faults) > 0 {
		return fmt.Errorf("%w: %w", ErrDamagedFile, errors.Join(faults...))
	}
	return nil
}

// readAhead brings a file into memory in the order of its octets. The tree's own
// order, page by page, takes ten times as long on a cold disk (1.6 GB: 28 s).
func readAhead(f *os.File, size int64) {
	_ = unix.Fadvise(int(f.Fd()), 0, size, unix.FADV_SEQUENTIAL)
	buf := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(buf)) {
		if _, err := f.ReadAt(buf, off); err != nil && err != io.EOF {
			continue // whoever needs that page finds out
		}
	}
	_ = unix.Fadvise(int(f.Fd()), 0, size, unix.FADV_NORMAL)
}
