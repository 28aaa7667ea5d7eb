package cmd_test

import (
	"fmt"
	"strings"
	"testing"
)

// What the front end calls stored, the runner takes: it finds nothing in drop/ that is
// more than it may have. Held is taken, set aside is not.
func TestWhatIsAcceptedIsNeverSetAside(t *testing.T) {
	t.Parallel()
	_, b := plainRelay(t)
	b.start().stop()
	const limit = 1 << 20 // of a header section
	for _, tt := range []struct {
		name, in string
		args     []string
		code     int
	}{
		{"12,000 recipients", "Subject: 12000\n\nhi\n", addressList(12_000), 0},
		{"100,001 recipients", "Subject: 100001\n\nhi\n", addressList(100_001), 65},
		{"each recipient in three ways", "Subject: thrice\n\nhi\n", []string{strings.Repeat("u", 9) + threeWays(300)}, 0},
		{"a section that fits", "A: " + strings.Repeat("x", limit-500) + "\n\nhi\n", []string{"alice@example.org"}, 0},
		{"a section that fits until From is added", "A: " + strings.Repeat("x", limit-10) + "\n\nhi\n", []string{"alice@example.org"}, 65},
		{"a long name", "A: " + strings.Repeat("x", limit-60_000) + "\n\nhi\n", []string{"-F", strings.Repeat("ü", 30_000), "alice@example.org"}, 65},
		{"19,999 fields", strings.Repeat("A: b\n", 19_999) + "\nhi\n", []string{"alice@example.org"}, 0},
		{"20,000 fields", strings.Repeat("A: b\n", 20_000) + "\nhi\n", []string{"alice@example.org"}, 65},
		{"1,000,000 fields", strings.Repeat("A: b\n", 1_000_000) + "\nhi\n", []string{"alice@example.org"}, 65},
		{"the longest identifier", "Subject: id\n\nhi\n", []string{"-V", strings.Repeat("=", 100), "alice@example.org"}, 0},
	} {
		r := b.run(b.command(tt.in, b.front, tt.args...))
		if r.code != tt.code || r.out != "" || (r.err == "") != (tt.code == 0) {
			t.Errorf("%s: status %d, %q, %.200q; want %d", tt.name, r.code, r.out, r.err, tt.code)
		}
	}
	waiting := b.drops()
	b.start()
	b.log.awaitN(t, waiting, "msg=accepted")
	if waiting != 5 {
		t.Errorf("%d files in drop/, want 5", waiting)
	}
	// A file goes after its message is accepted; what is set aside stays.
	poll(t, "an empty drop/", func() bool { return b.drops() == 0 })
}

// addressList is so many addresses, in operands of a thousand.
func addressList(n int) []string {
	var operands []string
	for i := 0; i < n; i += 1000 {
		var b strings.Builder
		for j := i; j < min(i+1000, n); j++ {
			fmt.Fprintf(&b, ",u%d@x.test", j)
		}
		operands = append(operands, b.String()[1:])
	}
	return operands
}

// threeWays is a list of users, each bare, at localhost and at our own domain.
func threeWays(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ",u%d,u%[1]d@localhost,u%[1]d@web.test", i)
	}
	return b.String()
}
