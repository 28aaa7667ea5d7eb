package control_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"postino/delivery/control"
	"postino/spool"
	"postino/spool/address"
	"postino/spool/standstill"
)

// lines are the entries of a list, as "ID msg rcpt status".
func lines(t *testing.T, list func(func(control.Entry, error) bool)) []string {
	t.Helper()
	var out []string
	last := time.Time{}
	for e, err := range list {
		if err != nil {
			t.Fatal(err)
		}
		if e.Time.Before(last) {
			t.Errorf("%v is behind a line of %v", e, last)
		}
		last = e.Time
		out = append(out, entryText(e))
	}
	return out
}

func entryText(e control.Entry) string {
	text := e.Msg
	if e.ID != 0 {
		text = e.ID.String() + " " + text
	}
	for _, a := range e.Attrs {
		if slices.Contains([]string{"rcpt", "status", "n", "why", "err"}, a.Key) {
			text += " " + a.Value.String()
		}
	}
	return text
}

func TestLogTellsTheWholeLifeInTheOrderOfTime(t *testing.T) {
	journal := control.NewJournal()
	w := newWorld(t, control.Options{Owner: os.Geteuid(), Journal: journal})
	one := w.add(t, 33, "one", func(m *spool.Message) { m.Arrived = time.Now().Add(-time.Hour) })
	w.attempt(t, one, spool.Deferred, deferral, false)
	two := w.add(t, 44, "two", func(m *spool.Message) { m.Recipients = m.Recipients[:1] })
	w.attempt(t, one, spool.Relayed, spool.Reply{Code: 250, Status: "2.0.0", Text: "ok"}, false)
	if _, err := w.spool.Fail(two, spool.Reply{Status: "5.7.1", Text: "deleted by uid 0", Command: "delete"}); err != nil {
		t.Fatal(err)
	}
	held := w.add(t, 44, "held", func(m *spool.Message) { m.Held = "over the limit" })
	log := slog.New(journal.Handler(slog.NewTextHandler(io.Discard, nil)))
	log.Info("not kept")
	log.With("id", two).Warn("not kept either")
	log.Warn("trouble", "err", "no key")
	of := func(id spool.ID, texts ...string) []string {
		for i := range texts {
			texts[i] = id.String() + " " + texts[i]
		}
		return texts
	}
	first := of(one, "accepted")
	rest := slices.Concat(of(one, "attempt x@to.test deferred 1", "attempt y@To.TEST deferred 1"),
		of(one, "attempt x@to.test relayed 2", "attempt y@To.TEST relayed 2"), of(one, "finished"),
		of(two, "accepted", "settled x@to.test failed", "finished"), of(held, "accepted", "held over the limit"), []string{"trouble no key"})
	uid := 44
	for _, tt := range []struct {
		name string
		q    control.LogQuery
		want []string
	}{
		{"everything", control.LogQuery{}, append(first, rest...)},
		{"since", control.LogQuery{Since: time.Now().Add(-time.Minute)}, rest},
		{"the newest", control.LogQuery{Lines: 3}, append(of(held, "accepted", "held over the limit"), "trouble no key")},
		{"of one uid", control.LogQuery{Selection: control.Selection{UID: &uid, To: "x@to.test"}},
			append(of(two, "accepted", "settled x@to.test failed", "finished"), of(held, "accepted", "held over the limit")...)},
		{"of what failed", control.LogQuery{Selection: control.Selection{Status: "failed"}}, of(two, "accepted", "settled x@to.test failed", "finished")},
	} {
		got := lines(t, w.client.Log(t.Context(), tt.q))
		// The clock may give two lines one time; which is first is then not said.
		if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(tt.want))) {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.name, strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
		}
	}
	stranger := control.View{Spool: w.spool, Access: control.Access{UID: 33}}
	for _, line := range lines(t, stranger.Log(control.LogQuery{})) {
		if !strings.HasPrefix(line, one.String()) {
			t.Errorf("uid 33 is told %q", line)
		}
	}
}

// The log made from the spool has the reports and digests that the runner's had.
func TestLogHasReportsAndDigests(t *testing.T) {
	w := newWorld(t, control.Options{Owner: os.Geteuid()})
	id := w.add(t, 33, "one", nil)
	draft, err := w.spool.NewReportDraft()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := draft.Write([]byte("Subject: x\r\n\r\nsorry\r\n")); err != nil {
		t.Fatal(err)
	}
	ann, err := address.Parse("ann@from.test")
	if err != nil {
		t.Fatal(err)
	}
	report := &spool.Report{Draft: draft, About: []int{0}, Message: &spool.Message{
		Arrived: time.Now(), Recipients: []spool.Recipient{{Address: ann, Status: spool.Queued}},
		Origin: spool.Origin{Via: spool.ViaDSN, UID: 33, Action: "failed"},
	}}
	failure := spool.Reply{Code: 550, Status: "5.1.1", Text: "nobody"}
	if _, err := w.spool.Record(id, &spool.Attempt{At: time.Now(), Outcomes: []spool.Outcome{{Recipient: 0, Status: spool.Failed, Reply: failure}}}, report); err != nil {
		t.Fatal(err)
	}
	by, err := address.Parse("shop@route.test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.spool.Record(id, &spool.Attempt{At: time.Now(), From: by, Outcomes: []spool.Outcome{{Recipient: 1, Status: spool.Deferred, Reply: deferral}}}); err != nil {
		t.Fatal(err)
	}
	for e, err := range w.client.Log(t.Context(), control.LogQuery{Lines: 1}) {
		if !slices.ContainsFunc(e.Attrs, func(a slog.Attr) bool { return a.Key == "from" && a.Value.String() == "shop@route.test" }) {
			t.Errorf("%+v, %v: not from whom the route says", e, err)
		}
	}
	for traced, err := range w.client.Trace(t.Context(), id.String()) {
		if err != nil || len(traced.Attempts) != 2 || traced.Attempts[0].From != "" || traced.Attempts[1].From != "shop@route.test" {
			t.Errorf("%+v, %v", traced, err)
		}
	}
	digest := w.add(t, 33, "two", func(m *spool.Message) {
		m.Origin.Via, m.Origin.Reports, m.Recipients = spool.ViaDSN, 7, m.Recipients[:1]
	})
	var got []string
	for e, err := range w.client.Log(t.Context(), control.LogQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Msg == "report" || e.Msg == "digest" {
			text := e.ID.String() + " " + e.Msg
			for _, a := range e.Attrs {
				text += " " + a.Key + "=" + a.Value.String()
			}
			got = append(got, text)
		}
	}
	want := []string{
		fmt.Sprintf("%s report report=%s action=failed to=ann@from.test size=%d gathered=false", id, report.Message.ID, report.Message.Size),
		fmt.Sprintf("%s digest to=x@to.test size=%d reports=7", digest, mustMessage(t, w.spool, digest).Size),
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func mustMessage(t *testing.T, s *spool.Spool, id spool.ID) *spool.Message {
	t.Helper()
	m, err := s.Message(id)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMoreLinesThanMeantAreCounted(t *testing.T) {
	w := newWorld(t, control.Options{Owner: os.Geteuid()})
	id := w.add(t, 33, "many", func(m *spool.Message) {
		m.Recipients = slices.Repeat(m.Recipients, 250)
		m.Arrived = time.Now().Add(-time.Hour)
	})
	for range control.MaxLogLines/500 + 1 {
		w.attempt(t, id, spool.Deferred, deferral, false)
	}
	got := lines(t, w.client.Log(t.Context(), control.LogQuery{}))
	if len(got) != control.MaxLogLines+1 || !strings.HasPrefix(got[0], "earlier lines left out") {
		t.Errorf("got %d lines, the first is %q", len(got), got[0])
	}
}

func TestFollowerIsToldWhatHappensAndWhatItMissed(t *testing.T) {
	journal := control.NewJournal()
	w := newWorld(t, control.Options{Owner: os.Geteuid(), Journal: journal})
	id := w.add(t, 33, "one", nil)
	log := slog.New(journal.Handler(slog.NewTextHandler(io.Discard, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan control.Entry)
	go func() {
		defer close(got)
		for e, err := range w.client.Log(ctx, control.LogQuery{Follow: true}) {
			if err == nil {
				got <- e
			}
		}
	}()
	next := func() control.Entry {
		t.Helper()
		select {
		case e, more := <-got:
			if !more {
				t.Fatal("the log has ended")
			}
			return e
		case <-time.After(patience):
			t.Fatalf("no line for %v:\n%s", patience, standstill.Here())
		}
		return control.Entry{}
	}
	if e := next(); e.ID != id || e.Msg != "accepted" {
		t.Errorf("the past: %+v", e)
	}
	log.Info("accepted", "id", id) // the line of what was read from the spool
	log.Info("hello", "id", id, "took", 3*time.Millisecond)
	if e := next(); e.Msg != "hello" || e.Attrs[0].Value.String() != "3ms" {
		t.Errorf("what happens: %+v", e)
	}
	// Nobody reads: the runner does not mind, and the reader is told later.
	const n = 20_000
	filler := strings.Repeat("x", 900)
	for i := range n {
		log.Info("flood", "i", i, "filler", filler)
	}
	lost, seen := int64(0), int64(0)
	for lost+seen < n {
		switch e := next(); e.Msg {
		case "log lines lost":
			lost += e.Attrs[0].Value.Int64()
		case "flood":
			seen++
		default:
			t.Fatalf("got %+v", e)
		}
	}
	if lost == 0 {
		t.Error("nothing was lost")
	}
}

func TestFollowersSeeTheirOwnMailAlone(t *testing.T) {
	journal := control.NewJournal()
	w := newWorld(t, control.Options{Group: admingroup, Journal: journal})
	own, theirs := w.add(t, stranger, "own", nil), w.add(t, 1500, "private", nil)
	log := slog.New(journal.Handler(slog.NewTextHandler(io.Discard, nil)))
	cmd := runAs(t, w.dir, as(stranger), "follow")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	dec := json.NewDecoder(out)
	for i, want := range []string{own.String() + " accepted", own.String() + " last"} {
		var e control.Entry
		if err := dec.Decode(&e); err != nil || entryText(e) != want {
			t.Errorf("line %d: got %+v, %v; want %s", i, e, err, want)
		}
		if i == 0 {
			log.Info("attempt", "id", theirs)
			log.Error("trouble")
			log.Info("last", "id", own)
		}
	}
	cmd.Process.Kill()
}

func FuzzEntry(f *testing.F) {
	f.Add([]byte(`{"time":"2026-11-25T01:02:03Z","level":"WARN","msg":"attempt","id":"0642000000000001","n":3,"rcpt":"a@b","x":1.5,"y":true}`))
	f.Add([]byte(`{"time":"","id":7}`))
	f.Add([]byte(`{"id":"0642000000000001","time":null,"msg":"\u202e","level":"INFO+1"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var e, again control.Entry
		if json.Unmarshal(text, &e) != nil {
			return
		}
		line, err := control.Line(e)
		if err != nil {
			return // an attribute that no log has
		}
		if strings.ContainsFunc(string(line[:len(line)-1]), func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e }) {
			t.Fatalf("%q is written as %q", text, line)
		}
		if err := json.Unmarshal(line, &again); err == nil && e.ID != 0 && e.ID != again.ID {
			t.Fatalf("%q is %+v and then %+v", text, e, again)
		}
	})
}

func TestEntryIsReadAsItWasWritten(t *testing.T) {
	at := time.Date(2026, 11, 25, 1, 2, 3, 456e6, time.UTC)
	e := control.Entry{Time: at, Level: slog.LevelWarn, Msg: "attempt", ID: 0x0642000000000001,
		Attrs: []slog.Attr{slog.String("rcpt", `"a b"@c`), slog.Int64("n", 3), slog.Bool("ok", true), slog.String("id", "inner")}}
	var got control.Entry
	line, err := control.Line(e)
	if err == nil {
		err = json.Unmarshal(line, &got)
	}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(e) || !reflect.DeepEqual(got.Time, at) {
		t.Errorf("%s: got %v, %v; want %v", line, got, err, e)
	}
}
