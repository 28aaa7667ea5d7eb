package handoff

import (
	"bufio"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestReadReply(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want reply
	}{
		{"220 hello\r\n", reply{220, "", "hello"}},
		{"250\r\n", reply{250, "", ""}},
		{"250 2.1.0\r\n", reply{250, "2.1.0", ""}},
		{"250-a\r\n250-b\r\n250 c\r\n", reply{250, "", "a b c"}},
		{"550-5.1.1 No\r\n550 5.1.1 such user\r\n", reply{550, "5.1.1", "No such user"}},
		{"550 4.1.1 class of another\r\n", reply{550, "", "4.1.1 class of another"}},
		{"550 5.1111.1 too long\r\n", reply{550, "", "5.1111.1 too long"}},
	} {
		got, err := readReply(bufio.NewReaderSize(strings.NewReader(tt.in), maxReplyLine))
		if got != tt.want || err != nil {
			t.Errorf("readReply(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
	}
}

// The law: what is read is one reply with a code of three digits and a printable
// text, no longer than promised, and it reads the same when it is written again.
func FuzzReply(f *testing.F) {
	f.Add("250-a\r\n250 b\r\n")
	f.Add("550 5.7.1 \x1b]0;x\a\r\n")
	f.Add("250 \xe2\x80\xae\xff\r\n")
	f.Fuzz(func(t *testing.T, in string) {
		r, err := readReply(bufio.NewReaderSize(strings.NewReader(in), maxReplyLine))
		if err != nil {
			if r != (reply{}) {
				t.Fatalf("readReply(%q) = %+v with error %v", in, r, err)
			}
			return
		}
		if r.code < 200 || r.code > 599 || len(r.text) > maxReplyText || !utf8.ValidString(r.text) {
			t.Fatalf("readReply(%q) = %+v", in, r)
		}
		for _, c := range r.text {
			if !unicode.IsPrint(c) {
				t.Fatalf("readReply(%q) has %q in its text", in, c)
			}
		}
		if r.status == "" && isStatus(strings.Fields(r.text + " x")[0]) {
			return // only now is it at the beginning of a line
		}
		again := strconv.Itoa(r.code) + " "
		if r.status != "" {
			again += r.status + " "
		}
		again += r.text + "\r\n"
		r2, err := readReply(bufio.NewReaderSize(strings.NewReader(again), maxReplyLine))
		if r2 != r || err != nil {
			t.Fatalf("%+v written as %q reads as %+v, %v", r, again, r2, err)
		}
	})
}
