package cmd_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const phpMailerScript = `
require '/usr/share/php/libphp-phpmailer/autoload.php';
$mail = new PHPMailer\PHPMailer\PHPMailer(true);
[$mode, $mail->Sender] = [$argv[1], 'bounces@web.test'];
$mail->$mode();
$mail->CharSet = 'UTF-8';
$mail->Encoding = '8bit';
$mail->setFrom('juergen@web.test', 'Jürgen Groß', false);
$mail->addAddress('alice@example.org', 'Åsa Öberg');
$mail->addAddress('bob@example.org');
$mail->addCC('carol@example.org');
$mail->addBCC('secret@example.org');
if (getenv('EXTRA')) {
    $mail->addBCC(getenv('EXTRA'));
}
$mail->Subject = getenv('SUBJECT');
$mail->Body = getenv('TEXT');
$mail->addStringAttachment(base64_decode(getenv('DATA')), 'data.bin', 'base64', 'application/octet-stream');
try {
    $mail->send();
    echo $mail->getLastMessageID();
} catch (PHPMailer\PHPMailer\Exception $e) {
    echo $e->getMessage();
    exit(1);
}
`

// phpMailer is PHPMailer in one of its modes, with a setting of sendmail_path.
func phpMailer(mode, path string) library {
	return library{
		name: "PHPMailer " + mode, program: "php", pkg: "php-cli",
		args: []string{"-d", "display_errors=stderr", "-d", "sendmail_path=" + path, "-r"}, script: phpMailerScript, more: []string{"--", mode},
		file: "/usr/share/php/libphp-phpmailer/autoload.php", from: "libphp-phpmailer",
		bad: "-x@example.org", says: []string{"sendmail: ", "-x@example.org"},
	}
}

// PHPMailer is served in its three modes, and by where it is told the mailer is as
// well as by where it expects it.
func TestPHPMailerLettersArrive(t *testing.T) {
	t.Parallel()
	viaMail := phpMailer("isMail", sendmailAlone()+" -t -i")
	viaMail.says = append(viaMail.says, "Could not instantiate mail function")
	// What the setting names it calls with its own options behind those.
	configured := phpMailer("isSendmail", sendmailAlone()+" -t -i")
	configured.says = append(configured.says, "Could not execute")
	// Without the word sendmail in the setting it calls /usr/sbin/sendmail.
	builtIn := phpMailer("isSendmail", "/bin/false")
	builtIn.system, builtIn.name = true, "PHPMailer isSendmail, built-in path"
	builtIn.says = append(builtIn.says, "Could not execute: /usr/sbin/sendmail")

	for _, l := range []library{viaMail, configured, builtIn} {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			l.test(t)
		})
	}
	t.Run("PHPMailer isQmail", func(t *testing.T) {
		t.Parallel()
		// qmail's own directory, with us in place of its sendmail.
		path := filepath.Join(t.TempDir(), "qmail", "bin", "sendmail")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(sendmailAlone(), path); err != nil {
			t.Fatal(err)
		}
		l := phpMailer("isQmail", path+" -t -i")
		l.says = append(l.says, "Could not execute: "+path)
		l.test(t)

		// Without -t it relies on a qmail-inject, which finds the recipients itself.
		l = phpMailer("isQmail", path)
		_, b := plainRelay(t)
		if r := b.run(l.command(b, "none", "")); r.code != 1 || !hasAll(r.out+r.err, []string{"Could not execute: " + path, "sendmail: no recipients: ", "-t"}) {
			t.Errorf("without -t: %+v, want its exception and our advice", r)
		}
		b.nothingStored("without -t")
	})
}

// Each line it reads is a subject, or "+" and a recipient for the next letter. For
// each letter it prints what came of it: the Message-ID, and the queue ID if it was
// told one; or its exception. It says when it has greeted a new process.
const symfonyScript = `
require '/usr/share/php/Symfony/Component/Mailer/autoload.php';
use Symfony\Component\Mailer\{Exception\TransportExceptionInterface, Transport};
use Symfony\Component\Mime\{Address, Email};
$transport = Transport::fromDsn($argv[1]);
$extra = [];
while (($line = fgets(STDIN)) !== false) {
    if ($line[0] === '+') {
        $extra = [trim(substr($line, 1))];
        continue;
    }
    $email = (new Email())
        ->from(new Address('juergen@web.test', 'Jürgen Groß'))->returnPath('bounces@web.test')
        ->to(new Address('alice@example.org', 'Åsa Öberg'), 'bob@example.org')
        ->cc('carol@example.org')->bcc('secret@example.org', ...$extra)
        ->subject(trim($line))->text(getenv('TEXT'))
        ->attach(base64_decode(getenv('DATA')), 'data.bin', 'application/octet-stream');
    $extra = [];
    try {
        $result = $transport->send($email);
        // As its versions from 6.2 on find the ID that getMessageId() then returns.
        $found = preg_match('/250 Ok:? queued as (?P<id>[A-Z0-9]+)\r?$/mi', $result->getDebug(), $match);
        $outcome = 'sent ' . $result->getMessageId() . ' ' . ($found ? $match['id'] : '-');
    } catch (TransportExceptionInterface $result) {
        $outcome = 'refused ' . json_encode($result->getMessage(), JSON_UNESCAPED_SLASHES);
    }
    echo str_contains($result->getDebug(), 'HELO') ? 'greeted, ' : '', $outcome, "\n";
}
`

// symfony is a process that lives as long as a worker's: it sends a letter for
// each line that it is given.
type symfony struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
	err strings.Builder
}

// startSymfony starts it with a transport's name. It sees our programs where a
// package puts them.
func startSymfony(b *box, dsn string, settings ...string) *symfony {
	b.t.Helper()
	php := needs(b.t, "php", "php-cli")
	needsFile(b.t, "/usr/share/php/Symfony/Component/Mailer/autoload.php", "php-symfony-mailer")
	args := []string{filepath.Dir(program("sendmail")), php, "-d", "display_errors=stderr"}
	for _, s := range settings {
		args = append(args, "-d", s)
	}
	p := &symfony{t: b.t, cmd: b.inNamespace(`
mount --bind "$1" /usr/local/sbin
shift
exec "$@"`, append(args, "-r", symfonyScript, "--", dsn)...)}
	p.cmd.Env = append(p.cmd.Env, "LC_ALL=C.UTF-8", "TEXT="+letterText, "DATA="+letterDataBase64)
	p.cmd.Stdin, p.cmd.Stderr = nil, &p.err
	in, err := p.cmd.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	p.in, p.out = in, bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	stop := limited(b.t, p.cmd, patience)
	b.t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		_ = p.cmd.Wait()
		stop()
	})
	return p
}

// send has a letter sent, and returns what came of it.
func (p *symfony) send(lines ...string) string {
	p.t.Helper()
	if _, err := io.WriteString(p.in, strings.Join(lines, "\n")+"\n"); err != nil {
		p.t.Fatal(err)
	}
	if !p.out.Scan() {
		p.t.Fatalf("%q: no answer: %v %s", lines, p.out.Err(), p.err.String())
	}
	return p.out.Text()
}

// end wants it to end, and its mailer with it, without a word.
func (p *symfony) end() {
	p.t.Helper()
	p.in.Close()
	for p.out.Scan() {
		p.t.Errorf("it also said %s", p.out.Text())
	}
	if err := p.cmd.Wait(); err != nil || p.err.Len() > 0 {
		p.t.Errorf("it ended with %v: %s", err, p.err.String())
	}
}

// Symfony Mailer is served in all its ways. Its SMTP session outlives runners, and
// takes mail while there is none; it names the queue ID that the message keeps.
func TestSymfonyMailerLettersArrive(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	const path = "/usr/sbin/sendmail"
	smtp := []string{"553", "5.1.3", "-x@example.org", "may not begin with"}
	pipe := []string{"Process failed with exit code 65: sendmail: recipient: ", "-x@example.org", "may not begin with"}
	for _, tt := range []struct {
		name, dsn string
		setting   string // of sendmail_path
		session   bool   // speaks SMTP
		says      []string
		doubled   bool
	}{
		{"sendmail default", "sendmail://default", "/bin/false", true, smtp, false},
		{"sendmail as Laravel has it", "sendmail://default?command=" + path + "%20-bs%20-i", "/bin/false", true, smtp, false},
		// Without -i it writes for a Sendmail, which halves the dots. We leave them, as
		// Postfix does: most callers without -i do not double them.
		{"sendmail -t", "sendmail://default?command=" + path + "%20-t", "/bin/false", false, pipe, true},
		{"sendmail -oi -t", "sendmail://default?command=" + path + "%20-oi%20-t", "/bin/false", false, pipe, false},
		{"native", "native://default", path + " -t -i", false, pipe, false},
		{"native -bs", "native://default", path + " -bs", true, smtp, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, b := plainRelay(t)
			b.giveTo(spoolUID) // or the front end would start a runner
			r := b.start()
			p := startSymfony(b, tt.dsn, "sendmail_path="+tt.setting)
			var answers []string
			subjects := []string{"Über eins ☃", "Über zwei ☃", "Über drei ☃"}
			for i, subject := range subjects {
				switch i {
				case 1:
					r.stop()
				case 2:
					if n := b.drops(); n != 1 {
						t.Errorf("%d files in drop/, want 1", n)
					}
					b.start()
				}
				want := "refused "
				if tt.session && i == 0 {
					want = "greeted, refused "
				}
				if got := p.send("+-x@example.org", "refused"); !strings.HasPrefix(got, want) || !hasAll(got, tt.says) {
					t.Errorf("with a bad recipient: %s, want %s%q", got, want, tt.says)
				}
				answers = append(answers, p.send(subject))
				if !strings.HasPrefix(answers[i], "sent ") {
					t.Fatalf("%s: %s", subject, answers[i])
				}
			}
			p.end()
			b.log.awaitN(t, len(subjects), "msg=finished")
			for i, subject := range subjects {
				if m := letterWith(t, s, subject); m != nil {
					(&library{doublesDots: tt.doubled}).check(t, m)
					checkSymfonyAnswer(t, answers[i], m, b.trace(m.header.Get("Message-ID")), tt.session, i)
				}
			}
			if n := len(s.Messages()); n != len(subjects) {
				t.Errorf("%d messages arrived, want %d", n, len(subjects))
			}
		})
	}
}

// checkSymfonyAnswer compares what Symfony was told with what became of the
// letter, of which it was the nth.
func checkSymfonyAnswer(t testing.TB, answer string, m *letter, tr *message, session bool, n int) {
	t.Helper()
	id := "-"
	if session {
		id = tr.ID
	}
	want := fmt.Sprintf("sent %s %s", strings.Trim(m.header.Get("Message-ID"), "<>"), id)
	if answer != want {
		t.Errorf("letter %d: %s, want %s", n, answer, want)
	}
	via := "socket"
	if n == 1 {
		via = "drop"
	}
	if tr.Via != via {
		t.Errorf("letter %d came via %s, want %s", n, tr.Via, via)
	}
	if !regexp.MustCompile(`^[0-9A-F]+$`).MatchString(tr.ID) {
		t.Errorf("queue ID %q, want what programs for Postfix read", tr.ID)
	}
}
