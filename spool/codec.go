package spool

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
)

// Values of the message, attempt and history buckets are JSON behind a CRC-32C,
// because bbolt has no checksum on its data pages.

// sumSize is how many octets the checksum before a record has.
const sumSize = 4

var errRecord = errors.New("damaged record: its checksum does not match")

func encode(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 4, 4+len(text))
	binary.BigEndian.PutUint32(b, crc32.Checksum(text, castagnoli))
	return append(b, text...), nil
}

func decode(b []byte, v any) error {
	if err := checkSum(b); err != nil {
		return err
	}
	if err := json.Unmarshal(b[4:], v); err != nil {
		return fmt.Errorf("damaged record: %w", err)
	}
	return nil
}

func checkSum(record []byte) error {
	if len(record) < 4 || binary.BigEndian.Uint32(record) != crc32.Checksum(record[4:], castagnoli) {
		return errRecord
	}
	return nil
}

// names reports whether a message's record is that of id, without decoding it.
func names(record []byte, id ID) bool {
	return bytes.HasPrefix(record[4:], []byte(`{"id":"`+id.String()+`"`))
}

// isFinished reports whether a message's record is of a finished one, without
// decoding it: within strings JSON has no such quotes.
func isFinished(record []byte) bool { return bytes.Contains(record, []byte(`,"finished":"`)) }

func decodeMessage(b []byte) (*Message, error) {
	m := new(Message)
	if err := decode(b, m); err != nil {
		return nil, err
	}
	return m, nil
}
