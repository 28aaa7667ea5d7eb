package submit

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// The table of the kernel is read by its own form, and a socket that nobody has any
// more is nobody's. It is of a machine with the octets of a number in this order.
func TestTableOfSockets(t *testing.T) {
	t.Parallel()
	a, b := netip.MustParseAddrPort("127.0.0.1:40000"), netip.MustParseAddrPort("127.0.0.1:25")
	line := func(local, remote netip.AddrPort, uid, inode string) string {
		return "   3: " + inTable(local) + " " + inTable(remote) + " 01 00000000:00000000 00:00000000 00000000 " + uid + "        0 " + inode + " 1 0000000000000000 20 4 30 10 -1\n"
	}
	const titles = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	for name, tt := range map[string]struct {
		table string
		uid   int
		ok    bool
	}{
		"found":            {titles + line(b, a, "0", "7") + line(a, b, "1000", "8"), 1000, true},
		"for both":         {titles + line(mapped(a), mapped(b), "1000", "8"), 1000, true},
		"closed":           {titles + line(a, b, "0", "0"), 0, false},
		"nothing":          {"", 0, false},
		"only our own end": {titles + line(b, a, "0", "7"), 0, false},
		"cut":              {titles + line(a, b, "1000", "8")[:90], 0, false},
		"no number":        {titles + line(a, b, "x", "8"), 0, false},
		"a long line":      {titles + strings.Repeat("x", 1<<20) + "\n" + line(a, b, "1000", "8"), 0, false},
	} {
		uid, err := findLine(strings.NewReader(tt.table), a, b)
		if (err == nil) != tt.ok || uid != tt.uid {
			t.Errorf("%s: %d, %v", name, uid, err)
		}
	}
	if _, err := findLine(strings.NewReader(titles), a, b); !errors.Is(err, errNoSocket) {
		t.Errorf("%v", err)
	}
}
