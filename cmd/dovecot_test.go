package cmd_test

import (
	"encoding/json"
	"fmt"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"postino/delivery/relay/servertest"
)

// dovecot is a server by which mailboxes are read, started by hand. Its one user is
// root, with this password, whose mail belongs to the runner's user.
type dovecot struct {
	imap, pop3 int // ports
	lmtp       string
	mail       string // Maildirs are below it, by user
}

const mailboxPassword = "open sesame"

// startDovecot starts one for the mail of a box. It ends with the test.
func startDovecot(t testing.TB, b *box) *dovecot {
	t.Helper()
	for file, pkg := range map[string]string{"imap": "dovecot-imapd", "pop3": "dovecot-pop3d", "lmtp": "dovecot-lmtpd"} {
		needsFile(t, "/usr/lib/dovecot/"+file, pkg)
	}
	d := &dovecot{imap: servertest.FreePort(t), pop3: servertest.FreePort(t), lmtp: filepath.Join(b.dir, "lmtp"), mail: filepath.Join(b.dir, "mail")}
	root := filepath.Join(d.mail, "root")
	for _, dir := range []string{d.mail, root} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, spoolUID, spoolUID); err != nil {
			t.Fatal(err)
		}
	}
	users, conf := filepath.Join(b.dir, "users"), filepath.Join(b.dir, "dovecot.conf")
	for path, text := range map[string]string{
		filepath.Join(b.dir, "dovecot.log"): "",
		users:                               "root:{PLAIN}" + mailboxPassword + "::::" + root + "\n",
		conf: fmt.Sprintf(`protocols = imap pop3 lmtp
listen = 127.0.0.1
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/dovecot.log
ssl = no
disable_plaintext_auth = no
auth_username_format = %%Ln
mail_location = maildir:~/Maildir
first_valid_uid = 1
mail_uid = %[2]d
mail_gid = %[2]d
passdb {
  driver = passwd-file
  args = %[1]s/users
}
userdb {
  driver = passwd-file
  args = %[1]s/users
}
service auth {
  unix_listener auth-userdb {
    mode = 0777
  }
}
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
}
service imap-login {
  inet_listener imap {
    port = %[3]d
  }
}
service pop3-login {
  inet_listener pop3 {
    port = %[4]d
  }
}
service lmtp {
  unix_listener %[1]s/lmtp {
    mode = 0666
  }
}
`, b.dir, spoolUID, d.imap, d.pop3),
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(b.dir, "dovecot.log"), 0o666); err != nil { // dovecot-lda writes there too
		t.Fatal(err)
	}
	ready := func() bool { return servertest.Listens("tcp", "127.0.0.1:"+strconv.Itoa(d.imap)) }
	servertest.Daemon(t, filepath.Join(b.dir, "dovecot.log"), ready, needs(t, "dovecot", "dovecot-core"), "-F", "-c", conf)
	return d
}

// readMail prints what two clients find in the mailbox, messages as JSON, and takes
// them out of it.
const readMail = `import imaplib, json, poplib, sys, time
imap_port, pop3_port, password = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
for attempt in range(200):
    try:
        m = imaplib.IMAP4("127.0.0.1", imap_port)
        break
    except ConnectionRefusedError:
        time.sleep(0.05)
m.login("root", password)
m.select("INBOX")
found = {"imap": [], "pop3": []}
for number in m.search(None, "ALL")[1][0].split():
    found["imap"].append(m.fetch(number, "(BODY.PEEK[])")[1][0][1].decode("latin-1"))
m.logout()
p = poplib.POP3("127.0.0.1", pop3_port)
p.user("root"); p.pass_(password)
for number in range(1, p.stat()[0] + 1):
    found["pop3"].append("".join(line.decode("latin-1") + "\r\n" for line in p.retr(number)[1]))
    p.dele(number)
p.quit()
print(json.dumps(found))
`

// read takes the mail out of the mailbox, as IMAP and as POP3 tell it.
func (d *dovecot) read(t testing.TB) (byIMAP, byPOP3 []string) {
	t.Helper()
	out, err := exec.Command(needs(t, "python3", "python3"), "-c", readMail, fmt.Sprint(d.imap), fmt.Sprint(d.pop3), mailboxPassword).CombinedOutput()
	var found struct{ IMAP, POP3 []string }
	if err == nil {
		err = json.Unmarshal(out, &found)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return found.IMAP, found.POP3
}

// Mail for a user of this machine is in the mailbox, put there by us or handed to
// Dovecot, and Dovecot shows it by IMAP and by POP3 as it was sent.
func TestMailIsReadByIMAPAndPOP3(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	list := systemMails(t)
	const dots = "gr\xfcn\n.\n..two dots\nFrom here on\n"
	for _, by := range []string{"maildir", "lmtp", "pipe"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, "")
			b.giveTo(spoolUID)
			d := startDovecot(t, b)
			deliver := map[string]string{"maildir": "maildir:" + d.mail + "/{user}/Maildir", "lmtp": "lmtp:" + d.lmtp,
				"pipe": "pipe:/usr/lib/dovecot/dovecot-lda -c " + b.dir + "/dovecot.conf -f {sender} -d {user}"}[by]
			aliases := filepath.Join(b.dir, "aliases")
			if err := os.WriteFile(aliases, []byte("postmaster: root\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			b.configure("[from]\nheader = \"force\"\naddress = \"{user}@example.com\"\n[aliases]\nfile = \"" + aliases + "\"\n[local]\ndeliver = \"" + deliver + "\"\n")
			b.start()
			b.sendSystemMail(list)
			b.sendmail("Subject: eight bits\nX-Folded: a\n\tb\n\n"+dots, "-i", "postmaster")
			b.log.awaitN(t, len(list)+1, "msg=finished")
			b.log.awaitN(t, len(list)+1, "status=delivered")
			byIMAP, byPOP3 := d.read(t)
			if len(byIMAP) != len(list)+1 {
				t.Fatalf("%d messages by IMAP, want %d: %q", len(byIMAP), len(list)+1, byIMAP)
			}
			for i, content := range byIMAP {
				if content != byPOP3[i] {
					t.Errorf("IMAP has %q\nand POP3 %q", content, byPOP3[i])
				}
				parsed, err := mail.ReadMessage(strings.NewReader(content))
				if err != nil {
					t.Fatal(err)
				}
				if i < len(list) {
					if !strings.HasPrefix(parsed.Header.Get("Subject"), list[i].subject) {
						t.Errorf("%q, want %q", parsed.Header.Get("Subject"), list[i].subject)
					}
					list[i].check(t, parsed.Header)
				} else if _, body, _ := strings.Cut(content, "\r\n\r\n"); body != strings.ReplaceAll("gr\u00fcn\n.\n..two dots\nFrom here on\n", "\n", "\r\n") {
					t.Errorf("body %q", body) // which the client gave us as Latin-1
				}
			}
		})
	}
}
