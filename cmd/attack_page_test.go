package cmd_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What architecture(7) says is tested has that test.
func TestArchitecturePageNamesTests(t *testing.T) {
	page, err := os.ReadFile("../man/architecture.7")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err = filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, f := range function.FindAllStringSubmatch(string(text), -1) {
			found[f[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`).FindAllString(string(page), -1)
	if len(names) < 10 {
		t.Fatalf("it names %q alone", names)
	}
	for _, name := range names {
		if !found[name] {
			t.Errorf("there is no %s", name)
		}
	}
}
