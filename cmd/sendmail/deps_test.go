package main

import (
	"os/exec"
	"strings"
	"testing"
)

// Every caller pays for what is imported here.
func TestNothingHeavyIsImported(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	heavy := map[string]bool{
		"fmt": true, "net": true, "encoding/json": true, "flag": true, "log": true, "regexp": true,
		"os/exec": true, "os/user": true, "mime": true, "runtime/debug": true, "postino/spool": true,
	}
	prefixes := []string{"net/", "crypto/", "text/", "html/", "log/", "go.etcd.io/", "github.com/"}
	for name := range strings.FieldsSeq(string(out)) {
		bad := heavy[name]
		for _, p := range prefixes {
			bad = bad || strings.HasPrefix(name, p)
		}
		if bad {
			t.Errorf("sendmail imports %s", name)
		}
	}
}
