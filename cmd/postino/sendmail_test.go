package main

import (
	"slices"
	"strings"
	"testing"
)

// The laws of sendmail's command line: an error is a usage error, operands behind
// "--" come out as they went in, and none of it depends on what stands there.
func FuzzParseSendmail(f *testing.F) {
	for _, line := range []string{"-bp", "-b p -t", "-tbp", "-q30m -v", "-C /etc/x -bi", "-oi -- -x", "-I", "-b", "--help", "-d0.1 -bv a", "-\xff"} {
		f.Add(line, "bob")
	}
	f.Fuzz(func(t *testing.T, line, operand string) {
		args := strings.Split(line, " ")
		o, err := parseSendmail(args)
		if err != nil {
			if exitStatus(err) != exUsage {
				t.Fatalf("%q: %v is no usage error", args, err)
			}
			return
		}
		if o.help || len(o.operands) > 0 || slices.Contains(args, "--") || slices.Contains(args, "--version") {
			return
		}
		again, err := parseSendmail(append(slices.Clone(args), "--", operand))
		if err != nil || again.mode != o.mode || !slices.Equal(again.operands, []string{operand}) {
			t.Fatalf("%q with operand %q: got %+v, %v", args, operand, again, err)
		}
	})
}
