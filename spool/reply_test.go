package spool_test

import (
	"strings"
	"testing"

	"postino/spool"
)

func TestCleanText(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"550 no\r\nsuch\tuser", "550 no  such user"},
		{"\x1b[31mred\x00\x7f", "?[31mred??"},
		{"caf\xe9", "caf?"},
		{"\u202egnp.exe", "?gnp.exe"},
		{strings.Repeat("é", 600), strings.Repeat("é", spool.MaxReplyText/2)},
	} {
		if got := spool.CleanText(tt.in); got != tt.want {
			t.Errorf("CleanText(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestReplyClass(t *testing.T) {
	for _, tt := range []struct {
		reply spool.Reply
		want  spool.Class
	}{
		{spool.Reply{Code: 250, Status: "2.0.0"}, spool.Success},
		{spool.Reply{Code: 550, Status: "5.1.1"}, spool.Permanent},
		{spool.Reply{Code: 535, Status: "4.7.8"}, spool.Temporary}, // a wrong password never fails mail
		{spool.Reply{}, spool.Temporary},
		{spool.Reply{Code: 550, Status: "junk"}, spool.Temporary},
	} {
		if got := tt.reply.Class(); got != tt.want {
			t.Errorf("%v: class %d, want %d", tt.reply, got, tt.want)
		}
	}
}

func FuzzID(f *testing.F) {
	f.Add("000649B2A1C3D4E5")
	f.Add("0000000000000000")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := spool.ParseID(s)
		if err != nil {
			if id != 0 {
				t.Fatalf("ParseID(%q) = %s with %v", s, id, err)
			}
			return
		}
		if id.String() != strings.ToUpper(s) {
			t.Fatalf("ParseID(%q) = %s", s, id)
		}
	})
}
