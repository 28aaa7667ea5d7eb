package disk

import (
	"errors"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
)

// Page is the unit in which kernels write files, Sector the one in which disks do,
// in octets.
const (
	Page   = 4096
	Sector = 512
)

// Content is what is in a file. The zero value is an empty file. A spool.db is
// mostly holes, so only pages that were written are there.
type Content struct {
	Size  int64            // in octets
	pages map[int64][]byte // by offset; each is Page octets and never changed
}

func (c Content) clone() Content { return Content{c.Size, maps.Clone(c.pages)} }

// write puts data at offset.
func (c *Content) write(offset int64, data []byte) {
	if c.pages == nil {
		c.pages = make(map[int64][]byte)
	}
	c.Size = max(c.Size, offset+int64(len(data)))
	for len(data) > 0 {
		start := offset / Page * Page
		page := make([]byte, Page)
		copy(page, c.pages[start])
		n := copy(page[offset-start:], data)
		c.pages[start] = page
		offset, data = offset+int64(n), data[n:]
	}
}

// truncate makes the content that many octets long.
func (c *Content) truncate(size int64) {
	for start, page := range c.pages {
		switch {
		case start >= size:
			delete(c.pages, start)
		case start+Page > size:
			page = slices.Clone(page)
			clear(page[size-start:])
			c.pages[start] = page
		}
	}
	c.Size = size
}

// Bytes is the content in one piece.
func (c Content) Bytes() []byte {
	all := make([]byte, c.Size)
	for start, page := range c.pages {
		copy(all[start:], page)
	}
	return all
}

// Create makes a file of that content, with holes where nothing was written.
func (c Content) Create(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	err = f.Truncate(c.Size)
	for start, page := range c.pages {
		if err == nil && start < c.Size {
			_, err = f.WriteAt(page[:min(Page, c.Size-start)], start)
		}
	}
	return errors.Join(err, f.Close())
}

func (c Content) hash(h *maphash.Hash) {
	maphash.WriteComparable(h, c.Size)
	for _, start := range slices.Sorted(maps.Keys(c.pages)) {
		maphash.WriteComparable(h, start)
		h.Write(c.pages[start])
	}
}

// Tear is how a power cut treats what was not synced.
type Tear struct {
	// Keep and Names are how likely a piece of content, and one more change of a
	// directory, is on the disk all the same: 0 nothing, 1 everything.
	Keep, Names float64
	// Unit is the size of a piece, Page or Sector.
	Unit int64
}

// cut is what may be in the file after a power cut: pieces of what was written
// without a sync, and one of the sizes that it had since.
func (f *file) cut(random *rand.Rand, t Tear) Content {
	if len(f.pending) == 0 {
		return f.content
	}
	c := f.content.clone()
	sizes := []int64{c.Size}
	for _, s := range f.pending {
		sizes = append(sizes, s.sizeAfter(sizes[len(sizes)-1]))
		if s.Kind == Truncate {
			if keep(random, t.Keep) {
				c.truncate(s.Size)
			}
			continue
		}
		for from := int64(0); from < int64(len(s.Data)); {
			// Pieces end where those of the file do.
			to := min(int64(len(s.Data)), (s.Offset+from)/t.Unit*t.Unit+t.Unit-s.Offset)
			if keep(random, t.Keep) {
				c.write(s.Offset+from, s.Data[from:to])
			}
			from = to
		}
	}
	size := sizes[len(sizes)-1]
	if !keep(random, t.Keep) {
		size = sizes[random.IntN(len(sizes))]
	}
	c.truncate(size)
	return c
}

// sizeAfter is the size that o makes of a file's size.
func (o *Op) sizeAfter(size int64) int64 {
	if o.Kind == Truncate {
		return o.Size
	}
	return max(size, o.Offset+int64(len(o.Data)))
}

func keep(random *rand.Rand, p float64) bool { return p >= 1 || p > 0 && random.Float64() < p }
