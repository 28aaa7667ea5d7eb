package disk_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"postino/cmd/durability/disk"
)

// after replays ops.
func after(t *testing.T, ops ...disk.Op) *disk.Disk {
	t.Helper()
	d := disk.New(rand.New(rand.NewPCG(1, 2)))
	for i := range ops {
		if err := d.Do(&ops[i]); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// states are many that a power cut may leave, each as text.
func states(d *disk.Disk) map[string]bool {
	found := make(map[string]bool)
	random := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		image := d.Cut(random, disk.Tear{Keep: random.Float64(), Names: random.Float64(), Unit: disk.Sector})
		text := ""
		for _, name := range slices.Sorted(maps.Keys(image)) {
			content := image[name].Bytes()
			text += fmt.Sprintf("%s:%d", name, len(content))
			for at := 0; at < len(content); at += disk.Sector {
				text += string(content[at])
			}
			text += " "
		}
		found[text] = true
	}
	return found
}

func data(sectors ...byte) []byte {
	var b []byte
	for _, s := range sectors {
		b = append(b, bytes.Repeat([]byte{s}, disk.Sector)...)
	}
	return b
}

// What may be on the disk after a power cut is all of what may be, and no more.
func TestPowerCutLeavesWhatWasSyncedAndAnyPartOfTheRest(t *testing.T) {
	create := []disk.Op{
		{Kind: disk.Make, File: 2},
		{Kind: disk.Link, Dir: disk.Root, Name: "a", File: 2},
	}
	synced := append(slices.Clone(create), disk.Op{Kind: disk.Write, File: 2, Data: data('x', 'y')},
		disk.Op{Kind: disk.Sync, File: 2}, disk.Op{Kind: disk.Sync, File: disk.Root})
	for name, tt := range map[string]struct {
		ops  []disk.Op
		want []string
	}{
		"nothing":            {nil, []string{""}},
		"a name":             {create, []string{"", "a:0 "}},
		"a file's sync":      {append(slices.Clone(create), disk.Op{Kind: disk.Sync, File: 2}), []string{"", "a:0 "}},
		"a directory's sync": {append(slices.Clone(create), disk.Op{Kind: disk.Sync, File: disk.Root}), []string{"a:0 "}},
		"a nameless file":    {append(create[:1:1], disk.Op{Kind: disk.Sync, File: 2}), []string{""}},
		"all of it":          {synced, []string{"a:1024xy "}},
		"overwritten": {append(slices.Clone(synced), disk.Op{Kind: disk.Write, File: 2, Data: data('p', 'q')}),
			[]string{"a:1024xy ", "a:1024py ", "a:1024xq ", "a:1024pq "}},
		"twice": {append(slices.Clone(synced), disk.Op{Kind: disk.Write, File: 2, Data: data('p')},
			disk.Op{Kind: disk.Write, File: 2, Data: data('q')}),
			[]string{"a:1024xy ", "a:1024py ", "a:1024qy "}},
		"longer": {append(slices.Clone(synced), disk.Op{Kind: disk.Write, File: 2, Offset: 1024, Data: data('z')}),
			[]string{"a:1024xy ", "a:1536xyz ", "a:1536xy\x00 "}},
		"renamed": {append(slices.Clone(synced), disk.Op{Kind: disk.Rename, Dir: disk.Root, Name: "a", ToDir: disk.Root, ToName: "b"}),
			[]string{"a:1024xy ", "b:1024xy "}},
		"removed": {append(slices.Clone(synced), disk.Op{Kind: disk.Unlink, Dir: disk.Root, Name: "a"}),
			[]string{"a:1024xy ", ""}},
		"in order": {append(slices.Clone(synced), disk.Op{Kind: disk.Unlink, Dir: disk.Root, Name: "a"},
			disk.Op{Kind: disk.Link, Dir: disk.Root, Name: "c", File: 2}),
			[]string{"a:1024xy ", "", "c:1024xy "}},
		"failed, then synced": {append(slices.Clone(synced), disk.Op{Kind: disk.Write, File: 2, Data: data('p')},
			disk.Op{Kind: disk.Fail, File: 2, Forgotten: true}, disk.Op{Kind: disk.Sync, File: 2}),
			[]string{"a:1024xy "}},
	} {
		t.Run(name, func(t *testing.T) {
			got := slices.Sorted(maps.Keys(states(after(t, tt.ops...))))
			slices.Sort(tt.want)
			if !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// A directory that is not there takes what is in it along, each directory has an
// order of its own, and a rename between two happens in both or in neither.
func TestDirectoriesAreAsFarAsEachGot(t *testing.T) {
	two := []disk.Op{
		{Kind: disk.Make, File: 2, Directory: true},
		{Kind: disk.Link, Dir: disk.Root, Name: "d", File: 2},
		{Kind: disk.Make, File: 3},
		{Kind: disk.Link, Dir: 2, Name: "a", File: 3},
	}
	sync := func(file uint64) disk.Op { return disk.Op{Kind: disk.Sync, File: file} }
	for name, tt := range map[string]struct {
		ops  []disk.Op
		want []string
	}{
		"nothing synced":  {two, []string{"", "d/:0 ", "d/:0 d/a:0 "}},
		"the lower one":   {append(slices.Clone(two), sync(2)), []string{"", "d/:0 d/a:0 "}},
		"the upper one":   {append(slices.Clone(two), sync(disk.Root)), []string{"d/:0 ", "d/:0 d/a:0 "}},
		"a rename across": {append(slices.Clone(two), sync(disk.Root), sync(2), disk.Op{Kind: disk.Rename, Dir: 2, Name: "a", ToDir: disk.Root, ToName: "b"}), []string{"d/:0 d/a:0 ", "b:0 d/:0 "}},
		"and one synced":  {append(slices.Clone(two), sync(disk.Root), sync(2), disk.Op{Kind: disk.Rename, Dir: 2, Name: "a", ToDir: disk.Root, ToName: "b"}, sync(2)), []string{"b:0 d/:0 "}},
	} {
		t.Run(name, func(t *testing.T) {
			got := slices.Sorted(maps.Keys(states(after(t, tt.ops...))))
			slices.Sort(tt.want)
			if !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// A log is read as it was written, and makes sense or is refused.
func TestLogIsReadAsItWasWritten(t *testing.T) {
	ops := []disk.Op{
		{Kind: disk.Make, File: 2},
		{Kind: disk.Write, File: 2, Offset: 3, Data: []byte("abc")},
		{Kind: disk.Mark, Name: "here"},
	}
	var text bytes.Buffer
	log := disk.NewLog(&text)
	for i := range ops {
		if err := log.Add(&ops[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Flush(); err != nil {
		t.Fatal(err)
	}
	got, err := disk.ReadLog(bytes.NewReader(text.Bytes()))
	if err != nil || fmt.Sprint(got) != fmt.Sprint(ops) {
		t.Errorf("%v, %v; want %v", got, err, ops)
	}
	if _, err := disk.ReadLog(bytes.NewReader(text.Bytes()[:text.Len()-1])); err == nil {
		t.Error("a log that was cut is no error")
	}
	if err := disk.New(nil).Do(&ops[1]); err == nil {
		t.Error("a write to a file that is not there is no error")
	}
}
