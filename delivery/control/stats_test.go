package control_test

import (
	"os"
	"reflect"
	"testing"

	"postino/delivery/control"
	"postino/spool"
)

func TestStatsCountMessagesAndWhatBecameOfThem(t *testing.T) {
	w := newWorld(t, control.Options{Owner: os.Geteuid()})
	ok := spool.Reply{Code: 250, Status: "2.0.0", Text: "ok"}
	w.add(t, 33, "queued", nil)
	w.add(t, 33, "held", func(m *spool.Message) { m.Held = "by me" })
	deferred := w.add(t, 33, "deferred", nil)
	w.attempt(t, deferred, spool.Deferred, deferral, false)
	w.attempt(t, w.add(t, 33, "relayed", nil), spool.Relayed, ok, false)
	w.attempt(t, w.add(t, 44, "failed", nil), spool.Failed, spool.Reply{Code: 550, Status: "5.1.1", Text: "no"}, false)
	w.attempt(t, w.add(t, 44, "captured", nil), spool.Delivered, ok, true)
	ended := control.Ended{Delivered: 2, Relayed: 2, Failed: 2}
	want := control.Stats{Queued: 1, Deferred: 1, Held: 1, Hour: ended, Day: ended}
	got, err := w.client.Stats(t.Context())
	hops := got.Hops
	got.Hops = nil
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	waiting, attempted := 0, control.Ended{}
	for _, h := range hops {
		waiting += h.Waiting
		if h.Hop == "relay r.test:587" {
			attempted = h.Day
		}
	}
	if waiting != 6 || attempted != ended {
		t.Errorf("by next hop: %+v", hops)
	}
	stranger := control.View{Spool: w.spool, Access: control.Access{UID: 44}}
	if got, err := stranger.Stats(); err != nil || got.Queued+got.Deferred+got.Held != 0 || got.Day != (control.Ended{Delivered: 2, Failed: 2}) {
		t.Errorf("to uid 44: %+v, %v", got, err)
	}
}
