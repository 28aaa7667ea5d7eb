package mutant_test

import (
	"testing"

	"postino/cmd/durability/mutant"
)

// The table follows the source: each mistake can still be made. That each is
// noticed is for the harnesses to show.
func TestEachMutantCanStillBeMade(t *testing.T) {
	for _, m := range mutant.Table() {
		if _, err := m.Source("../../.."); err != nil {
			t.Error(err)
		}
	}
}
