package cmd_test

import (
	"bytes"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"

	"postino/delivery/relay/relaytest"
)

// systemMail is mail as a system and what runs on it send it, by the programs that do.
type systemMail struct {
	subject string // begins with
	name    string // of the author, as people see it
	user    string // who it is from
	call    func(b *box) *exec.Cmd
}

// systemMails are those that relays refuse most often, for their senders.
func systemMails(t testing.TB) []systemMail {
	t.Helper()
	mailx := needs(t, "bsd-mailx", "bsd-mailx")
	cron := needs(t, "cron", "cron")
	mdadm := needs(t, "mdadm", "mdadm")
	return []systemMail{
		{"hi", "root", "root", func(b *box) *exec.Cmd {
			return b.inNamespace(`printf 'hi\n' | exec "$1" -n -s hi root`, mailx)
		}},
		{"Cron <root@", "Cron Daemon", "root", func(b *box) *exec.Cmd {
			tabs, none := filepath.Join(b.dir, "crontabs"), filepath.Join(b.dir, "none")
			for _, dir := range []string{tabs, none} {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					b.t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(tabs, "root"), []byte("@reboot echo from cron\n"), 0o600); err != nil {
				b.t.Fatal(err)
			}
			return b.inNamespace(`
mount --bind /dev/null /etc/crontab
mount --bind "$1" /etc/cron.d
mount --bind "$2" /var/spool/cron/crontabs
mount -t tmpfs tmpfs /run
exec "$3" -f
`, none, tabs, cron)
		}},
		{"TestMessage event on /dev/md0", "mdadm monitoring", "root", func(b *box) *exec.Cmd {
			conf := filepath.Join(b.dir, "mdadm.conf")
			if err := os.WriteFile(conf, []byte("MAILADDR root\nARRAY /dev/md0 UUID=00000000:00000000:00000000:00000001\n"), 0o644); err != nil {
				b.t.Fatal(err)
			}
			return b.inNamespace(`exec "$1" --monitor --config="$2" --scan --oneshot --test >/dev/null 2>&1`, mdadm, conf)
		}},
		{"[Shop] New user", "WordPress", "wordpress", func(b *box) *exec.Cmd {
			return b.php(`"root@localhost", "[Shop] New user", "Somebody registered.", "From: WordPress <wordpress@web.test>\r\nContent-Type: text/plain; charset=UTF-8"`)
		}},
	}
}

// sendSystemMail has all of them sent, and waits until each is through.
func (b *box) sendSystemMail(list []systemMail) {
	b.t.Helper()
	for i, m := range list {
		cmd := m.call(b)
		if err := cmd.Start(); err != nil {
			b.t.Fatal(err)
		}
		b.log.awaitN(b.t, i+1, "msg=finished")
		_ = cmd.Process.Kill() // cron stays, others have ended
		_ = cmd.Wait()
	}
}

// check says what is wrong with the header section of one that arrived: From has to
// be of the domain that exists, and the author's name is kept.
func (m *systemMail) check(t testing.TB, header mail.Header) {
	t.Helper()
	from, err := mail.ParseAddressList(header.Get("From"))
	if err != nil || len(from) != 1 || from[0].Address != m.user+"@example.com" || !strings.Contains(header.Get("From"), m.name) {
		t.Errorf("%s: From: %s, %v", m.subject, header.Get("From"), err)
	}
	if to, err := mail.ParseAddressList(header.Get("To")); err != nil || len(to) != 1 || !strings.Contains(to[0].Address, "@") {
		t.Errorf("%s: To: %s, %v", m.subject, header.Get("To"), err)
	}
}

// What a system sends on its own goes through a smarthost that takes no domain but
// one, with the name of its author, and a signature of that domain.
func TestSystemMailPassesAStrictSmarthost(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	list := systemMails(t)
	s, b := plainRelay(t,
		relaytest.Rule{At: "MAIL", Arg: "@example.com>"}, relaytest.Rule{At: "MAIL", Reply: "553 5.1.8 sender domain does not exist"},
		relaytest.Rule{At: "RCPT", Arg: "<admin@example.com>"}, relaytest.Rule{At: "RCPT", Reply: "550 5.1.2 no such domain"})
	aliases, key := filepath.Join(b.dir, "aliases"), filepath.Join(b.dir, "s1.pem")
	if err := os.WriteFile(aliases, []byte("root: admin@example.com\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.postino("dkim", "keygen", "example.com", "s1", key)
	b.configure("[from]\nenvelope = \"force\"\nheader = \"force\"\naddress = \"{user}@example.com\"\n" +
		"[aliases]\nfile = \"" + aliases + "\"\n" + relayTo(s.Port()) +
		"[[dkim]]\ndomain = \"example.com\"\nselector = \"s1\"\nkey_file = \"" + key + "\"\n")
	record := strings.Split(b.postino("dkim", "record", "--json"), `"value":"`)[1]
	record = record[:strings.IndexByte(record, '"')]
	b.start()
	b.sendSystemMail(list)
	arrived := s.Messages()
	if len(arrived) != len(list) {
		t.Fatalf("%d messages arrived, want %d", len(arrived), len(list))
	}
	for i, m := range list {
		got := arrived[i]
		parsed, err := mail.ReadMessage(bytes.NewReader(got.Data))
		if err != nil || !strings.HasPrefix(parsed.Header.Get("Subject"), m.subject) {
			t.Fatalf("%v, %q, want %q", err, parsed.Header.Get("Subject"), m.subject)
		}
		m.check(t, parsed.Header)
		if !strings.HasSuffix(got.From, "@example.com") || !slices.Equal(got.To, []string{"admin@example.com"}) {
			t.Errorf("%s: from %s to %q", m.subject, got.From, got.To)
		}
		results, err := dkim.VerifyWithOptions(bytes.NewReader(got.Data), &dkim.VerifyOptions{LookupTXT: func(string) ([]string, error) { return []string{record}, nil }})
		if err != nil || len(results) != 1 || results[0].Err != nil || results[0].Domain != "example.com" {
			t.Errorf("%s: signatures %+v, %v", m.subject, results, err)
		}
	}
}
