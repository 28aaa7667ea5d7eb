// Package disk is a disk whose power can be cut. A recorder logs what programs do
// to a file system, one Op each; a Disk replays the log and tells, at each place
// in it, what may be found there when the power fails just then.
//
// It promises as little as POSIX does. Content is there when its file was synced
// after it was written; a name is there when its directory was synced after it
// was made, and syncing the file is not enough. Whatever else was done may be
// there, in part or not at all: content in any pieces, and names of one directory
// as far as any place in their order, each directory for itself.
package disk

import (
	"bufio"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
)

// Kind is what an Op does.
type Kind uint8

// The kinds of Op, with the fields that each uses.
const (
	// Make: File comes into being, without a name; Directory says of which kind.
	Make Kind = iota + 1
	// Link: File gets the name Name in Dir, in the place of what had it.
	Link
	// Unlink: the name Name in Dir is gone.
	Unlink
	// Rename: what is Name in Dir becomes ToName in ToDir, in the place of what had
	// that name.
	Rename
	// Write: Data at Offset of File.
	Write
	// Truncate: File is Size octets long.
	Truncate
	// Sync: all of File, a directory or not, is on the disk.
	Sync
	// Fail: a sync of File failed. What was not synced is never written, unless it is
	// written again. Forgotten: reads show it no more.
	Fail
	// Mark: a place in the log that Name describes.
	Mark
)

// Root is the File of the directory that all others are in.
const Root = 1

// Op is one thing done to a file system. File and Dir are numbers that are used
// once.
type Op struct {
	Kind                 Kind
	File, Dir, ToDir     uint64
	Name, ToName         string
	Offset, Size         int64
	Data                 []byte
	Directory, Forgotten bool
}

func (o *Op) String() string {
	kind := [...]string{"?", "make", "link", "unlink", "rename", "write", "truncate", "sync", "fail", "mark"}[o.Kind]
	switch o.Kind {
	case Link, Unlink:
		return fmt.Sprintf("%s %d/%s = %d", kind, o.Dir, o.Name, o.File)
	case Rename:
		return fmt.Sprintf("%s %d/%s %d/%s", kind, o.Dir, o.Name, o.ToDir, o.ToName)
	case Write:
		return fmt.Sprintf("%s %d: %d octets at %d", kind, o.File, len(o.Data), o.Offset)
	case Truncate:
		return fmt.Sprintf("%s %d to %d", kind, o.File, o.Size)
	case Mark:
		return kind + " " + o.Name
	}
	return fmt.Sprintf("%s %d", kind, o.File)
}

// Log writes a log. It is for one goroutine.
type Log struct {
	out *bufio.Writer
	enc *gob.Encoder
}

// NewLog begins a log on w.
func NewLog(w io.Writer) *Log {
	out := bufio.NewWriter(w)
	return &Log{out: out, enc: gob.NewEncoder(out)}
}

// Add adds o. What it refers to may change afterwards.
func (l *Log) Add(o *Op) error { return l.enc.Encode(o) }

// Flush hands everything to the writer below.
func (l *Log) Flush() error { return l.out.Flush() }

// ReadLog reads a log to its end.
func ReadLog(r io.Reader) ([]Op, error) {
	var ops []Op
	for dec := gob.NewDecoder(bufio.NewReader(r)); ; {
		var o Op
		err := dec.Decode(&o)
		if errors.Is(err, io.EOF) {
			return ops, nil
		}
		if err != nil {
			return nil, fmt.Errorf("op %d of the log: %w", len(ops), err)
		}
		ops = append(ops, o)
	}
}
