package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"postino/delivery/control"
	"postino/spool"
	"postino/spool/address"
)

const (
	// maxDropHead is how many octets of a drop file are read for its envelope. Its
	// owner may have written anything.
	maxDropHead = 1 << 20
	// maxDropRecipients is how many recipients of drop files are shown in all, so
	// that many files with many of them do not fill the memory.
	maxDropRecipients = 100_000
	// maxDropLine is the longest command line looked at, in octets: twice what
	// RFC 5321 §4.5.3.1.4 and the parameters of RFC 3461 need.
	maxDropLine = 4 << 10
)

// readDrops returns what waits in drop/ for a runner, oldest first. Files that
// cannot be read, or are none of a front end's, are passed over: the runner says
// what is wrong with them.
func readDrops(dir string) ([]control.Message, error) {
	dir = filepath.Join(dir, spool.DropDir)
	entries, err := os.ReadDir(dir) // by name, which begins with the time
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []control.Message
	room := maxDropRecipients
	for _, e := range entries {
		id, ok := dropID(e.Name())
		if !ok {
			continue
		}
		if m, ok := readDrop(filepath.Join(dir, e.Name()), room); ok {
			m.ID = id
			room -= len(m.Recipients)
			list = append(list, m)
		}
	}
	return list, nil
}

// dropID is the queue ID that the submission in a drop file of this name proposes.
func dropID(name string) (spool.ID, bool) {
	var id spool.SubmissionID
	b, err := hex.DecodeString(name)
	if err != nil || len(b) != len(id) || strings.ToLower(name) != name {
		return 0, false
	}
	copy(id[:], b)
	return id.QueueID(), id.QueueID() != 0
}

// readDrop reads the envelope of a drop file, with room for so many recipients. It follows no link and waits for
// nothing that may have been put in the file's place.
func readDrop(path string, room int) (control.Message, bool) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return control.Message{}, false
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 {
		return control.Message{}, false
	}
	m := parseDrop(f, st.Size, room)
	// The change time is the one that the owner of a file cannot set.
	m.Arrived = time.Unix(st.Ctim.Unix()).UTC()
	m.UID, m.Status = int(st.Uid), control.StatusQueued
	for i := range m.Recipients {
		m.Recipients[i].Next = m.Arrived
	}
	return m, true
}

// parseDrop reads the envelope from a recorded session as far as it makes sense;
// fileSize is the size of the whole, in octets, and room the most recipients kept.
func parseDrop(r io.Reader, fileSize int64, room int) control.Message {
	m := control.Message{Size: fileSize, Recipients: []control.Recipient{}}
	lines := bufio.NewReaderSize(io.LimitReader(r, maxDropHead), maxDropLine)
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return m
		}
		verb, rest, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), " ")
		switch strings.ToUpper(verb) {
		case "MAIL":
			m.Sender = dropPath(rest)
		case "RCPT":
			if len(m.Recipients) >= room {
				continue
			}
			m.Recipients = append(m.Recipients, control.Recipient{Address: dropPath(rest), Status: spool.Queued})
		case "BDAT":
			digits, _, _ := strings.Cut(rest, " ")
			if n, err := strconv.ParseInt(digits, 10, 64); err == nil && n >= 0 && n <= fileSize {
				m.Size = n
			}
			return m
		case "DATA":
			return m
		}
	}
}

// dropPath is the address in "FROM:<…> …" or "TO:<…> …"; text that is none is
// returned as it is.
func dropPath(s string) string {
	path := s[strings.IndexByte(s, '<')+1:]
	quoted := false
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == '>' && !quoted:
			path = path[:i]
		}
	}
	if a, err := address.ParsePath(path); err == nil {
		return a.String()
	}
	return spool.CleanText(path)
}
