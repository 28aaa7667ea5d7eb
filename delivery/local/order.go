package local

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"postino/spool"
	"postino/spool/address"
)

// order is what a runner asks its helper for: to put one message into the mailboxes of
// these recipients. On the wire it is a line of JSON; the content follows in pieces.
type order struct {
	ID         spool.ID          `json:"id,omitzero"`
	Arrived    time.Time         `json:"arrived"`
	Sender     address.Address   `json:"sender"`
	Recipients []address.Address `json:"recipients"`
	// Targets are those of the recipients, and As is who is to run and write them; none
	// where they are mailboxes.
	Targets []string `json:"targets,omitempty"`
	As      string   `json:"as,omitempty"`
	// Forward is a user whose file is asked for, and nothing else.
	Forward string `json:"forward,omitempty"`
}

const (
	// maxOrder is the longest line of JSON, in octets: 10,000 recipients of the longest
	// kind, which is all that a held message may have, and as many replies to them.
	maxOrder = 16 << 20
	// maxContent is the largest content, in octets: what sendmail takes from a caller,
	// and what is added to it here.
	maxContent = 1<<30 + 1<<20
)

// orderOf is the order for a batch.
func orderOf(b *spool.Batch) order {
	o := order{ID: b.Message.ID, Arrived: b.Message.Arrived, Sender: b.Message.Sender}
	for _, n := range b.Recipients {
		rcpt := &b.Message.Recipients[n]
		o.Recipients = append(o.Recipients, rcpt.Address)
		if rcpt.Target != "" {
			o.Targets = append(o.Targets, rcpt.Target)
		}
	}
	return o
}

// batch is the batch that o was made of, as far as a Store looks at it.
func (o *order) batch(open func() (io.ReadCloser, error)) *spool.Batch {
	b := &spool.Batch{Message: &spool.Message{ID: o.ID, Arrived: o.Arrived, Sender: o.Sender}, Open: open}
	for i, a := range o.Recipients {
		b.Message.Recipients = append(b.Message.Recipients, spool.Recipient{Address: a, Status: spool.Queued})
		if i < len(o.Targets) {
			b.Message.Recipients[i].Target = o.Targets[i]
		}
		b.Recipients = append(b.Recipients, i)
	}
	return b
}

// writeLine writes v as a line of JSON.
func writeLine(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// readLine reads a line of JSON of at most maxOrder octets into v.
func readLine(in *bufio.Reader, v any) error {
	var line []byte
	for {
		piece, err := in.ReadSlice('\n')
		line = append(line, piece...)
		switch {
		case len(line) > maxOrder:
			return fmt.Errorf("a line of more than %d octets", maxOrder)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
		return json.Unmarshal(line, v)
	}
}

// writeContent writes all that r has in pieces: the length of each in four octets, the
// octets, and a length of zero in the end. Where reading fails that end is missing, so
// that nobody takes a part for the whole.
func writeContent(w io.Writer, r io.Reader) error {
	out := bufio.NewWriterSize(pieces{w}, maxPiece)
	if _, err := io.Copy(out, r); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	_, err := w.Write(make([]byte, 4))
	return err
}

// pieces writes each piece of content with its length.
type pieces struct{ w io.Writer }

func (p pieces) Write(b []byte) (int, error) {
	for piece := range slices.Chunk(b, maxPiece) {
		if _, err := p.w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(piece))), piece...)); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// readContent copies what writeContent wrote. It fails where the end is missing, and
// with more than maxContent octets.
func readContent(w io.Writer, r io.Reader) error {
	for total, head := int64(0), make([]byte, 4); ; {
		if _, err := io.ReadFull(r, head); err != nil {
			return noEnd(err)
		}
		n := int64(binary.BigEndian.Uint32(head))
		if n == 0 {
			return nil
		}
		if total += n; n > maxPiece || total > maxContent {
			return fmt.Errorf("a piece of %d octets, %d in all", n, total)
		}
		if _, err := io.CopyN(w, r, n); err != nil {
			return noEnd(err)
		}
	}
}

func noEnd(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
