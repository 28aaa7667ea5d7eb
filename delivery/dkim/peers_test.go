package dkim

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postino/spool/standstill"
)

// patience is how long a test waits for a program to end, so that a broken one ends the
// test instead of hanging it. No stall of the machine comes near it.
const patience = 2 * time.Minute

// needs is the path of a program; with CI=true it has to be there.
func needs(t *testing.T, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%v: apt-get install %s", err, pkg)
	}
	t.Skipf("%v: apt-get install %s", err, pkg)
	return ""
}

// letters are messages as they are sent, of each kind that verifiers stumble over.
var letters = map[string]string{
	"plain":      head + "\r\nhello\r\n",
	"8-bit":      "X: \xfc\r\n" + head + "\r\nh\xe4llo\r\n",
	"long lines": "X: " + strings.Repeat("x ", 2000) + "\r\n" + head + "\r\n" + strings.Repeat("y", 20_000) + "\r\n",
	"folded":     "Cc: a@example.net,\r\n\tb@example.net\r\n" + head + "\r\n  spaces \t here  \r\n\r\n\r\n",
	"empty body": head + "\r\n",
	"report": "From: Mail system <MAILER-DAEMON@example.org>\r\nTo: ann@example.org\r\nSubject: failed\r\nDate: Mon, 2 Nov 2026 10:00:00 +0000\r\n" +
		"Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=x\r\n\r\n--x\r\n\r\n--x--\r\n",
}

// signedLetters are the letters in files, with a signature of each key; behind each
// is one that was changed after it was signed. The names begin with "good" and "bad".
func signedLetters(t *testing.T, keys []*Key) (files []string) {
	t.Helper()
	dir := t.TempDir()
	for name, letter := range letters {
		fields, err := Sign(keys, strings.NewReader(letter))
		if err != nil {
			t.Fatal(err)
		}
		for prefix, content := range map[string]string{"good ": letter, "bad ": strings.Replace(letter, "10:00", "11:00", 1)} {
			file := filepath.Join(dir, strings.ReplaceAll(prefix+name, " ", "-"))
			if err := os.WriteFile(file, append(bytes.Clone(fields), content...), 0o600); err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
	}
	return files
}

// OpenDKIM finds our signatures good, and those of messages that were changed bad.
func TestOpenDKIMVerifies(t *testing.T) {
	t.Parallel()
	program := needs(t, "opendkim", "opendkim")
	for _, key := range testKeys(t) {
		record, err := key.Record()
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		records, conf := filepath.Join(dir, "records"), filepath.Join(dir, "conf")
		for path, text := range map[string]string{
			records: key.Name() + " " + record + "\n",
			conf:    "Mode v\nTestDNSData file:" + records + "\n",
		} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, file := range signedLetters(t, []*Key{key}) {
			out, err := standstill.Command(t, patience, program, "-x", conf, "-t", file).CombinedOutput()
			if good := strings.HasPrefix(filepath.Base(file), "good"); good != (err == nil && strings.Contains(string(out), "verification (s="+key.Selector+", d=example.org") && strings.Contains(string(out), "succeeded")) {
				t.Errorf("%s, %s: %v\n%s", key.Selector, filepath.Base(file), err, out)
			}
		}
	}
}

// So does dkimpy, which Debian's Python has.
func TestDKIMPyVerifies(t *testing.T) {
	t.Parallel()
	python := needs(t, "/usr/bin/python3", "python3") // another may not have Debian's modules
	if out, err := standstill.Command(t, patience, python, "-c", "import dkim").CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%v: apt-get install python3-dkim\n%s", err, out)
		}
		t.Skip("apt-get install python3-dkim")
	}
	const script = `import dkim, sys
records = dict(zip(sys.argv[1::2], sys.argv[2::2]))
for line in sys.stdin:
    name = line.rstrip("\n")
    d = dkim.DKIM(open(name, "rb").read())
    results = []
    for i in range(2):
        try: results.append(d.verify(i, dnsfunc=lambda n, timeout=5: records[n.decode().rstrip(".")].encode()))
        except dkim.DKIMException: results.append(False)
    print(name, results)
`
	keys := testKeys(t)
	args := []string{"-c", script}
	for _, key := range keys {
		record, err := key.Record()
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, key.Name(), record)
	}
	files := signedLetters(t, keys)
	cmd := standstill.Command(t, patience, python, args...)
	cmd.Stdin = strings.NewReader(strings.Join(files, "\n"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, file := range files {
		want := "[False, False]"
		if strings.HasPrefix(filepath.Base(file), "good") {
			want = "[True, True]"
		}
		if !strings.Contains(string(out), file+" "+want) {
			t.Errorf("%s: want %s of\n%s", filepath.Base(file), want, out)
		}
	}
}
