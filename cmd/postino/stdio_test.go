package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// sendmail -bs knows the limits of a configuration that it can read, and no other keeps it
// from its session.
func TestLimitsOfASessionNeedNoConfiguration(t *testing.T) {
	t.Parallel()
	text := func(text string) func(string) error {
		return func(path string) error { return os.WriteFile(path, []byte(text), 0o644) }
	}
	for name, tt := range map[string]struct {
		put        func(path string) error
		octets     int64
		recipients int
	}{
		"good":        {text("max_message_size = \"1KiB\"\nlimits.max_recipients = 3\n"), 1 << 10, 3},
		"empty":       {text(""), 50 << 20, 1000},
		"missing":     {func(string) error { return nil }, 0, 0},
		"broken":      {text("max_message_size = [\n"), 0, 0},
		"a directory": {func(path string) error { return os.Mkdir(path, 0o755) }, 0, 0},
		"a pipe":      {func(path string) error { return unix.Mkfifo(path, 0o644) }, 0, 0},
	} {
		a := testApp()
		a.config = filepath.Join(t.TempDir(), "postino.toml")
		if err := tt.put(a.config); err != nil {
			t.Fatal(err)
		}
		if octets, recipients := a.sessionLimits(); octets != tt.octets || recipients != tt.recipients {
			t.Errorf("%s: %d octets, %d recipients; want %d and %d", name, octets, recipients, tt.octets, tt.recipients)
		}
	}
}
