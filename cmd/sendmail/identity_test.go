package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhoAmI(t *testing.T) {
	passwd := filepath.Join(t.TempDir(), "passwd")
	lines := []string{
		"root:x:0:0:root:/root:/bin/sh",
		"# comment", "", "+::::::", "short:x:5",
		"alice:x:1001:1001:Alice A.,Room 1,555:/home/alice:/bin/sh",
		"bob:x:1002:1002:& the Builder:/:/bin/sh",
		"plain:x:1003:1003::/:",
		"twice:x:1001:1001:Second:/:",
		"bad\x1bname:x:1004:1004:x:/:",
		":x:1005:1005:x:/:",
		"a b:x:1006:1006: ,x:/:",
	}
	if err := os.WriteFile(passwd, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	for uid, want := range map[int]identity{
		0:    {"root", "root"},
		1001: {"alice", "Alice A."},
		1002: {"bob", "Bob the Builder"},
		1003: {"plain", ""},
		1004: {"uid1004", ""},
		1005: {"uid1005", ""},
		1006: {"a b", ""},
		4321: {"uid4321", ""},
	} {
		if got := whoAmI(passwd, uid); got != want {
			t.Errorf("whoAmI(%d) = %+v; want %+v", uid, got, want)
		}
	}
	if got := whoAmI(passwd+".missing", 0); got != (identity{login: "uid0"}) {
		t.Errorf("without a password file: %+v", got)
	}
}
