package local

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"postino/spool"
)

// What comes out is what went in, and a part of it is never taken for the whole:
// neither where the connection ended nor where the content could not be read.
func TestOrderIsWholeOrNothing(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, maxPiece - 1, maxPiece, maxPiece + 1, 3*maxPiece + 7} {
		content := bytes.Repeat([]byte("x\r\n"), size/3+1)[:size]
		var wire bytes.Buffer
		want := orderOf(batch(t, 5, "ann@host.test", "bob"))
		if err := errors.Join(writeLine(&wire, want), writeContent(&wire, bytes.NewReader(content))); err != nil {
			t.Fatal(err)
		}
		whole := wire.Bytes()
		read := func(b []byte) (o order, got bytes.Buffer, err error) {
			in := bufio.NewReader(bytes.NewReader(b))
			if err = readLine(in, &o); err == nil {
				err = readContent(&got, in)
			}
			return o, got, err
		}
		o, got, err := read(whole)
		if err != nil || o.ID != want.ID || !o.Arrived.Equal(want.Arrived) || o.Sender != want.Sender || !slices.Equal(o.Recipients, want.Recipients) || !bytes.Equal(got.Bytes(), content) {
			t.Errorf("%d octets: %+v, %d octets, %v", size, o, got.Len(), err)
		}
		for _, n := range []int{0, 1, 20, len(whole) / 2, len(whole) - 5, len(whole) - 4, len(whole) - 1} {
			if _, _, err := read(whole[:min(n, len(whole)-1)]); err == nil {
				t.Errorf("%d of %d octets are taken for a whole", n, len(whole))
			}
		}
	}
	var wire bytes.Buffer
	for _, damage := range []error{errors.New("checksum"), io.ErrUnexpectedEOF} {
		broken := io.MultiReader(strings.NewReader("Subject: half\r\n"), iotest.ErrReader(damage))
		if err := writeContent(&wire, broken); !errors.Is(err, damage) {
			t.Errorf("%v: %v", damage, err)
		}
		if err := readContent(io.Discard, &wire); err == nil {
			t.Errorf("%v: taken for a whole", damage)
		}
	}
}

// A process that belongs to a user says no more than a mailbox may.
func TestRepliesOfOthersAreChecked(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ said, want spool.Reply }{
		{reply(nil), reply(nil)},
		{spool.Reply{Code: 250, Status: "2.9.9", Text: "x"}, spool.Reply{Status: "4.2.0", Text: "x", Command: "local"}},
		{spool.Reply{Code: 550, Status: "5.1.1", Text: "a\r\nb", Host: "h"}, spool.Reply{Status: "5.1.1", Text: spool.CleanText("a\r\nb"), Command: "local"}},
		{spool.Reply{Status: "4.2.2", Text: "full", TLS: "TLS1.3", Maybe: true}, spool.Reply{Status: "4.2.2", Text: "full", Command: "local"}},
		{spool.Reply{Status: "9", Text: "?"}, spool.Reply{Status: "4.2.0", Text: "?", Command: "local"}},
	} {
		if got := checked(tt.said); got != tt.want {
			t.Errorf("%+v: %+v, want %+v", tt.said, got, tt.want)
		}
	}
}
