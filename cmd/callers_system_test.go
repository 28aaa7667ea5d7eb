package cmd_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"postino/delivery/relay/relaytest"
	"postino/delivery/relay/servertest"
	"postino/spool"
	"postino/spool/spooltest"
)

// asInstalled has a script run where the system has our sendmail and the box's
// spool in their usual places, and nothing of its own in /run and /var/spool. The
// environment tells sendmail nothing: most callers here clear it anyway.
func (b *box) asInstalled(script string, args ...string) *exec.Cmd {
	b.t.Helper()
	cmd := b.inNamespace(`
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/spool
mkdir /var/spool/postino
mount --bind "$1" /var/spool/postino
shift
`+script, append([]string{b.spool}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C", "TZ=UTC"}
	return cmd
}

// background starts a caller that goes on until the test ends, and returns what
// it says.
func (b *box) background(cmd *exec.Cmd) *lines {
	b.t.Helper()
	said := newLines()
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = cmd.Process.Kill() // and with the first process of its namespace all others
		_ = cmd.Wait()
		if b.t.Failed() {
			b.t.Logf("%s said:\n%s", cmd.Args, said)
		}
	})
	return said
}

// at's daemon runs a job of a user's, and mails what it printed as that user.
func TestAtDaemonArrives(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	at, atd := needs(t, "at", "at"), needs(t, "atd", "at")
	upAndDown(t, relaytest.Options{}, func(t *testing.T, b *trial) {
		b.background(b.asInstalled(`
mount --bind /dev/null /etc/at.deny
cd /var/spool
mkdir -p cron/atjobs cron/atspool
touch cron/atjobs/.SEQ
chmod 600 cron/atjobs/.SEQ
chown -R daemon:daemon cron/atjobs cron/atspool
chmod 1770 cron/atjobs cron/atspool
cd /
echo 'printf "from the job\n.\n\303\274\n"; exit 3' | setpriv --reuid=65534 --regid=65534 --clear-groups "$1" now
exec "$2" -f
`, at, atd))
		wanted{
			from: "nobody@web.test", to: "nobody@web.test",
			header: map[string]string{"Subject": "Output from your job        1", "To": "nobody@web.test"},
			body:   "from the job\r\n.\r\nü\r\n",
		}.check(t, b.arrived(1)[0])
		if tr := b.trace("Output from your job"); tr.UID != nobodyUID {
			t.Errorf("submitted by uid %d, want %d", tr.UID, nobodyUID)
		}
	})
}

// sudo tells the administrator of a command that it refused, and tells the user
// nothing of what its mailer says.
func TestSudoArrives(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	sudo := needs(t, "sudo", "sudo")
	upAndDown(t, relaytest.Options{}, func(t *testing.T, b *trial) {
		sudoers := filepath.Join(b.dir, "sudoers")
		rules := "Defaults !authenticate, mail_no_perms, mailto=\"root\", mailsub=\"refused on a host\"\nnobody ALL = /bin/true\n"
		if err := os.WriteFile(sudoers, []byte(rules), 0o440); err != nil {
			t.Fatal(err)
		}
		// The mailer outlives sudo, so the script has to outlive it as well.
		said := b.background(b.asInstalled(`
mount --bind "$1" /etc/sudoers
status=0
setpriv --reuid=65534 --regid=65534 --clear-groups "$2" -n /usr/bin/id -u || status=$?
echo "ended with $status"
exec sleep infinity
`, sudoers, sudo))
		said.await(t, "ended with 1")
		m := b.arrived(1)[0]
		_, body := headerAndBody(t, m.Data)
		if !strings.HasSuffix(body, " : nobody : command not allowed ; PWD=/ ; USER=root ; COMMAND=/usr/bin/id -u\r\n\r\n") {
			t.Errorf("body %q", body)
		}
		wanted{
			from: "nobody@web.test", to: "root@web.test",
			header: map[string]string{"From": "nobody@web.test", "To": "root@web.test", "Auto-Submitted": "auto-generated", "Subject": "refused on a host"},
			body:   body,
		}.check(t, m)
		if text := said.String(); strings.Contains(text, "sendmail") || strings.Contains(text, "postino") {
			t.Errorf("the user reads of the mailer: %s", text)
		}
	})
}

// logwatch writes a To field for each address, and its report without "-i".
func TestLogwatchArrives(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	logwatch := needs(t, "logwatch", "logwatch")
	upAndDown(t, relaytest.Options{}, func(t *testing.T, b *trial) {
		logs := filepath.Join(b.dir, "logs")
		if err := os.Mkdir(logs, 0o755); err != nil {
			t.Fatal(err)
		}
		line := "Nov 22 03:04:05 web sshd[12]: Accepted publickey for zoe from 192.0.2.7 port 22 ssh2\n"
		if err := os.WriteFile(filepath.Join(logs, "auth.log"), []byte(line), 0o644); err != nil {
			t.Fatal(err)
		}
		// A logwatch tells of another one's files in /tmp.
		b.succeed(b.asInstalled(`mount --bind "$1" /tmp; shift; exec "$@"`, logs, logwatch, "--output", "mail",
			"--mailto", "alice@example.org root bob@example.org", "--hostname", "web", "--range", "all", "--service", "sshd", "--logdir", "/tmp"))
		m := b.arrived(1)[0]
		head, body := headerAndBody(t, m.Data)
		if !strings.Contains(body, "       192.0.2.7: 1 Time\r\n") || !strings.Contains(body, "\r\n ###################### Logwatch End ######################### \r\n") {
			t.Errorf("body %q", body)
		}
		for _, to := range []string{"alice@example.org", "root@web.test", "bob@example.org"} {
			if !strings.Contains(head, "To: "+to+"\r\n") {
				t.Errorf("no field To: %s in %s", to, head)
			}
		}
		wanted{
			from: "root@web.test", to: "alice@example.org root@web.test bob@example.org",
			header: map[string]string{"From": "root@web.test", "Subject": "Logwatch for web (Linux)", "Precedence": "bulk"},
			body:   body,
		}.check(t, m)
	})
}

// smartd's own script calls what Debian gives it to call, which calls mail -s.
func TestSmartdsWarningArrives(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	mailx := needs(t, "bsd-mailx", "bsd-mailx") // one of several that may be /usr/bin/mail
	const script = "/usr/share/smartmontools/smartd_warning.sh"
	if _, err := os.Stat(script); err != nil {
		servertest.Missing(t, "%v: apt-get install smartmontools", err)
	}
	upAndDown(t, relaytest.Options{}, func(t *testing.T, b *trial) {
		cmd := b.asInstalled(`mount --bind "$1" /usr/bin/mail; exec "$2"`, mailx, script)
		cmd.Env = append(cmd.Env, "SMARTD_MAILER=/usr/share/smartmontools/smartd-runner", "SMARTD_ADDRESS=root",
			"SMARTD_FAILTYPE=Health", "SMARTD_PREVCNT=0", "SMARTD_NEXTDAYS=1",
			"SMARTD_MESSAGE=Device: /dev/sda, FAILED SMART self-check. BACK UP DATA NOW!", "SMARTD_DEVICEINFO=A disk, S/N:4711")
		b.succeed(cmd)
		m := b.arrived(1)[0]
		head, body := headerAndBody(t, m.Data)
		if !strings.Contains(body, "\r\n\r\nDevice: /dev/sda, FAILED SMART self-check. BACK UP DATA NOW!\r\n\r\n") || !strings.Contains(body, "Another message will be sent in 24 hours") {
			t.Errorf("body %q", body)
		}
		if !strings.HasPrefix(value(t, head, "Subject"), "SMART error (Health) detected on host: ") {
			t.Errorf("header %s", head)
		}
		wanted{from: "root@web.test", to: "root@web.test", header: map[string]string{"To": "root@web.test"}, body: body}.check(t, m)
	})
}

// Calls of programs that Debian 12 has not (cronie and its anacron), that need
// disks or intruders (mdadm, fail2ban) or more patience than a test has (busybox
// crond waits for the minute to end). They are not run: their calls are replayed
// with a message of their kind, busybox crond's as it was recorded.
func TestReplayedCallsArrive(t *testing.T) {
	t.Parallel()
	needsRoot(t) // as whom these programs call
	for _, tt := range []struct {
		name, stdin string
		args        []string
		want        wanted
	}{
		{
			name: "cronie", args: []string{"-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "root"},
			stdin: "From: \"(Cron Daemon)\" <root>\nTo: root, alice@example.org\nSubject: Cron <root@web> backup\nMIME-Version: 1.0\n" +
				"Content-Type: text/plain; charset=UTF-8\nAuto-Submitted: auto-generated\nPrecedence: bulk\nX-Cron-Env: <LANG=en_US.UTF-8>\nX-Cron-Env: <USER=root>\n\nbusy\n.\nünd\n",
			want: wanted{
				from: "root@web.test", to: "root@web.test alice@example.org", body: "busy\r\n.\r\nünd\r\n",
				header: map[string]string{"From": `"(Cron Daemon)" <root@web.test>`, "To": "root@web.test, alice@example.org", "Subject": "Cron <root@web> backup"},
			},
		},
		{
			name: "cronie 1.7.0, whose sender is nobody", args: []string{"-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "<>"},
			stdin: "From: \"(Cron Daemon)\" <root>\nTo: root\nSubject: Cron <root@web> backup\n\nbusy\n",
			want:  wanted{from: "", to: "root@web.test", body: "busy\r\n", header: map[string]string{"From": `"(Cron Daemon)" <root@web.test>`}},
		},
		{
			name: "busybox crond 1.35.0, as recorded", args: []string{"-ti"},
			stdin: "To: root\nSubject: cron: printf \"busy\\n.\\nend\\n\"\n\nbusy\n.\nend\n",
			want: wanted{
				from: "root@web.test", to: "root@web.test", body: "busy\r\n.\r\nend\r\n",
				header: map[string]string{"To": "root@web.test", "Subject": `cron: printf "busy\n.\nend\n"`},
			},
		},
		{
			name: "anacron", args: []string{"-FAnacron", "-odi", "root"},
			stdin: "From: Anacron <root>\nTo: root\nContent-Type: text/plain; charset=\"UTF-8\"\nSubject: Anacron job 'cron.daily' on web\n\n/etc/cron.daily/backup:\n\nbusy\n",
			want: wanted{
				from: "root@web.test", to: "root@web.test", body: "/etc/cron.daily/backup:\r\n\r\nbusy\r\n",
				header: map[string]string{"From": "Anacron <root@web.test>", "Subject": "Anacron job 'cron.daily' on web"},
			},
		},
		{
			name: "mdadm --monitor", args: []string{"-t"},
			stdin: "From: mdadm monitoring <root>\nTo: root\nSubject: DegradedArray event on /dev/md0:web\n\n" +
				"This is an automatically generated mail message from mdadm\nrunning on web\n\nA DegradedArray event had been detected on md device /dev/md0.\n\n" +
				"Faithfully yours, etc.\n\nP.S. The /proc/mdstat file currently contains the following:\n\nPersonalities : [raid1] \nmd0 : active raid1 sda1[0]\n",
			want: wanted{
				from: "root@web.test", to: "root@web.test",
				header: map[string]string{"From": "mdadm monitoring <root@web.test>", "To": "root@web.test", "Subject": "DegradedArray event on /dev/md0:web"},
				body: "This is an automatically generated mail message from mdadm\r\nrunning on web\r\n\r\nA DegradedArray event had been detected on md device /dev/md0.\r\n\r\n" +
					"Faithfully yours, etc.\r\n\r\nP.S. The /proc/mdstat file currently contains the following:\r\n\r\nPersonalities : [raid1] \r\nmd0 : active raid1 sda1[0]\r\n",
			},
		},
		{
			name: "fail2ban, without -i", args: []string{"-f", "fail2ban", "root"},
			stdin: "Subject: [Fail2Ban] sshd: banned 192.0.2.7 from web\nDate: Sun, 22 Nov 2026 10:00:00 +0000\nFrom: Fail2Ban <fail2ban>\nTo: root\n\nHi,\n..\nbanned\n.\nafter the end\n",
			want: wanted{
				from: "fail2ban@web.test", to: "root@web.test", body: "Hi,\r\n..\r\nbanned\r\n",
				header: map[string]string{"From": "Fail2Ban <fail2ban@web.test>", "Date": "Sun, 22 Nov 2026 10:00:00 +0000"},
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			upAndDown(t, relaytest.Options{}, func(t *testing.T, b *trial) {
				b.sendmail(tt.stdin, tt.args...)
				tt.want.check(t, b.arrived(1)[0])
			})
		})
	}
}

// check_mailq, run by an ordinary user, counts what waits and tells whether that
// is too much.
func TestCheckMailqCounts(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	const plugin = "/usr/lib/nagios/plugins/check_mailq"
	if _, err := os.Stat(plugin); err != nil {
		servertest.Missing(t, "%v: apt-get install monitoring-plugins-standard", err)
	}
	needs(t, "mailq", "postfix") // it is a link to the sendmail that is ours here
	b := newBox(t, relayTo(servertest.FreePort(t))+"[retry]\nfirst = \"1h\"\nmax = \"1h\"\n")
	checkAs := func(uid int) result {
		t.Helper()
		return b.run(b.asInstalled(`
mount --bind "$1" /usr/local/sbin
exec setpriv --reuid="$2" --regid="$2" --clear-groups "$3" -M postfix -w 2 -c 4 -t 180
`, filepath.Dir(program("postino")), fmt.Sprint(uid), plugin))
	}
	runner := b.start()
	for n, want := range []result{
		{0, "OK: postfix mailq reports queue is empty|unsent=0;2;4;0\n", ""},
		{0, "OK: postfix mailq (1) is below threshold (2/4)|unsent=1;2;4;0\n", ""},
		{1, "WARNING: postfix mailq is 2 (threshold w = 2)|unsent=2;2;4;0\n", ""},
		{1, "WARNING: postfix mailq is 3 (threshold w = 2)|unsent=3;2;4;0\n", ""},
		{2, "CRITICAL: postfix mailq is 4 (threshold c = 4)|unsent=4;2;4;0\n", ""},
	} {
		if n > 0 {
			b.sendmail("Subject: waits\n\nhi\n", "alice@example.org")
			b.log.awaitN(t, n, "msg=attempt", "status=deferred")
		}
		for _, uid := range []int{0, nobodyUID} {
			if got := checkAs(uid); got != want {
				t.Errorf("%d messages, uid %d: %+v, want %+v", n, uid, got, want)
			}
		}
	}
	runner.stop()
	b.sendmail("Subject: waits for a runner\n\nhi\n", "alice@example.org")
	if got, want := checkAs(0), (result{2, "CRITICAL: postfix mailq is 5 (threshold c = 4)|unsent=5;2;4;0\n", ""}); got != want {
		t.Errorf("runner down: %+v, want %+v", got, want)
	}
	// Who may not read the spool learns that the runner is away, which is worse.
	got := checkAs(nobodyUID)
	if got.code != 2 || got.out != "CRITICAL: Error code 69 returned from /usr/bin/mailq\n" || !strings.Contains(got.err, "the runner is not running") {
		t.Errorf("runner down: %+v, want CRITICAL and what to do", got)
	}
}

// However long the queue is, all of it is listed, to whoever asks.
func TestTenThousandMessagesAreListed(t *testing.T) {
	t.Parallel()
	const n = 10_000
	b := newBox(t, "mode = \"hold\"\n"+relayTo(servertest.FreePort(t)))
	fill(t, b.spool, n)
	check := func(state string) {
		t.Helper()
		seen := make(map[string]bool, n)
		for _, m := range b.queue() {
			for _, r := range m.Recipients {
				seen[m.ID+" "+r.Address] = true
			}
		}
		if len(seen) != n {
			t.Errorf("%s: queue --json has %d messages, want %d", state, len(seen), n)
		}
		b.checkMailq(state, seen)
	}
	check("runner down")
	b.start()
	check("runner up")
}

// fill puts n messages into a spool that nobody has. Many at a time, since then
// they share their commits.
func fill(t testing.TB, dir string, n int) {
	t.Helper()
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	messages := make([]*spool.Message, n)
	for i := range messages {
		messages[i] = spooltest.Message(t, fmt.Sprintf("r%d@example.org", i))
	}
	const writers = 100
	var all sync.WaitGroup
	for some := range slices.Chunk(messages, n/writers) {
		all.Go(func() {
			for _, m := range some {
				if err := put(s, m); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// put stores a message.
func put(s *spool.Spool, m *spool.Message) error {
	d, err := s.NewDraft(0)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(d, "Subject: one of many\r\n\r\nhi\r\n"); err != nil {
		return err
	}
	_, err = d.Commit(m)
	return err
}

// checkMailq wants these messages in mailq, each once. A key has the ID and the
// recipient.
func (b *box) checkMailq(state string, want map[string]bool) {
	b.t.Helper()
	r := b.run(b.command("", program("mailq")))
	if r.code != 0 || r.err != "" {
		b.t.Fatalf("%s: mailq ended with %d\nstderr: %s", state, r.code, r.err)
	}
	text := strings.TrimSuffix(r.out, "\n")
	last := text[strings.LastIndexByte(text, '\n')+1:]
	if !strings.HasPrefix(last, "-- ") || !strings.HasSuffix(last, fmt.Sprintf(" Kbytes in %d Requests.", len(want))) {
		b.t.Errorf("%s: the last line of mailq is %q", state, last)
	}
	listed, id := 0, ""
	for line := range strings.Lines(text) {
		switch f := strings.Fields(line); {
		case len(f) == 0 || line[0] == '-':
		case line[0] != ' ':
			id = strings.TrimRight(f[0], "!*")
		case !want[id+" "+f[0]]:
			b.t.Fatalf("%s: mailq has %s to %s, which the queue has not", state, id, f[0])
		default:
			listed++
		}
	}
	if listed != len(want) {
		b.t.Errorf("%s: mailq lists %d messages, want %d", state, listed, len(want))
	}
}
