package spool

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"os"
)

// This file reads a bbolt file without bbolt: with pread, and trusting nothing.
// bbolt maps its file and believes it, so that a bad page panics and a short file
// or an unreadable sector kills the process. What is accepted here bbolt can open,
// and a file that bbolt cannot open is still readable page by page.

// The file's layout: bbolt's internal/common, format version 2. Integers are in
// the byte order of the machine, as bbolt writes them.
const (
	metaMagic   = 0xED0CDAED
	metaVersion = 2

	pageHeader   = 16 // page number, flags, count, overflow
	elementSize  = 16 // of a branch or a leaf
	bucketHeader = 16 // root page, sequence
	metaSum      = 56 // octets of a meta page's content that its checksum covers

	branchPage = 0x01
	leafPage   = 0x02
	metaPage   = 0x04
	freePage   = 0x10

	bucketElement = 0x01

	noFreelist = ^uint64(0)

	// maxDepth is more levels than a tree of 2^64 rows has.
	maxDepth = 64
	// minPageSize and maxPageSize are the page sizes that bbolt looks for.
	minPageSize = 1 << 10
	maxPageSize = 16 << 20
)

var native = binary.NativeEndian

// pageFile is a bbolt file that is read page by page.
type pageFile struct {
	r        io.ReaderAt
	size     int64 // octets
	pageSize int64
	meta     dbMeta
	whole    bool    // both meta pages are good, so that meta is the newest
	faults   []error // what is wrong with the meta pages and the size
}

// dbMeta is a meta page: where the tree of one transaction begins.
type dbMeta struct{ root, freelist, high, txid uint64 }

// readDB looks at the meta pages of a file. What is wrong with them is in faults;
// without a good one the root of meta is 0.
func readDB(f *os.File) (*pageFile, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", f.Name())
	}
	d := &pageFile{r: f, size: info.Size(), pageSize: int64(os.Getpagesize())}
	d.findPageSize()
	first, err0 := d.readMeta(0)
	second, err1 := d.readMeta(1)
	switch {
	case err0 != nil && err1 != nil:
		d.faults = append(d.faults, err0, err1)
		return d, nil
	case err0 != nil:
		d.meta = second
		d.faults = append(d.faults, err0)
	case err1 != nil:
		d.meta = first
		d.faults = append(d.faults, err1)
	default:
		d.whole = true
		if d.meta = first; second.txid > first.txid {
			d.meta = second
		}
		if max(first.txid, second.txid)-min(first.txid, second.txid) != 1 {
			d.whole = false
			d.faults = append(d.faults, fmt.Errorf("meta pages are of the transactions %d and %d, which do not follow each other", first.txid, second.txid))
		}
	}
	if need := d.meta.high; need > uint64(d.size/d.pageSize) {
		d.faults = append(d.faults, fmt.Errorf("%d octets, but %d pages of %d are in use: the file is cut short", d.size, need, d.pageSize))
	}
	return d, nil
}

// findPageSize takes the page size from the first good meta page.
func (d *pageFile) findPageSize() {
	for size := int64(0); size <= maxPageSize; size = max(minPageSize, size*2) {
		b := make([]byte, pageHeader+metaSum+8)
		if _, err := d.r.ReadAt(b, size); err != nil {
			return
		}
		m := b[pageHeader:]
		said := int64(native.Uint32(m[8:]))
		if metaIsGood(m) && (size == 0 || said == size) && said >= minPageSize && said <= maxPageSize && said&(said-1) == 0 {
			d.pageSize = said
			return
		}
	}
}

func metaIsGood(m []byte) bool {
	h := fnv.New64a()
	h.Write(m[:metaSum])
	return native.Uint32(m) == metaMagic && native.Uint32(m[4:]) == metaVersion && native.Uint64(m[metaSum:]) == h.Sum64()
}

func (d *pageFile) readMeta(slot uint64) (dbMeta, error) {
	b := make([]byte, pageHeader+metaSum+8)
	if _, err := d.r.ReadAt(b, int64(slot)*d.pageSize); err != nil {
		return dbMeta{}, fmt.Errorf("meta page %d: %w", slot, noEOF(err))
	}
	m := b[pageHeader:]
	meta := dbMeta{root: native.Uint64(m[16:]), freelist: native.Uint64(m[32:]), high: native.Uint64(m[40:]), txid: native.Uint64(m[48:])}
	switch {
	case !metaIsGood(m):
		return dbMeta{}, fmt.Errorf("meta page %d: its checksum does not match", slot)
	case native.Uint64(b) != slot || native.Uint16(b[8:]) != metaPage || meta.txid%2 != slot:
		return dbMeta{}, fmt.Errorf("meta page %d: another page is in its place", slot)
	case int64(native.Uint32(m[8:])) != d.pageSize:
		return dbMeta{}, fmt.Errorf("meta page %d: page size %d, not %d", slot, native.Uint32(m[8:]), d.pageSize)
	}
	return meta, nil
}

// noEOF: the end of a file is no clean end where something has to be.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// page is a branch or a leaf, its overflow included. All its elements are within
// data.
type page struct {
	id    uint64
	off   int64 // of data in the file
	leaf  bool
	count int
	span  uint64 // pages
	data  []byte
}

// page reads and checks page id. It does not read more than the elements of the
// page say that they need, whatever else is wrong.
func (d *pageFile) page(id uint64) (*page, error) {
	limit := uint64(d.size / d.pageSize)
	if id < 2 || id >= limit {
		return nil, fmt.Errorf("page %d is outside of the file", id)
	}
	p := &page{id: id, off: int64(id) * d.pageSize, data: make([]byte, d.pageSize)}
	if err := d.fill(p, 0, int(d.pageSize)); err != nil {
		return nil, err
	}
	if got := native.Uint64(p.data); got != id {
		return nil, fmt.Errorf("page %d: another page is in its place, or none", id)
	}
	overflow := uint64(native.Uint32(p.data[12:]))
	if overflow >= limit-id {
		return nil, fmt.Errorf("page %d: longer than the file", id)
	}
	p.span = overflow + 1
	room := int64(p.span) * d.pageSize
	table := int64(pageHeader) + elementSize*int64(native.Uint16(p.data[10:]))
	if table > room {
		return nil, fmt.Errorf("page %d: more elements than fit in", id)
	}
	if err := d.grow(p, table); err != nil {
		return nil, err
	}
	end, err := p.parse(room)
	if err != nil {
		return nil, err
	}
	if room-end > 2*d.pageSize {
		return nil, fmt.Errorf("page %d: longer than its elements", id)
	}
	return p, d.grow(p, end)
}

func (d *pageFile) fill(p *page, from, to int) error {
	if _, err := d.r.ReadAt(p.data[from:to], p.off+int64(from)); err != nil {
		return fmt.Errorf("page %d: %w", p.id, noEOF(err))
	}
	return nil
}

// grow reads on until there are size octets.
func (d *pageFile) grow(p *page, size int64) error {
	have := len(p.data)
	if size <= int64(have) {
		return nil
	}
	p.data = append(p.data, make([]byte, size-int64(have))...)
	return d.fill(p, have, len(p.data))
}

// parse reads the header and checks the bounds of the elements, which must be in
// data; room is how long the page is. It returns where its last element ends.
func (p *page) parse(room int64) (end int64, err error) {
	switch flags := native.Uint16(p.data[8:]); flags {
	case branchPage, leafPage:
		p.leaf = flags == leafPage
	default:
		return 0, fmt.Errorf("page %d: neither branch nor leaf: flags %#x", p.id, flags)
	}
	p.count = int(native.Uint16(p.data[10:]))
	if !p.leaf && p.count == 0 {
		return 0, fmt.Errorf("page %d: a branch without elements", p.id)
	}
	table := int64(pageHeader + elementSize*p.count)
	end = table
	for i := range p.count {
		e := p.element(i)
		pos, key, value := int64(native.Uint32(e)), int64(native.Uint32(e[4:])), int64(0)
		if p.leaf {
			pos, key, value = int64(native.Uint32(e[4:])), int64(native.Uint32(e[8:])), int64(native.Uint32(e[12:]))
		}
		start := int64(pageHeader+elementSize*i) + pos
		if start < table || key == 0 || start+key+value > room {
			return 0, fmt.Errorf("page %d: element %d is outside of the page", p.id, i)
		}
		end = max(end, start+key+value)
	}
	return end, nil
}

// freelist reads the list of free pages, which a spool has when something else than
// postino wrote to it last.
func (d *pageFile) freelist() ([]uint64, error) {
	id := d.meta.freelist
	if id == noFreelist {
		return nil, nil
	}
	if id < 2 || id >= d.meta.high {
		return nil, fmt.Errorf("page %d: no place for the list of free pages", id)
	}
	head := make([]byte, pageHeader+8)
	if _, err := d.r.ReadAt(head, int64(id)*d.pageSize); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, noEOF(err))
	}
	n, skip := uint64(native.Uint16(head[10:])), 0
	if n == 0xFFFF { // then the first entry is how many there are
		n, skip = native.Uint64(head[pageHeader:]), 8
	}
	room := (uint64(native.Uint32(head[12:])) + 1) * uint64(d.pageSize)
	if native.Uint64(head) != id || native.Uint16(head[8:]) != freePage || n > d.meta.high || pageHeader+uint64(skip)+8*n > room {
		return nil, fmt.Errorf("page %d: no list of free pages", id)
	}
	b := make([]byte, 8*n)
	if _, err := d.r.ReadAt(b, int64(id)*d.pageSize+pageHeader+int64(skip)); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, noEOF(err))
	}
	list := make([]uint64, n)
	for i := range list {
		list[i] = native.Uint64(b[8*i:])
		if list[i] < 2 || list[i] >= d.meta.high || i > 0 && list[i] <= list[i-1] {
			return nil, fmt.Errorf("page %d: a list of free pages that cannot be", id)
		}
	}
	return list, nil
}

func (p *page) element(i int) []byte { return p.data[pageHeader+elementSize*i:][:elementSize] }

// branch returns element i of a branch.
func (p *page) branch(i int) (key []byte, child uint64) {
	e := p.element(i)
	start := pageHeader + elementSize*i + int(native.Uint32(e))
	return p.data[start:][:native.Uint32(e[4:])], native.Uint64(e[8:])
}

// row is one element of a leaf.
type row struct {
	key, value []byte
	off        int64 // of the value in the file
	head       int64 // of its page in the file
	bucket     bool
}

// row returns element i of a leaf.
func (p *page) row(i int) row {
	e := p.element(i)
	start := pageHeader + elementSize*i + int(native.Uint32(e[4:]))
	size := int(native.Uint32(e[8:]))
	return row{
		key: p.data[start:][:size:size], value: p.data[start+size:][:native.Uint32(e[12:])],
		off: p.off + int64(start+size), head: p.off, bucket: native.Uint32(e)&bucketElement != 0,
	}
}

// ordered reports whether the keys rise and are within [lo, hi), as far as those
// are not nil.
func (p *page) ordered(lo, hi []byte) bool {
	before := lo
	for i := range p.count {
		var key []byte
		if p.leaf {
			key = p.row(i).key
		} else {
			key, _ = p.branch(i)
		}
		if c := bytes.Compare(key, before); before != nil && (c < 0 || c == 0 && i > 0) || hi != nil && bytes.Compare(key, hi) >= 0 {
			return false
		}
		before = key
	}
	return true
}

// strayRows yields the rows of page id, if it is a leaf, each for itself: what is
// wrong with one says nothing about the others, and they may end where the file is
// cut off.
func (d *pageFile) strayRows(id uint64) iter.Seq[row] {
	return func(yield func(row) bool) {
		p := &page{id: id, off: int64(id) * d.pageSize, leaf: true, data: make([]byte, pageHeader)}
		if d.fill(p, 0, pageHeader) != nil || native.Uint64(p.data) != id || native.Uint16(p.data[8:]) != leafPage {
			return
		}
		count := int64(native.Uint16(p.data[10:]))
		room := min((int64(native.Uint32(p.data[12:]))+1)*d.pageSize, d.size-p.off)
		table := int64(pageHeader) + elementSize*count
		if table > room || d.grow(p, table) != nil {
			return
		}
		left := room // rows do not overlap
		for i := range count {
			e := p.element(int(i))
			start := pageHeader + elementSize*i + int64(native.Uint32(e[4:]))
			key, value := int64(native.Uint32(e[8:])), int64(native.Uint32(e[12:]))
			if start < table || key == 0 || start+key+value > room || key+value > left {
				continue
			}
			left -= key + value
			b := make([]byte, key+value)
			if _, err := d.r.ReadAt(b, p.off+start); err != nil {
				continue
			}
			if !yield(row{
				key: b[:key:key], value: b[key:], off: p.off + start + key, head: p.off,
				bucket: native.Uint32(e)&bucketElement != 0,
			}) {
				return
			}
		}
	}
}

// inline returns the leaf that is the value of a small bucket.
func (r *row) inline() (*page, error) {
	if len(r.value) < bucketHeader+pageHeader {
		return nil, fmt.Errorf("bucket %q: too short", r.key)
	}
	p := &page{off: r.off + bucketHeader, data: r.value[bucketHeader:], span: 0}
	room := int64(len(p.data))
	if int64(pageHeader)+elementSize*int64(native.Uint16(p.data[10:])) > room {
		return nil, fmt.Errorf("bucket %q: more elements than fit in", r.key)
	}
	if _, err := p.parse(room); err != nil || !p.leaf {
		return nil, fmt.Errorf("bucket %q: damaged: %w", r.key, err)
	}
	return p, nil
}
