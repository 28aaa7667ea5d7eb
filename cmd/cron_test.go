package cmd_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What Debian's cron 3.0pl1 writes to its mailer, and how it calls it.
const cronMail = `From: root (Cron Daemon)
To: root
Subject: Cron <root@web> run-parts /etc/cron.daily
MIME-Version: 1.0
Content-Type: text/plain; charset=UTF-8
Content-Transfer-Encoding: 8bit
X-Cron-Env: <MAILTO=root>
X-Cron-Env: <SHELL=/bin/sh>
X-Cron-Env: <HOME=/root>
X-Cron-Env: <PATH=/usr/bin:/bin>
X-Cron-Env: <LOGNAME=root>

/etc/cron.daily/backup:
.
disk gr` + "\xc3\xb6\xc3\x9fe unknown\n"

// Cron's mail is from and to bare names. They are completed, and the comment stays.
func TestCronsCallArrives(t *testing.T) {
	t.Parallel()
	s, b := plainRelay(t)
	b.start()
	cmd := b.command(cronMail, b.front, "-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root")
	cmd.Env = []string{"SHELL=/bin/sh", "HOME=/root", "PATH=/usr/bin:/bin", "PWD=/root", "LANG=C.UTF-8", "POSTINO_SPOOL=" + b.spool}
	b.succeed(cmd)
	b.log.await(t, "msg=finished")
	m := messageWith(t, s, "Cron <root@web> run-parts /etc/cron.daily")
	if m == nil {
		t.Fatal("nothing arrived")
	}
	checkCronMail(t, string(m.Data), "root@web.test", m.To)
	if _, body := headerAndBody(t, m.Data); body != "/etc/cron.daily/backup:\r\n.\r\ndisk gr\xc3\xb6\xc3\x9fe unknown\r\n" {
		t.Errorf("body %q", body)
	}
}

func checkCronMail(t testing.TB, content, to string, rcpt []string) {
	t.Helper()
	head, _ := headerAndBody(t, []byte(content))
	from := value(t, head, "From")
	if !strings.Contains(from, "root@web.test") || !strings.Contains(from, "Cron Daemon") {
		t.Errorf("From: %s, want root@web.test and what cron says of itself", from)
	}
	if got := value(t, head, "To"); got != to {
		t.Errorf("To: %s, want %s", got, to)
	}
	if got := strings.Join(rcpt, ","); got != to {
		t.Errorf("recipients %s, want %s", got, to)
	}
	if value(t, head, "Date") == "" || value(t, head, "Message-ID") == "" {
		t.Errorf("Date or Message-ID is missing: %s", head)
	}
}

// Debian's cron itself, in namespaces of its own where it sees one crontab: ours.
// It runs "@reboot" jobs as soon as it starts.
func TestCronDaemonArrives(t *testing.T) {
	t.Parallel()
	cron := needs(t, "cron", "cron")
	s, b := plainRelay(t)
	b.start()
	tabs := filepath.Join(b.dir, "crontabs")
	none := filepath.Join(b.dir, "none")
	for _, dir := range []string{tabs, none} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tab := "MAILTO=alice@example.org,bob\n@reboot printf 'from the daemon\\n.\\n'\n"
	if err := os.WriteFile(filepath.Join(tabs, "root"), []byte(tab), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := b.inNamespace(`
mount --bind /dev/null /etc/crontab
mount --bind "$1" /etc/cron.d
mount --bind "$2" /var/spool/cron/crontabs
mount -t tmpfs tmpfs /run
exec "$3" -f
`, none, tabs, cron)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // and with the first process of its namespace all others
		_ = cmd.Wait()
	})
	b.log.await(t, "msg=finished")
	list := s.Messages()
	if len(list) != 1 {
		t.Fatalf("%d messages arrived, want 1", len(list))
	}
	m := list[0]
	checkCronMail(t, string(m.Data), "alice@example.org,bob@web.test", m.To)
	if _, body := headerAndBody(t, m.Data); body != "from the daemon\r\n.\r\n" {
		t.Errorf("body %q", body)
	}
	if tr := b.trace("alice@example.org"); tr.UID != 0 || !strings.Contains(tr.Subject, "Cron <root@") {
		t.Errorf("trace: %+v", tr)
	}
}
