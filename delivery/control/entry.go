package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"postino/spool"
)

// MarshalJSON writes e as log/slog's JSON handler does: "time", "level", "msg", "id"
// and then the attributes.
func (e Entry) MarshalJSON() ([]byte, error) {
	var buf bytes.Buffer
	err := slog.NewJSONHandler(&buf, nil).Handle(context.Background(), e.Record())
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), err
}

// UnmarshalJSON reads what MarshalJSON writes, the attributes in their order.
func (e *Entry) UnmarshalJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("a line of the log is no object")
	}
	out := Entry{}
	for d.More() {
		key, err := d.Token()
		var value any
		if err == nil {
			err = d.Decode(&value)
		}
		if err == nil {
			err = out.set(key.(string), value)
		}
		if err != nil {
			return fmt.Errorf("a line of the log: %w", err)
		}
	}
	*e = out
	return nil
}

func (e *Entry) set(key string, value any) (err error) {
	text, isText := value.(string)
	switch {
	case key == slog.TimeKey && e.Time.IsZero():
		e.Time, err = time.Parse(time.RFC3339Nano, text)
	case key == slog.LevelKey && e.Msg == "":
		err = e.Level.UnmarshalText([]byte(text))
	case key == slog.MessageKey && e.Msg == "":
		e.Msg = text
	case key == "id" && e.ID == 0 && len(e.Attrs) == 0:
		e.ID, err = spool.ParseID(text)
	case isText:
		e.Attrs = append(e.Attrs, slog.String(key, text))
	default:
		number, isNumber := value.(json.Number)
		n, notWhole := number.Int64()
		if isNumber && notWhole == nil {
			e.Attrs = append(e.Attrs, slog.Int64(key, n))
		} else {
			e.Attrs = append(e.Attrs, slog.Any(key, value))
		}
	}
	return err
}
