package spool

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// ID is a queue ID. It is made of the arrival time in microseconds (upper 52
// bits, good until 2112) and 12 random bits, so that IDs sort by time. The zero
// ID names no message. Its text is 16 upper-case hexadecimal digits.
type ID uint64

// NewID returns an ID for a message that arrives at t.
func NewID(t time.Time) ID { return ID(uint64(t.UnixMicro())<<12 | rand.Uint64N(1<<12)) }

// Time is the arrival time that id was made from.
func (id ID) Time() time.Time { return time.UnixMicro(int64(id >> 12)) }

func (id ID) String() string { return fmt.Sprintf("%016X", uint64(id)) }

// ParseID reads what String writes, in either case.
func ParseID(s string) (ID, error) {
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil || len(s) != 16 || n == 0 {
		return 0, fmt.Errorf("%q is not a queue ID: want 16 hexadecimal digits", s)
	}
	return ID(n), nil
}

// MarshalText writes id as String does.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is ParseID.
func (id *ID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseID(string(b))
	return err
}

// SubmissionID is the 128-bit name the front end gives a submission. A second
// arrival under the same name, from the same uid, is the same message. The zero
// value is no name. Its first 64 bits are the queue ID the front end proposes.
type SubmissionID [16]byte

// submissionDomain ends the EHLO name that carries a SubmissionID.
const submissionDomain = ".submission.invalid"

// ParseSubmissionName takes the SubmissionID out of an EHLO name,
// "<32 hex digits>.submission.invalid".
func ParseSubmissionName(name string) (SubmissionID, error) {
	var id SubmissionID
	digits, ok := strings.CutSuffix(name, submissionDomain)
	if !ok || len(digits) != 2*len(id) {
		return id, errors.New("not the name of a submission: want 32 hexadecimal digits and " + submissionDomain)
	}
	err := id.UnmarshalText([]byte(digits))
	return id, err
}

// Name is the EHLO name that carries id: what ParseSubmissionName reads.
func (id SubmissionID) Name() string { return id.String() + submissionDomain }

// QueueID is the queue ID that the submission proposes; the runner keeps it
// unless it is taken or not a time near now.
func (id SubmissionID) QueueID() ID {
	var n uint64
	for _, b := range id[:8] {
		n = n<<8 | uint64(b)
	}
	return ID(n)
}

func (id SubmissionID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText writes id as 32 hexadecimal digits.
func (id SubmissionID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads 32 hexadecimal digits.
func (id *SubmissionID) UnmarshalText(b []byte) error {
	if len(b) != 2*len(id) {
		return fmt.Errorf("%q is not a submission ID: want 32 hexadecimal digits", b)
	}
	_, err := hex.Decode(id[:], b)
	return err
}
