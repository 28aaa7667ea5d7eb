package handoff

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestBufferGivesBackWhatItGot(t *testing.T) {
	dir := newSpool(t)
	for _, size := range []int{0, 1, 16<<10 - 1, 16 << 10, maxMemory - 1, maxMemory, maxMemory + 1, maxMemory + 3*copySize + 7} {
		text := bytes.Repeat([]byte("postino"), size/7+1)[:size]
		b := NewBuffer(dir)
		if n, err := b.ReadFrom(iotest.HalfReader(bytes.NewReader(text))); n != int64(size) || err != nil {
			t.Fatalf("ReadFrom %d octets = %d, %v", size, n, err)
		}
		if b.Size() != int64(size) || (b.spilled > 0) != (size > maxMemory) || b.EightBit() {
			t.Errorf("%d octets: Size %d, of these %d in the file, eight bit %v", size, b.Size(), b.spilled, b.EightBit())
		}
		for range 2 { // once for the socket, once more for the drop file
			if got := contents(t, b, "lead"); got != "lead"+string(text) {
				t.Errorf("%d octets came back as %d others", size, len(got)-4)
			}
		}
		b.Close()
		if names := dropFiles(t, dir); len(names) != 0 {
			t.Errorf("%d octets: drop/ holds %q; want nothing", size, names)
		}
	}
}

// contents is what b.writeTo writes.
func contents(t *testing.T, b *Buffer, lead string) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := b.writeTo(int(f.Fd()), []byte(lead)); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

func TestNilBufferIsEmpty(t *testing.T) {
	var b *Buffer
	b.Close()
	if b.Size() != 0 || b.EightBit() || contents(t, b, "x") != "x" {
		t.Errorf("a nil Buffer is not empty")
	}
}

func TestEightBitIsSeenWhereverItIs(t *testing.T) {
	dir := newSpool(t)
	for _, at := range []int{0, 20 << 10, maxMemory - 1, maxMemory, maxMemory + 2*copySize - 1} {
		text := make([]byte, maxMemory+2*copySize)
		text[at] = 0x80
		b := NewBuffer(dir)
		if _, err := b.ReadFrom(bytes.NewReader(text)); err != nil || !b.EightBit() {
			t.Errorf("octet 0x80 at %d: EightBit %v, %v; want true", at, b.EightBit(), err)
		}
		b.Close()
	}
}

func TestEndlessInputEnds(t *testing.T) {
	b := NewBuffer(newSpool(t))
	defer b.Close()
	b.max = 2 * maxMemory // of zeros, in place of a gigabyte
	if n, err := b.ReadFrom(endless{}); !errors.Is(err, ErrTooLarge) || n > b.max+copySize {
		t.Errorf("ReadFrom endless input = %d, %v; want ErrTooLarge at %d", n, err, b.max)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

func TestReadErrorIsNotTheEnd(t *testing.T) {
	broken := errors.New("broken")
	for _, size := range []int{0, 10, maxMemory + 10} {
		b := NewBuffer(newSpool(t))
		in := io.MultiReader(strings.NewReader(strings.Repeat("x", size)), iotest.ErrReader(broken))
		if _, err := b.ReadFrom(in); !errors.Is(err, broken) {
			t.Errorf("error after %d octets: ReadFrom = %v; want it", size, err)
		}
		b.Close()
	}
}

func TestSpillWithoutAPlaceIsAFailure(t *testing.T) {
	b := NewBuffer("/nonexistent")
	var failure *Failure
	if _, err := b.ReadFrom(io.LimitReader(endless{}, maxMemory+1)); !errors.As(err, &failure) || !failure.Create {
		t.Errorf("ReadFrom = %v; want a failure to create", err)
	}
	b.Close()
}

func TestIDsSortByTimeAndDiffer(t *testing.T) {
	at := time.Now()
	seen := make(map[[16]byte]bool)
	for range 1000 {
		a, b := NewID(at), NewID(at.Add(time.Microsecond))
		if seen[a] || bytes.Compare(a[:8], b[:8]) >= 0 {
			t.Fatalf("NewID gives %x and then %x", a, b)
		}
		seen[a] = true
	}
}
