package main

import (
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func ptr(s string) *string { return &s }

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		args string // separated by "|"
		want options
	}{
		{"a", options{operands: []string{"a"}}},
		{"-ti", options{fromHeader: true, keepDots: true}},
		{"-it|a|b", options{fromHeader: true, keepDots: true, operands: []string{"a", "b"}}},
		{"-tifx@y", options{fromHeader: true, keepDots: true, sender: ptr("x@y")}},
		{"-ti|-f|x@y|--|a", options{fromHeader: true, keepDots: true, sender: ptr("x@y"), operands: []string{"a"}}},
		{"-fa|-rb", options{sender: ptr("b")}},
		{"-ra|-f|b", options{sender: ptr("b")}},
		{"-f||a", options{sender: ptr(""), operands: []string{"a"}}},
		{"-f|-t", options{sender: ptr("-t")}},
		{"-F|A B|-FC D", options{name: ptr("C D")}},
		{"-oi", options{keepDots: true}},
		{"-oitrue", options{keepDots: true}},
		{"-o|i", options{keepDots: true}},
		{"-oit", options{keepDots: true, oit: true}},
		{"-tin|a", options{fromHeader: true, keepDots: true, noAliases: true, operands: []string{"a"}}},
		{"-oem|-odb|-om|-o7|-oMxx|-oA/etc/x", options{}},
		{"-N|never", options{notify: []string{"NEVER"}}},
		{"-Nsuccess,DELAY,success", options{notify: []string{"SUCCESS", "DELAY"}}},
		{"-Nnever,failure", options{}},
		{"-Nfailure,", options{}},
		{"-N|a\r\nRCPT TO:<x>", options{}},
		{"-R|hdrs", options{ret: "HDRS"}},
		{"-Rheaders", options{ret: "HDRS"}},
		{"-RFull", options{ret: "FULL"}},
		{"-Rx", options{}},
		{"-V|QQ 1+2", options{envelopeID: "QQ 1+2"}},
		{"-V|a\r\nRCPT TO:<x>", options{}},
		{"-Vé", options{}},
		{"-V|" + strings.Repeat("x", maxEnvelopeID), options{envelopeID: strings.Repeat("x", maxEnvelopeID)}},
		{"-O|RequireTLS=yes|-ORequireTLS=maybe", options{requireTLS: true}},
		{"-Orequiretls=YES|-OREQUIRETLS=no", options{}},
		{"-d0.1", options{debug: true}},
		{"-d|x", options{operands: []string{"x"}}},
		{"-q30m", options{elsewhere: true}},
		{"-q|x", options{elsewhere: true, operands: []string{"x"}}},
		{"-bm", options{}},
		{"-b|m", options{}},
		{"-bs|-bm", options{}},
		{"-bs", options{elsewhere: true, mode: "s"}},
		{"--|-X/a", options{operands: []string{"-X/a"}}},
		{"-bq|a", options{operands: []string{"a"}}},
		{"-b|q", options{}},
		{"-bqx", options{elsewhere: true, mode: "qx"}},
		{"-bm|-b|p", options{elsewhere: true, mode: "p"}},
		{"-bmx", options{elsewhere: true, mode: "mx"}},
		{"-tbs", options{elsewhere: true, mode: "s", fromHeader: true}},
		{"-I", options{elsewhere: true, mode: "i"}},
		{"-i|--help|-Z", options{help: true}},
		{"--version", options{version: true}},
		{"-f|--help", options{sender: ptr("--help")}},
	} {
		if tt.want.mode == "" && !tt.want.help && !tt.want.version {
			tt.want.mode = "m"
		}
		if tt.want.operands == nil && !tt.want.help && !tt.want.version {
			tt.want.operands = []string{}
		}
		got, err := parse(strings.Split(tt.args, "|"))
		got.ignored = nil // has a test of its own
		if !reflect.DeepEqual(got, tt.want) || err != nil {
			t.Errorf("parse(%q) = %+v, %v; want %+v", tt.args, got, err, tt.want)
		}
	}
}

func TestUsageErrorNamesTheWord(t *testing.T) {
	for args, word := range map[string]string{
		"-Z":      `"-Z"`,
		"-Mrm|a":  `"-M"`,
		"-tQ":     `"-Q"`,
		"-S":      `"-S"`,
		"-T3d":    `"-T"`,
		"-z|x":    `"-z"`,
		"-D|x":    `"-D"`,
		"-i\x1b":  `"-\x1b"`,
		"--usage": `"--usage"`,
		"-f":      "-f needs a value",
		"-tiF":    "-F needs a value",
		"-b":      "-b needs a value",
		"a|-f|b":  `"-f"`,
		"-":       `"-"`,
		"a|--":    `"--"`,

		"-V" + strings.Repeat("x", maxEnvelopeID+1): "-V: an identifier",
	} {
		_, err := parse(strings.Split(args, "|"))
		var e *exitError
		if !errors.As(err, &e) || e.code != exitUsage || !strings.Contains(err.Error(), word) {
			t.Errorf("parse(%q): %v; want a usage error with %s", args, err, word)
		}
	}
}

// The law: any arguments give options or a usage error. Operands are the last of
// the arguments and none looks like an option, unless "--" ended those; what goes
// to the wire is clean.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"-t\x00-i", "-f\x00\x00--\x00a", "-oi\x00-Nnever\x00a\x00-f", "-V\x00a\r\nb", "-bs\x00-q"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\x00")
		o, err := parse(args)
		if err != nil {
			var e *exitError
			if !errors.As(err, &e) || e.code != exitUsage || !reflect.DeepEqual(o, options{}) {
				t.Fatalf("parse(%q) = %+v, %v", args, o, err)
			}
			if strings.ContainsAny(e.text, "\r\n\x1b") {
				t.Fatalf("parse(%q): %q", args, e.text)
			}
			return
		}
		first := len(args) - len(o.operands)
		ended := slices.Contains(args[:first], "--")
		for i, a := range o.operands {
			if strings.HasPrefix(a, "-") && !ended || a != args[first+i] {
				t.Fatalf("parse(%q) has operands %q", args, o.operands)
			}
		}
		if hasControl(o.envelopeID) || len(o.envelopeID) > maxEnvelopeID {
			t.Fatalf("parse(%q) has ENVID %q", args, o.envelopeID)
		}
		for _, w := range o.notify {
			if w != "NEVER" && w != "SUCCESS" && w != "FAILURE" && w != "DELAY" || w == "NEVER" && len(o.notify) > 1 {
				t.Fatalf("parse(%q) has NOTIFY %q", args, o.notify)
			}
		}
		if o.ret != "" && o.ret != "FULL" && o.ret != "HDRS" {
			t.Fatalf("parse(%q) has RET %q", args, o.ret)
		}
	})
}

func TestManualPageHasEveryOption(t *testing.T) {
	page, err := os.ReadFile("../../man/sendmail.8")
	if err != nil {
		t.Fatal(err)
	}
	entries := map[string]bool{}
	for line := range strings.Lines(string(page)) {
		if words := strings.Fields(line); len(words) > 2 && words[0] == ".It" && words[1] == "Fl" {
			for i, w := range words[2:] {
				if words[i+1] == "Fl" {
					entries[w] = true
				}
			}
		}
	}
	for _, letter := range withValue + withAttached + withoutValue {
		if !entries[string(letter)] {
			t.Errorf("sendmail.8 has no entry for -%c", letter)
		}
	}
	for _, letter := range "DMQSTz" {
		if entries[string(letter)] {
			t.Errorf("sendmail.8 has an entry for -%c, which is refused", letter)
		}
	}
}
