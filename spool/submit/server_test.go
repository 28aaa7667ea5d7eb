package submit

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// A panic is an error to be mended, but for the library's own over a chunk that comes
// when its session is over.
func TestPanicsAreErrors(t *testing.T) {
	const late = "panic serving @: runtime error: invalid memory address or nil pointer dereference\ngoroutine 9 [running]:\n" +
		"github.com/emersion/go-smtp.(*Conn).handlePanic(0x1)\ngithub.com/emersion/go-smtp.(*Conn).handleBdat.func1()\n"
	for text, want := range map[string]string{
		late: "DEBUG",
		late + "postino/spool/submit.(*session).Data(0x1)\n": "ERROR",
		"panic serving @: boom":                              "ERROR",
		"error reading":                                      "DEBUG",
	} {
		var out bytes.Buffer
		serverLog{slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))}.Printf("%s", text)
		if !strings.Contains(out.String(), "level="+want) {
			t.Errorf("%q is logged as %s", text, out.String())
		}
	}
}
