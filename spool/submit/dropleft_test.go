package submit

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postino/spool/warnings"
)

// Whoever makes bad files all the time has some of them named each minute, look for look,
// and the others counted.
func TestBadDropFilesAreFewLinesAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, nil))
		l := leftFiles{log: log, often: warnings.New(log)}
		const minutes, looks, files = 3, 60, 10
		bad := 0
		for range minutes * looks {
			l.begin()
			for range files {
				bad++
				l.note(fmt.Sprintf("bad%d", bad), &setAsideError{uid: 33, why: "garbage"})
			}
			l.note("stays", errors.New("not a file"))
			l.end()
			time.Sleep(time.Minute / looks)
		}
		text := out.String()
		named := strings.Count(text, "drop file rejected") + strings.Count(text, "drop file left")
		more := strings.Count(text, "more drop files rejected")
		left := fmt.Sprintf("left_out=%d\n", looks*files-maxReports-1)
		if named != minutes*maxReports || more != minutes || !strings.Contains(text, left) || strings.Count(text, "drop file left") != 1 {
			t.Errorf("%d files are named and %d lines are about others, of %d files in %d minutes; want %q in\n%.3000s", named, more, bad, minutes, left, text)
		}
	})
}
