package control_test

import (
	"fmt"
	"net/url"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"postino/delivery/control"
	"postino/spool"
	"postino/spool/address"
)

// collect returns the IDs of a list, in its order.
func collect(t *testing.T, list func(func(control.Message, error) bool)) []spool.ID {
	t.Helper()
	var ids []spool.ID
	for m, err := range list {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, m.ID)
	}
	return ids
}

func TestSelectionMeansWhatAllItsFieldsMatch(t *testing.T) {
	w := newWorld(t, control.Options{Owner: os.Geteuid()})
	old := time.Now().Add(-3 * time.Hour)
	fresh := w.add(t, 33, "fresh", nil)
	deferred := w.add(t, 33, "deferred", func(m *spool.Message) { m.Arrived, m.Sender = old, addr(t, "News@Shop.example") })
	w.attempt(t, deferred, spool.Deferred, deferral, false)
	null := w.add(t, 0, "null", func(m *spool.Message) {
		m.Sender, m.Recipients = address.Address{}, m.Recipients[:1]
		m.Recipients[0].Address = addr(t, `"odd one"@sub.to.test`)
	})
	held := w.add(t, 44, "held", func(m *spool.Message) { m.Held = "over the limit" })
	half := w.add(t, 44, "half", func(m *spool.Message) {
		m.Recipients[0].Status, m.Recipients[0].Reply = spool.Relayed, spool.Reply{Code: 250, Status: "2.0.0", Text: "ok"}
		m.Recipients[1].Address = addr(t, "z@elsewhere.test")
	})
	uid := func(n int) *int { return &n }
	all := []spool.ID{fresh, deferred, null, held, half}
	for _, tt := range []struct {
		name string
		sel  control.Selection
		want []spool.ID
	}{
		{"everything", control.Selection{}, all},
		{"IDs", control.Selection{IDs: []spool.ID{half, fresh}}, []spool.ID{half, fresh}},
		{"address in any case", control.Selection{From: "news@shop.EXAMPLE"}, []spool.ID{deferred}},
		{"address in brackets", control.Selection{From: "<news@shop.example>"}, []spool.ID{deferred}},
		{"domain", control.Selection{From: "@sender.test"}, []spool.ID{fresh, held, half}},
		{"domain is no suffix", control.Selection{To: "@to.test"}, []spool.ID{fresh, deferred, held}},
		{"local part", control.Selection{To: "z"}, []spool.ID{half}},
		{"local part is no part of one", control.Selection{From: "new"}, nil},
		{"pattern", control.Selection{To: "*@*to.test"}, []spool.ID{fresh, deferred, null, held}},
		{"pattern of one octet", control.Selection{From: "n?ws@*"}, []spool.ID{deferred}},
		{"null reverse-path", control.Selection{From: "<>"}, []spool.ID{null}},
		{"any reverse-path but it", control.Selection{From: "?*"}, []spool.ID{fresh, deferred, held, half}},
		{"settled recipients are not waiting", control.Selection{To: "x@to.test"}, []spool.ID{fresh, deferred, held}},
		{"unless they are asked for", control.Selection{To: "x@to.test", Status: "relayed"}, []spool.ID{half}},
		{"uid", control.Selection{UID: uid(44)}, []spool.ID{held, half}},
		{"uid 0", control.Selection{UID: uid(0)}, []spool.ID{null}},
		{"hop", control.Selection{Hop: "MX "}, all},
		{"other hop", control.Selection{Hop: "relay"}, nil},
		{"queued", control.Selection{Status: "queued"}, []spool.ID{fresh, null, half}},
		{"deferred", control.Selection{Status: "deferred"}, []spool.ID{deferred}},
		{"held", control.Selection{Status: "held"}, []spool.ID{held}},
		{"failed", control.Selection{Status: "failed"}, nil},
		{"older", control.Selection{Before: time.Now().Add(-time.Hour)}, []spool.ID{deferred}},
		{"newer", control.Selection{After: time.Now().Add(-time.Hour)}, []spool.ID{fresh, null, held, half}},
		{"reason", control.Selection{Reason: "SECRET rea"}, []spool.ID{deferred}},
		{"reason by code", control.Selection{Reason: "451 4.2.1"}, []spool.ID{deferred}},
		{"reason of a hold", control.Selection{Reason: "limit"}, []spool.ID{held}},
		{"one and the same recipient", control.Selection{To: "z@elsewhere.test", Reason: "ok"}, nil},
		{"limit", control.Selection{Limit: 2}, []spool.ID{fresh, deferred}},
		{"all at once", control.Selection{UID: uid(33), From: "@shop.example", Status: "deferred", Reason: "4.2.1", Limit: 9}, []spool.ID{deferred}},
	} {
		if got := collect(t, w.client.Queue(t.Context(), tt.sel)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Who may not see an address must not find it by guessing either.
func TestHiddenMailDoesNotMatchByWhatIsHidden(t *testing.T) {
	w := newWorld(t, control.Options{Owner: os.Geteuid()})
	id := w.add(t, 1500, "private", func(m *spool.Message) { m.Sender = address.Address{} })
	w.attempt(t, id, spool.Deferred, deferral, false)
	view := control.View{Spool: w.spool, Access: control.Access{UID: stranger}, Hop: func(_, _ address.Address) string { return "relay" }}
	uid := 1500
	for name, sel := range map[string]control.Selection{
		"from": {From: "<>"}, "to": {To: "*"}, "hop": {Hop: "relay"}, "reason": {Reason: "4"},
	} {
		if got := collect(t, view.Queue(sel)); len(got) != 0 {
			t.Errorf("by %s: got %v", name, got)
		}
	}
	for name, sel := range map[string]control.Selection{"uid": {UID: &uid}, "status": {Status: "deferred"}} {
		if got := collect(t, view.Queue(sel)); len(got) != 1 {
			t.Errorf("by %s, which all may know: got %v", name, got)
		}
	}
}

func TestSteeringBySelectionChangesThoseAndNoOthers(t *testing.T) {
	w := newWorld(t, control.Options{Owner: os.Geteuid()})
	const n = 900 // some groups, and more IDs than one request holds
	var shop, others []spool.ID
	for i := range n {
		id := w.add(t, 33, fmt.Sprint(i), func(m *spool.Message) {
			if i%3 == 0 {
				m.Sender = addr(t, "news@shop.example")
			}
		})
		if i%3 == 0 {
			shop = append(shop, id)
		} else {
			others = append(others, id)
		}
	}
	ctx, sel := t.Context(), control.Selection{From: "@shop.example"}
	if got := collect(t, w.client.Preview(ctx, control.Hold, sel)); !slices.Equal(got, shop) {
		t.Errorf("preview of hold: %d messages, want %d", len(got), len(shop))
	}
	if got := collect(t, w.client.Queue(ctx, control.Selection{Status: "held"})); got != nil {
		t.Errorf("a preview held %d messages", len(got))
	}
	if got := collect(t, w.client.Steer(ctx, control.Hold, sel)); !slices.Equal(got, shop) {
		t.Errorf("hold: %d messages, want %d", len(got), len(shop))
	}
	if got := collect(t, w.client.Queue(ctx, control.Selection{Status: "held"})); !slices.Equal(got, shop) {
		t.Errorf("held: %d messages, want %d", len(got), len(shop))
	}
	if got := collect(t, w.client.Steer(ctx, control.Hold, sel)); got != nil {
		t.Errorf("hold of held mail: %d messages", len(got))
	}
	if got := collect(t, w.client.Steer(ctx, control.Retry, control.Selection{})); !slices.Equal(got, others) {
		t.Errorf("retry of all that is not held: %d messages, want %d", len(got), len(others))
	}
	if got := collect(t, w.client.Steer(ctx, control.Release, control.Selection{Limit: 3})); !slices.Equal(got, shop[:3]) {
		t.Errorf("release of three: %v", got)
	}
	if got := collect(t, w.client.Steer(ctx, control.Delete, sel)); !slices.Equal(got, shop) {
		t.Errorf("delete: %d messages, want %d", len(got), len(shop))
	}
	if got := collect(t, w.client.Steer(ctx, control.Hold, control.Selection{IDs: others})); !slices.Equal(got, others) {
		t.Errorf("hold by ID: %d messages, want %d", len(got), len(others))
	}
}

func FuzzParseSelection(f *testing.F) {
	f.Add("id=0642000000000001&id=0642000000000002&limit=5")
	f.Add("from=%3C%3E&to=*@x.test&uid=0&hop=relay&status=held&reason=over%20quota")
	f.Add("before=2026-11-25T00:00:00Z&after=2026-11-24T00:00:00.5Z")
	f.Add("uid=-1&uid=1&x=")
	f.Fuzz(func(t *testing.T, query string) {
		v, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		sel, err := control.ParseSelection(v)
		if err != nil {
			if !reflect.DeepEqual(sel, control.Selection{}) {
				t.Fatalf("%q is refused and means %+v", query, sel)
			}
			return
		}
		again, err := control.ParseSelection(sel.Values())
		if err != nil || !reflect.DeepEqual(again, sel) {
			t.Fatalf("%q means %+v, and then %+v, %v", query, sel, again, err)
		}
	})
}

func FuzzMatchAddress(f *testing.F) {
	f.Add("*@x.test", "a@x.test")
	f.Add("a*b*c?", "aabbccd")
	f.Add("@", "")
	f.Fuzz(func(t *testing.T, pattern, addr string) {
		control.MatchAddress(pattern, addr) // ends
		if addr != "" && !control.MatchAddress("*", addr) {
			t.Fatalf("%q is not any address", addr)
		}
	})
}
