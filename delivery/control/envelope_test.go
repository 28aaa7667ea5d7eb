package control_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"postino/delivery/control"
	"postino/spool"
)

const goodEnvelope = `{"postino_envelope":1,"message":{"id":"06423B2F1C0A5E77","arrived":"2026-01-02T03:04:05Z","sender":"a@x.test",` +
	`"recipients":[{"address":"b@y.test","status":"deferred","attempts":2,"reply":{"code":451,"status":"4.2.1","text":"busy","host":"mx","command":"RCPT"},"notify":["FAILURE"]}],` +
	`"origin":{"via":"socket","uid":33},"size":10,"content":{"sum":7},"held":"by me"}}`

func TestEnvelopesOfNoMessageAreRefused(t *testing.T) {
	now := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
	m, err := control.ParseEnvelope([]byte(goodEnvelope), now)
	if err != nil || m.ID.String() != "06423B2F1C0A5E77" || m.Recipients[0].Attempts != 2 || m.Held != "by me" {
		t.Fatalf("got %+v, %v", m, err)
	}
	for _, tt := range []struct{ old, new, want string }{
		{`"postino_envelope":1`, `"postino_envelope":2`, "version 2"},
		{`"held":"by me"`, `"helt":"by me"`, "helt"},
		{`}}`, `}}{}`, "behind it"},
		{`"06423B2F1C0A5E77"`, `"../../etc/passwd"`, "queue ID"},
		{`"2026-01-02T03:04:05Z"`, `"2027-01-02T03:04:05Z"`, "not a time before now"},
		{`"2026-01-02T03:04:05Z"`, `"0001-01-01T00:00:00Z"`, "not a time before now"},
		{`"a@x.test"`, `"a@x.test\r\nRCPT TO:<c@z>"`, ""},
		{`"b@y.test"`, `""`, "no address"},
		{`"b@y.test"`, `"b\u001b[31m@y.test"`, ""},
		{`"deferred"`, `"gone"`, "finished"},
		{`"deferred"`, `"relayed"`, "finished"},
		{`"attempts":2`, `"attempts":-2`, "attempts"},
		{`451`, `99`, "reply code"},
		{`"4.2.1"`, `"4.2.1 x"`, "RFC 3463"},
		{`"FAILURE"`, `"FAILURE,DELAY"`, "notify"},
		{`"socket"`, `"magic"`, "via"},
		{`"uid":33`, `"uid":-1`, "uid"},
		{`"size":10`, `"size":-1`, "size"},
		{`"size":10`, `"size":10,"finished":"2026-01-02T03:04:05Z"`, "finished"},
		{`"size":10`, `"size":10,"return":"ALL"`, "FULL"},
		{`"size":10`, `"size":10,"subject":"a\nb"`, "lines"},
		{goodEnvelope, ``, ""},
		{goodEnvelope, `{"postino_envelope":1}`, "version"},
		{goodEnvelope, strings.Repeat("[", 100_000), ""},
	} {
		if m, err := control.ParseEnvelope([]byte(strings.Replace(goodEnvelope, tt.old, tt.new, 1)), now); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s for %s: %+v, %v; want an error with %q", tt.new, tt.old, m, err, tt.want)
		}
	}
}

// The law: what is accepted is written and read again as it is, has somebody to be
// sent to, and can be shown.
func FuzzParseEnvelope(f *testing.F) {
	f.Add([]byte(goodEnvelope))
	f.Add([]byte(strings.ReplaceAll(goodEnvelope, "busy", `\u001b[31m\u202e`)))
	now := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := control.ParseEnvelope(text, now)
		if err != nil {
			return
		}
		if m.Settled() || m.ID == 0 || m.Size < 0 || m.HeldBy != "" {
			t.Fatalf("%q gave %+v", text, m)
		}
		for _, r := range m.Recipients {
			for _, s := range []string{r.Reply.Text, r.Reply.Host, r.Reply.Command, r.Original} {
				if spool.CleanText(s) != s {
					t.Fatalf("%q gave the text %q", text, s)
				}
			}
		}
		line, err := control.Line(control.Envelope{Version: 1, Message: m})
		if err != nil {
			t.Fatal(err)
		}
		again, err := control.ParseEnvelope(line, now)
		if err != nil {
			t.Fatalf("%s is refused: %v", line, err)
		}
		a, _ := json.Marshal(m)
		if b, _ := json.Marshal(again); string(a) != string(b) {
			t.Fatalf("%s became %s", a, b)
		}
	})
}

// A program that an alias named on another host is not run here: whom the name stands
// for is for the aliases here to say.
func TestImportedMailHasNoTargets(t *testing.T) {
	now := time.Now()
	text := fmt.Sprintf(`{"postino_envelope":1,"message":{"id":"06423B2F1C0A5E77","arrived":%q,"sender":"a@x.test","origin":{"via":"socket","uid":1},"content":{},"size":1,
"recipients":[{"address":"list@y.test","status":"queued","attempts":0,"reply":{"code":0,"status":"","text":"","host":"","command":""},"target":"|/bin/id","final":true}]}}`, now.Format(time.RFC3339))
	m, err := control.ParseEnvelope([]byte(text), now)
	if err != nil || m.Recipients[0].Target != "" || m.Recipients[0].Final {
		t.Errorf("%+v, %v", m, err)
	}
}
