package submit_test

import (
	"testing"

	"postino/spool"
)

func TestMailThatSaysSoIsBulk(t *testing.T) {
	r := newRig(t)
	for field, want := range map[string]bool{
		"Precedence: bulk":                    true,
		"precedence:  List ":                  true,
		"Precedence: JUNK":                    true,
		"Precedence: first-class":             false,
		"List-Id: News <news.example.org>":    true,
		"List-Unsubscribe: <https://x.test/>": true,
		"X-Precedence: bulk":                  false,
		"Subject: Precedence: bulk":           false,
	} {
		got := r.talk("EHLO x\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n" + field + "\r\n\r\nx\r\n.\r\nQUIT\r\n")
		if len(got) < 5 {
			t.Fatalf("%s: %q", field, got)
		}
		for m := range r.spool.Queue() {
			if m.Bulk != want {
				t.Errorf("%s: bulk = %v", field, m.Bulk)
			}
			if _, err := r.spool.Fail(m.ID, spool.Reply{Status: "5.0.0"}); err != nil {
				t.Fatal(err)
			}
		}
	}
}
