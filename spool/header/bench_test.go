package header

import (
	"io"
	"strings"
	"testing"
)

func BenchmarkBody(b *testing.B) {
	for name, line := range map[string]string{"LF": strings.Repeat("x", 72) + "\n", "CRLF": strings.Repeat("x", 72) + "\r\n"} {
		in := "A: b\n\n" + strings.Repeat(line, 1<<14)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				_, r, err := Read(strings.NewReader(in), Options{DotEnds: true})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
