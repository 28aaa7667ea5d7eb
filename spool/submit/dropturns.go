package submit

import "slices"

// dropTurns are the drop files that wait to be taken. Their owners take turns, so
// that whoever leaves many does not delay who leaves one; those of one owner are
// taken in the order of their names, which begin with the time.
type dropTurns struct {
	owners map[uint32]*dropOwner
	turns  []*dropOwner // those with files that wait
	at     int          // whose turn it is
	known  map[string]bool
	length int // files that wait
}

type dropOwner struct {
	uid   uint32
	names []string
	taken int // files being taken
}

// dropFile is a drop file as its directory shows it.
type dropFile struct {
	name string
	uid  uint32
}

func newDropTurns() *dropTurns {
	return &dropTurns{owners: make(map[uint32]*dropOwner), known: make(map[string]bool)}
}

// add has a file wait, unless it has before.
func (t *dropTurns) add(f dropFile) {
	if t.known[f.name] {
		return
	}
	t.known[f.name] = true
	o := t.owners[f.uid]
	if o == nil {
		o = &dropOwner{uid: f.uid}
		t.owners[f.uid] = o
	}
	if len(o.names) == 0 {
		t.turns = append(t.turns, o)
	}
	o.names = append(o.names, f.name)
	t.length++
}

// sort puts the files of each owner in order.
func (t *dropTurns) sort() {
	for _, o := range t.turns {
		slices.Sort(o.names)
	}
}

// next returns the file whose turn it is, of an owner who has fewer than dropPerOwner
// being taken.
func (t *dropTurns) next() (f dropFile, ok bool) {
	for i := range t.turns {
		at := (t.at + i) % len(t.turns)
		o := t.turns[at]
		if o.taken >= dropPerOwner {
			continue
		}
		f = dropFile{name: o.names[0], uid: o.uid}
		o.names = o.names[1:]
		o.taken++
		t.length--
		if t.at = at + 1; len(o.names) == 0 {
			t.turns = slices.Delete(t.turns, at, at+1)
			t.at = at
		}
		return f, true
	}
	return f, false
}

// done notes that a file is not being taken any more.
func (t *dropTurns) done(f dropFile) { t.owners[f.uid].taken-- }
