package cmd_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// callers(7) says which test runs which program; each of them has to be there.
func TestCallersPageNamesTests(t *testing.T) {
	page, err := os.ReadFile("../man/callers.7")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var there []string
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(source, -1) {
			there = append(there, string(m[1]))
		}
	}
	named := regexp.MustCompile(`Test\w+`).FindAllString(string(page), -1)
	if len(named) < 10 {
		t.Errorf("callers(7) names %d tests only", len(named))
	}
	for _, name := range named {
		if !slices.Contains(there, name) {
			t.Errorf("callers(7) names %s, which is no test here", name)
		}
	}
}
