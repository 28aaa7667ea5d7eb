package main

import (
	"os"
	"path/filepath"
	"testing"
)

// A link in the place of the new configuration opens no other file to everybody.
func TestSetupOpensUpItsOwnFileAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	other, link := filepath.Join(dir, "shadow"), filepath.Join(dir, "postino.toml.new")
	if err := os.WriteFile(other, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, link); err != nil {
		t.Fatal(err)
	}
	err := openUp(link, 0o644)
	info, statErr := os.Stat(other)
	if err == nil || statErr != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, %v", err, info.Mode(), statErr)
	}
	if err := openUp(other, 0o644); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(other); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
