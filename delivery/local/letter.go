package local

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"postino/spool"
	"postino/spool/address"
)

// letter is a message for one recipient.
type letter struct {
	message *spool.Message
	to      address.Address
	open    func() (io.ReadCloser, error)
}

// write writes the message with LF as the line end, as mailboxes have it, and the two
// fields of final delivery first (RFC 5321 §4.4). With quote the lines that an mbox
// would take for the begin of a message get a ">" more.
func (l *letter) write(w io.Writer, quote bool) error {
	content, err := l.open()
	if err != nil {
		return err
	}
	defer content.Close()
	out := bufio.NewWriterSize(w, maxPiece)
	out.WriteString("Return-Path: " + reversePath(l.message) + "\nDelivered-To: " + l.to.String() + "\n")
	if err := copyLines(out, content, quote); err != nil {
		return err
	}
	return out.Flush() // which has the first error of all the writing
}

// maxPiece is how much of a line is looked at, or written, at a time, in octets.
const maxPiece = 64 << 10

// copyLines copies lines that end in CRLF as such that end in LF. The last has an end
// too. It returns what reading failed with.
func copyLines(w *bufio.Writer, r io.Reader, quote bool) error {
	in := bufio.NewReaderSize(r, maxPiece)
	begin, cr := true, false // a line begins; a CR was read and not written
	for {
		line, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && err != io.EOF {
			return err
		}
		if cr && (len(line) == 0 || line[0] != '\n') {
			w.WriteByte('\r')
		}
		line, ended := bytes.CutSuffix(line, []byte("\n"))
		line, cr = bytes.CutSuffix(line, []byte("\r"))
		if begin && quote && isFrom(line) {
			w.WriteByte('>')
		}
		w.Write(line)
		if ended {
			w.WriteByte('\n')
			cr = false
		}
		begin = ended || begin && len(line) == 0 && !cr
		if err == io.EOF {
			if cr {
				w.WriteByte('\r')
			}
			if !begin {
				w.WriteByte('\n')
			}
			return nil
		}
	}
}
