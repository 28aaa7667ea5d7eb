package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSystemLogGetsOneCleanLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ text, want string }{
		{"no recipients", "no recipients"},
		{"a\n<0>kernel: b\x1b[2J\x00", "a?<0>kernel: b?[2J?"},
		{strings.Repeat("x", 10*maxLogLine), strings.Repeat("x", maxLogLine)},
		{"caf\xe9", "caf?"},
	} {
		syslog(path, severityError, tt.text)
		buf := make([]byte, 16<<10)
		n, err := l.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("<19>sendmail[%d]: uid=%d: %s", os.Getpid(), os.Getuid(), tt.want); string(buf[:n]) != want {
			t.Errorf("got %q, want %q", buf[:n], want)
		}
	}
	syslog(path+".missing", severityError, "nobody listens")
}

// What attackers of web forms try (-X, -C and the like) does nothing, and somebody
// should hear of it.
func TestIgnoredOptionsAreNamed(t *testing.T) {
	for args, want := range map[string]string{
		"-t -i -fa@b":            "",
		"-X/var/www/x.php -t":    `-X "/var/www/x.php"`,
		"-C /etc/shadow bob":     `-C "/etc/shadow"`,
		"-OQueueDirectory=/tmp":  `-O "QueueDirectory=/tmp"`,
		"-Nbogus -Rbad -Vé a@b":  `-N "bogus", -R "bad", -V "é"`,
		"-odb -oem -oi -Am -v a": "",
		"-ODeliveryMode=b a":     "",
		"-ORequireTLS=yes a":     "",
		"-ORequireTLS=1 a":       `-O "RequireTLS=1"`,
	} {
		o, err := parse(strings.Fields(args))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(o.ignored, ", "); got != want {
			t.Errorf("parse(%q) ignores %s, want %s", args, got, want)
		}
	}
}
