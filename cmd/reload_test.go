package cmd_test

import (
	"strings"
	"testing"
)

// reload returns when the new configuration holds, or says what is wrong with it, and
// then the old one holds.
func TestReloadSaysWhetherTheConfigurationWasTaken(t *testing.T) {
	t.Parallel()
	b := newBox(t, "mode = \"hold\"\n")
	reload := b.command("", program("postino"), "reload")
	if got := b.run(reload); got.code != 69 || !strings.Contains(got.err, "not running") {
		t.Errorf("nobody there: %+v, want 69", got)
	}
	b.start()
	b.configure("mode = \"capture\"\n")
	if got := b.postino("reload"); got != "" {
		t.Errorf("reload says %q", got)
	}
	if got := b.postino("status"); !strings.Contains(got, "mode: capture") {
		t.Errorf("after reload: %s", got)
	}
	b.configure("mode = \"captur\"\n")
	got := b.run(b.command("", program("postino"), "reload"))
	if got.code != 78 || got.out != "" || !strings.Contains(got.err, "the old one stays in use: "+b.config+":3:8: mode: ") {
		t.Errorf("of a wrong one: %+v, want 78", got)
	}
	if got := b.postino("status"); !strings.Contains(got, "mode: capture") {
		t.Errorf("after a wrong one: %s", got)
	}
}
