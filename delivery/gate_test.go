package delivery

import (
	"testing"

	"postino/spool"
)

// What is put aside goes on when something is over, in order, and nothing is left
// behind.
func TestGateLetsGoOnInOrder(t *testing.T) {
	var g gates
	for _, tt := range []struct {
		hop  string
		most int
		want bool
	}{{"a", 2, true}, {"a", 2, true}, {"a", 2, false}, {"b", 0, true}, {"b", 0, false}} {
		if g.enter(tt.hop, tt.most) != tt.want {
			t.Fatalf("%+v: a has 2 at a time, and every hop 1", tt)
		}
	}
	for id := range 3 {
		if !g.putAside("a", job{id: spool.ID(id)}) {
			t.Fatalf("%d was not put aside", id)
		}
	}
	for want := range 3 {
		j, ok := g.leave("a")
		if !ok || j.id != spool.ID(want) {
			t.Errorf("after %d: %v, %v", want, j, ok)
		}
		if !g.enter("a", 2) {
			t.Errorf("%d may not go on", want)
		}
	}
	for range 2 {
		if j, ok := g.leave("a"); ok {
			t.Errorf("%v goes on and was not put aside", j)
		}
	}
	if g.putAside("a", job{}) {
		t.Error("put aside with nothing under way: nobody would fetch it")
	}
	g.leave("b")
	if len(g.hops) != 0 {
		t.Errorf("left behind: %v", g.hops)
	}
}
