package submit

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postino/spool"
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

// What comes by HTTP is no submission: commands in the body of a request, or in an
// address that somebody had a server fetch, reach nobody.
func TestRequestsOfHTTPAreNoCommands(t *testing.T) {
	t.Parallel()
	const commands = "EHLO x\r\nMAIL FROM:<a@x.test>\r\n"
	for said, want := range map[string]string{
		"POST / HTTP/1.0\r\n\r\n" + commands:    "",
		"get /\r\n" + commands:                  "",
		"EHLO x\r\nPUT /a HTTP/1.1\r\nRSET\r\n": "EHLO x\r\n",
		commands:                                commands,
		"HELP GET\r\nGETX\r\n":                  "HELP GET\r\nGETX\r\n",
	} {
		client, server := net.Pipe()
		go func() {
			_, _ = io.WriteString(client, said) // what is not read fails with the end
			client.Close()
		}()
		c := newConn(server, spool.Origin{Via: spool.ViaTCP}, time.Minute)
		got, err := io.ReadAll(c)
		if string(got) != want || (said == want) != (err == nil) {
			t.Errorf("%q: the server has %q, %v, want %q", said, got, err, want)
		}
		c.Close()
	}
}
