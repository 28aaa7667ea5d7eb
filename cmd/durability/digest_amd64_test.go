package durability_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"postino/spool"
)

// A runner dies while it makes one mail of several reports. Each of them is in that
// mail or waits still, and is in one at the end.
func TestNoReportIsLostToADigest(t *testing.T) {
	t.Parallel()
	died := 0
	for _, point := range []string{"commit.before", "commit.after"} {
		for nth := 1; nth <= 3; nth++ {
			b := newBox(t, programs("points"))
			b.configure("[[route]]", fmt.Sprintf("recipients = [%q, %q]", recipient, sender), `transport = "error:550 5.1.1 no"`)
			var waiting []string
			b.during(func() {
				b.both()
				b.both() // four messages fail: the first report goes out, and fails
				b.living.await("three reports that wait", func() bool {
					waiting = b.waiting()
					return len(waiting) == 3
				})
			})
			together := func() {
				b.during(func() {
					b.run(b.postino(append([]string{"retry"}, waiting...)...))
					b.emptied()
				})
			}
			b.deaths = 0
			b.env = []string{fmt.Sprintf("POSTINO_CRASH=%s:%d", point, nth)}
			together()
			b.env = nil
			died += b.deaths
			together()
			s, err := spool.OpenReadOnly(b.spool)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range waiting {
				id, _ := spool.ParseID(text)
				m, err := s.Message(id)
				if err != nil || m.Recipients[0].Status != spool.Expanded {
					t.Errorf("dead at %s, time %d: report %s is %+v, %v", point, nth, text, m, err)
					continue
				}
				in, err := spool.ParseID(m.Recipients[0].Reply.Text[strings.LastIndexByte(m.Recipients[0].Reply.Text, ' ')+1:])
				if err == nil {
					_, err = s.Message(in)
				}
				if err != nil {
					t.Errorf("dead at %s, time %d: report %s went %q: %v", point, nth, text, m.Recipients[0].Reply, err)
				}
			}
			s.Close()
		}
	}
	if died < 4 {
		t.Errorf("only %d runners died", died)
	}
}

// waiting are the IDs of the reports that wait for others.
func (b *box) waiting() (ids []string) {
	cmd := b.postino("queue", "--json")
	out := new(strings.Builder)
	cmd.Stdout = out
	b.run(cmd)
	for line := range strings.Lines(out.String()) {
		var m struct {
			ID         string
			Recipients []struct{ Reply struct{ Command string } }
		}
		if err := json.Unmarshal([]byte(line), &m); err == nil && m.Recipients[0].Reply.Command == "digest" {
			ids = append(ids, m.ID)
		}
	}
	return ids
}
