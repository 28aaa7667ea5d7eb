package address

import "testing"

// What a template makes is an address, or nothing is made.
func TestFillMakesAnAddressOrNothing(t *testing.T) {
	for _, tt := range []struct{ template, from, want string }{
		{"{user}@example.com", "root@web", "root@example.com"},
		{"{user}.{hostname}@{hostname}.example", "a@b.test", "a.h.test@h.test.example"},
		{"noreply@example.com", "a@b.test", "noreply@example.com"},
		{"{user}@example.com", `"a b"@b.test`, `"a b"@example.com`},
		{"", "a@b.test", "a@b.test"},
		{"{user}", "a@b.test", "a@b.test"},
		{"x@{user}", `"a b"@b.test`, `"a b"@b.test`},
	} {
		from, err := Parse(tt.from)
		if err != nil {
			t.Fatal(err)
		}
		if got := Fill(tt.template, from, "h.test").String(); got != tt.want {
			t.Errorf("%s of %s: %s, want %s", tt.template, tt.from, got, tt.want)
		}
	}
}
