package powercut_test

import (
	"testing"

	"postino/cmd/durability/mutant"
)

// Each mistake that a power cut punishes is noticed, or the tests above prove
// nothing.
func TestEachMutantLosesMailInAPowerCut(t *testing.T) {
	if testing.Short() {
		t.Skip("each mistake is a build")
	}
	for _, m := range mutant.Table() {
		if m.Harness != mutant.PowerCut && m.Name != "answer before the commit" {
			continue
		}
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			seed := newSeed(t)
			w := newWorld(t, record(t, "-slow", "5ms"), programs(t, &m), newRandom(seed, 0), `mode = "hold"`)
			w.intake()
			c := w.cuts(seed)
			c.each, c.share = 6, 1
			found := c.run(t)
			if len(found.harm) == 0 {
				t.Error("nobody noticed")
			}
			for _, err := range found.harm {
				t.Log(err)
			}
		})
	}
}
