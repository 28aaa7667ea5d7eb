package disk

import (
	"fmt"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Disk is what the ops so far have made of an empty disk. The zero value is not
// usable, New makes one. It is for one goroutine.
type Disk struct {
	files map[uint64]*file
	count int // ops done
	// random decides what of the content is on the disk when a sync fails.
	random *rand.Rand
}

// file is a file or a directory.
type file struct {
	directory bool
	// content is what a file has for certain, names what a directory has.
	content Content
	names   map[string]uint64
	// pending is what was done since the last sync.
	pending []*step
}

// step is an op that may be on the disk or not.
type step struct {
	*Op
	number int
}

// New returns an empty disk. A sync that fails leaves on it what random decides.
func New(random *rand.Rand) *Disk {
	return &Disk{files: map[uint64]*file{Root: newFile(true)}, random: random}
}

func newFile(directory bool) *file {
	f := &file{directory: directory}
	if directory {
		f.names = make(map[string]uint64)
	}
	return f
}

// Do does o, which must not change afterwards. The error is that o makes no sense
// after the ones before.
func (d *Disk) Do(o *Op) error {
	d.count++
	s := &step{o, d.count}
	wait := func(of ...uint64) error {
		for i, number := range of {
			f := d.files[number]
			if f == nil {
				return fmt.Errorf("op %d, %v: there is no %d", d.count, o, number)
			}
			if i == 0 || number != of[0] {
				f.pending = append(f.pending, s)
			}
		}
		return nil
	}
	switch o.Kind {
	case Make:
		d.files[o.File] = newFile(o.Directory)
	case Link, Unlink:
		return wait(o.Dir)
	case Rename:
		return wait(o.Dir, o.ToDir)
	case Write, Truncate:
		return wait(o.File)
	case Sync:
		return d.sync(o.File)
	case Fail:
		return d.fail(o.File, o.Forgotten)
	}
	return nil
}

func (d *Disk) sync(number uint64) error {
	f := d.files[number]
	switch {
	case f == nil:
		return fmt.Errorf("op %d: sync of %d, which is not there", d.count, number)
	case f.directory:
		d.settle(f, d.count)
	default:
		f.content = f.cut(d.random, everything())
		f.pending = nil
	}
	return nil
}

// settle puts the changes of a directory on the disk, up to a number. One that
// changes another directory as well takes what was done there before along.
func (d *Disk) settle(f *file, upTo int) {
	for len(f.pending) > 0 && f.pending[0].number <= upTo {
		s := f.pending[0]
		f.pending = f.pending[1:]
		if s.Kind == Rename && s.Dir != s.ToDir {
			for _, dir := range []uint64{s.Dir, s.ToDir} {
				d.settle(d.files[dir], s.number-1)
				other := d.files[dir]
				other.pending = slices.DeleteFunc(slices.Clone(other.pending), func(p *step) bool { return p == s })
			}
		}
		d.move(s, func(dir uint64) map[string]uint64 { return d.files[dir].names })
	}
}

// move does s to the names of its directories.
func (d *Disk) move(s *step, names func(dir uint64) map[string]uint64) {
	switch s.Kind {
	case Link:
		names(s.Dir)[s.Name] = s.File
	case Unlink:
		delete(names(s.Dir), s.Name)
	case Rename:
		from, to := names(s.Dir), names(s.ToDir)
		if number, there := from[s.Name]; there {
			delete(from, s.Name)
			to[s.ToName] = number
		}
	}
}

// fail gives up what of a file was not synced. Some of it may be on the disk, but
// not if reads show none of it. Names are in a journal: they stay what they are,
// not certain.
func (d *Disk) fail(number uint64, forgotten bool) error {
	f := d.files[number]
	switch {
	case f == nil:
		return fmt.Errorf("op %d: failed sync of %d, which is not there", d.count, number)
	case f.directory:
	case forgotten:
		size := f.cut(d.random, everything()).Size // is kept elsewhere
		f.content = f.content.clone()
		f.content.truncate(size)
		f.pending = nil
	default:
		f.content = f.cut(d.random, Tear{Keep: d.random.Float64(), Unit: Page})
		f.pending = nil
	}
	return nil
}

// everything is what a power cut leaves that takes nothing: what programs see.
func everything() Tear { return Tear{Keep: 1, Names: 1, Unit: Page} }

// Image is what is on a disk: content by path, from the root. Directories have a
// path that ends in a slash and no content.
type Image map[string]Content

// Cut cuts the power and returns what is on the disk then. The content is not to
// be changed. d stays as it is.
func (d *Disk) Cut(random *rand.Rand, t Tear) Image {
	names := d.cutNames(random, t.Names)
	image := make(Image)
	d.walk(names, Root, "", func(at string, f *file) {
		if f.directory {
			image[at+"/"] = Content{}
		} else {
			image[at] = f.cut(random, t)
		}
	})
	return image
}

func (d *Disk) walk(names map[uint64]map[string]uint64, dir uint64, at string, see func(string, *file)) {
	for _, name := range slices.Sorted(maps.Keys(names[dir])) {
		number := names[dir][name]
		f := d.files[number]
		see(path.Join(at, name), f)
		if f.directory {
			d.walk(names, number, path.Join(at, name), see)
		}
	}
}

// cutNames chooses for each directory how far its changes got, and returns the
// names in each.
func (d *Disk) cutNames(random *rand.Rand, p float64) map[uint64]map[string]uint64 {
	names := make(map[uint64]map[string]uint64)
	reached := make(map[uint64]int) // by directory, the number of the last step on the disk
	var steps []*step
	for _, dir := range slices.Sorted(maps.Keys(d.files)) {
		f := d.files[dir]
		if !f.directory {
			continue
		}
		names[dir] = maps.Clone(f.names)
		for _, s := range f.pending {
			if !keep(random, p) {
				break
			}
			reached[dir] = s.number
			steps = append(steps, s)
		}
	}
	slices.SortFunc(steps, func(a, b *step) int { return a.number - b.number })
	for _, s := range slices.Compact(steps) {
		// A rename between directories is there in both or in neither.
		if s.Kind == Rename && (reached[s.Dir] < s.number || reached[s.ToDir] < s.number) {
			continue
		}
		d.move(s, func(dir uint64) map[string]uint64 { return names[dir] })
	}
	return names
}

// Sum is a number that is the same for two images only if they are, as far as one
// program run is concerned.
func (i Image) Sum(seed maphash.Seed) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, at := range slices.Sorted(maps.Keys(i)) {
		h.WriteString(at)
		h.WriteByte(0)
		i[at].hash(&h)
	}
	return h.Sum64()
}

// Create lays the image out in the directory dir, which must be empty.
func (i Image) Create(dir string) error {
	for _, at := range slices.Sorted(maps.Keys(i)) { // a directory comes before what is in it
		name := filepath.Join(dir, at)
		if strings.HasSuffix(at, "/") {
			if err := os.Mkdir(name, 0o755); err != nil {
				return err
			}
		} else if err := i[at].Create(name); err != nil {
			return err
		}
	}
	return nil
}
