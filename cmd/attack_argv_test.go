package cmd_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// hostileWords are what attackers have put on a command line of sendmail: options that
// made other mailers read, write or run something, names with shell and SMTP in them.
// EVIL is a directory that nothing may look into.
var hostileWords = words("-XEVIL/log.php -X|EVIL/log -CEVIL/cf -C|EVIL/cf -OQueueDirectory=EVIL -O|RunAsUser=root -oQEVIL/q -oAEVIL/aliases " +
	"-OLogLevel=99 -oMrx -pEVIL/p -LEVIL/tag -BEVIL -hEVIL -be -bt -bH -bp -bi -bv -bV -qff -q -d99 -DEVIL=1 -MEVIL/m -bmx -bs -bd " +
	"-f|EVIL/from -fa@b -F|EVIL/name -N|never,EVIL -R|EVIL -V|EVIL -V|a+00b -t -i -v -G -Ac -AEVIL --config=EVIL/c --spool=EVIL/s --|-XEVIL/y " +
	"alice@example.org EVIL/file |EVIL/program :include:EVIL/list ${run{EVIL/x}}@localhost root+${run{x}} \"a|b\"@c.test -oi@x.test a!b!c u%d@r @a,@b:c@d.test")

// With any words in any order nothing is opened, made or run that they name, nothing by
// a relative name, and nothing else than without them.
func TestNoWordNamesAFile(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	strace := needs(t, "strace", "strace")
	b := newBox(t, "mode = \"hold\"\n")
	b.giveTo(spoolUID)
	b.start()
	evil := filepath.Join(b.dir, "evil")
	here := filepath.Join(b.dir, "here")
	for _, dir := range []string{evil, here} {
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"cf", "q", "aliases", "list", "file", "from", "postino.toml", "resolv.conf", ".env", "postino", "sendmail", "x"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\ntouch "+evil+"/ran\n"), 0o777); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := listing(t, evil)
	random := rand.New(rand.NewPCG(1, 2))
	const runs = 40
	for i := range runs {
		var args []string
		for range 1 + random.IntN(5) {
			word := hostileWords[random.IntN(len(hostileWords))]
			args = append(args, strings.Split(strings.ReplaceAll(word, "EVIL", evil), "|")...)
		}
		log := filepath.Join(b.dir, fmt.Sprintf("trace%d", i))
		if err := os.WriteFile(log, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(log, 0o666); err != nil {
			t.Fatal(err)
		}
		cmd := b.command("To: bob@example.org\n\nhi\n", strace, append([]string{"-f", "-o", log, "-e", "trace=%file", "--", program("sendmail")}, args...)...)
		cmd.Dir = here
		cmd.Env = append(cmd.Env, "HOME="+evil, "TMPDIR="+evil, "PATH=.:"+evil, "LOCALDOMAIN=evil", "MAILRC="+evil+"/rc")
		r := b.run(as(nobodyUID, cmd))
		if r.code < 0 || r.code > 78 || strings.Contains(r.err, "goroutine") {
			t.Errorf("sendmail %q: status %d, %q", args, r.code, r.err)
		}
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "execve(") {
			t.Fatalf("strace saw nothing: %s", r.err)
		}
		checkTrace(t, args, string(text), evil)
	}
	if after := listing(t, evil); after != before {
		t.Errorf("%s has %s, and had %s", evil, after, before)
	}
}

var (
	relativeName = regexp.MustCompile(`AT_FDCWD, "[^/"][^"]*"|^\d+ +(?:open|stat|access|readlink|execve)\("[^/"][^"]*"`)
	executed     = regexp.MustCompile(`execve\("([^"]*)"`)
)

// checkTrace looks at the system calls that name a file.
func checkTrace(t testing.TB, args []string, trace, evil string) {
	t.Helper()
	for line := range strings.Lines(trace) {
		name, what, _ := strings.Cut(line, "(")
		if strings.HasSuffix(name, "execve") {
			// The arguments are there too; what is run is all that counts.
			if run := executed.FindStringSubmatch(line); run != nil && filepath.Dir(run[1]) != filepath.Dir(program("x")) {
				t.Errorf("sendmail %q runs %s", args, line)
			}
			continue
		}
		if strings.Contains(what, evil) {
			t.Errorf("sendmail %q touches %s", args, line)
		}
		if relativeName.MatchString(line) {
			t.Errorf("sendmail %q looks in the current directory: %s", args, line)
		}
	}
}

func listing(t testing.TB, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(entries)
}

// What the caller's environment says changes neither the envelope nor the content.
func TestEnvironmentIsNotPartOfTheMail(t *testing.T) {
	t.Parallel()
	b := newBox(t, "mode = \"hold\"\n")
	b.start()
	const message = "From: a@b.test\nDate: Thu, 1 Jan 2026 00:00:00 +0000\nMessage-ID: <1@b.test>\nSubject: same\n\nhi\n"
	for _, hostile := range []string{"", "GODEBUG=netdns=go,x=y", "GOTRACEBACK=crash", "GOGC=1", "GOMAXPROCS=64", "GOMEMLIMIT=1",
		"LD_PRELOAD=/tmp/evil.so", "TZ=:/etc/shadow", "LC_ALL=xx_YY.UTF-99", "HOME=/etc", "USER=root", "LOGNAME=root", "MAILUSER=root", "EMAIL=root@x.test",
		"QMAILUSER=root", "MAIL_CONFIG=/tmp", "POSTINO_CONFIG=/etc/shadow", "HOSTNAME=evil.test", "SMTP_AUTH_PASSWORD=x", strings.Repeat("X", 100_000) + "=1"} {
		cmd := b.command(message, b.front, "alice@example.org")
		if hostile != "" {
			cmd.Env = append([]string{"POSTINO_SPOOL=" + b.spool}, hostile)
		}
		b.succeed(cmd)
	}
	list := b.queue()
	if len(list) != 20 {
		t.Fatalf("%d messages", len(list))
	}
	for _, m := range list {
		if m.Sender != list[0].Sender || m.Size != list[0].Size || len(m.Recipients) != 1 || m.Recipients[0].Address != "alice@example.org" {
			t.Errorf("with one of them it is %+v, without %+v", m, list[0])
		}
	}
}

// However little a caller lets the front end have, status 0 means that the message is
// stored, and anything else that it is not.
func TestNarrowLimitsNeverLie(t *testing.T) {
	t.Parallel()
	b := newBox(t, "")
	b.start().stop()
	body := strings.Repeat("0123456789abcdef\n", 100_000) // more than is kept in memory
	for _, limit := range []string{"-n 3", "-n 4", "-n 5", "-n 6", "-n 7", "-n 8", "-n 10", "-f 0", "-f 1", "-f 2000", "-f 5000",
		"-v 50000", "-v 200000", "-v 2000000", "-s 8", "-s 64", "-t 1", "-u 1", "-d 1000", "-c 0"} {
		for _, text := range []string{"Subject: small\n\nhi\n", "Subject: large\n\n" + body} {
			before := b.drops()
			r := b.run(b.command(text, "/bin/sh", "-c", "ulimit "+limit+" || exit 99; exec \"$0\" \"$@\"", b.front, "alice@example.org"))
			if r.code == 99 {
				continue // this shell has no such limit
			}
			if stored := b.drops() - before; stored > 1 || (stored == 1) != (r.code == 0) {
				t.Errorf("ulimit %s: status %d, %d stored, %.300q", limit, r.code, stored, r.err)
			}
		}
	}
}

// A caller who is slow, or never done, holds none of the runner's places.
func TestSlowInputHoldsNoPlace(t *testing.T) {
	t.Parallel()
	s, b := plainRelay(t)
	b.start()
	for range 250 { // more than a uid may have sessions
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := b.command("", b.front, "never@example.org")
		cmd.Stdin = r
		if os.Geteuid() == 0 {
			as(nobodyUID, cmd)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		r.Close()
		t.Cleanup(func() { w.Close(); cmd.Process.Kill(); cmd.Wait() })
		if _, err := io.WriteString(w, "Subject: slow\n\nh"); err != nil {
			t.Fatal(err)
		}
	}
	call := b.command("Subject: quick\n\nhi\n", b.front, "alice@example.org")
	if os.Geteuid() == 0 {
		as(nobodyUID, call)
	}
	b.succeed(call)
	b.log.await(t, "msg=accepted", "via=socket")
	b.log.await(t, "msg=finished")
	if len(s.Messages()) != 1 {
		t.Errorf("%d messages arrived, want the quick one", len(s.Messages()))
	}
}

// Many callers at a time, as when every crontab has the same minute: each is told the
// truth, each message is stored once, and the runner stays small. The full size is
// POSTINO_TEST_STORM=10000, 500 at a time.
func TestStormOfCallers(t *testing.T) {
	t.Parallel()
	b := newBox(t, "mode = \"hold\"\n")
	r := b.start()
	storm, together := 300, 100
	if size := os.Getenv("POSTINO_TEST_STORM"); size != "" {
		n, err := strconv.Atoi(size)
		if err != nil {
			t.Fatal(err)
		}
		storm, together = n, 500
	}
	var callers sync.WaitGroup
	work := make(chan int)
	for range together {
		callers.Go(func() {
			for i := range work {
				cmd := b.command(fmt.Sprintf("Subject: storm %d\n\nhi\n", i), b.front, fmt.Sprintf("u%d@example.org", i))
				if os.Geteuid() == 0 && i%2 == 1 {
					as(nobodyUID, cmd)
				}
				var errs strings.Builder
				cmd.Stderr = &errs
				if err := cmd.Run(); err != nil {
					t.Errorf("caller %d: %v, %s", i, err, errs.String())
				}
			}
		})
	}
	for i := range storm {
		work <- i
	}
	close(work)
	callers.Wait()
	poll(t, "an empty drop/", func() bool { return b.drops() == 0 })
	seen := make(map[string]int)
	for _, m := range b.queue() {
		seen[m.Recipients[0].Address]++
	}
	for to, n := range seen {
		if n != 1 {
			t.Errorf("%s has %d messages", to, n)
		}
	}
	if len(seen) != storm {
		t.Errorf("%d of %d messages are stored", len(seen), storm)
	}
	const most = 200 << 20
	if got := r.memory(t, "VmHWM:"); got > most {
		t.Errorf("the runner took %d MiB", got>>20)
	}
	t.Logf("%d callers, %d at a time: the runner took %d MiB", storm, together, r.memory(t, "VmHWM:")>>20)
}
