package cmd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"postino/delivery/relay/relaytest"
	"postino/delivery/relay/servertest"
)

// trial is a box in which a caller calls, and the server that its mail goes to.
type trial struct {
	*box
	server *relaytest.Server
	down   bool // the runner is away until the mail is waited for
}

// upAndDown runs a caller's test twice, beside each other: with the runner there
// when the caller calls, and with the runner away.
func upAndDown(t *testing.T, o relaytest.Options, test func(t *testing.T, c *trial)) {
	t.Helper()
	for _, state := range []string{"runner up", "runner down"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			down := state == "runner down"
			s := relaytest.New(t, o)
			c := &trial{box: newBox(t, relayTo(s.Port())), server: s, down: down}
			if r := c.start(); down {
				r.stop() // it has laid out drop/
			}
			test(t, c)
		})
	}
}

// arrived waits for the messages that have to arrive. If the runner was away they
// wait in drop/ until it is started here.
func (c *trial) arrived(n int) []relaytest.Message {
	c.t.Helper()
	if c.down {
		awaitIn(c.t, filepath.Join(c.spool, "drop"), "files in drop/", func() bool { return c.drops() == n })
		c.start()
	}
	c.log.awaitN(c.t, n, "msg=finished")
	c.empty()
	list := c.server.Messages()
	if len(list) != n {
		c.t.Fatalf("%d messages arrived, want %d", len(list), n)
	}
	return list
}

// wanted is what has to arrive.
type wanted struct {
	from   string            // of the envelope
	to     string            // of the envelope, separated by blanks
	header map[string]string // whole fields, "" for those that must not be there
	body   string
}

// check compares what arrived with it. Whatever the caller gave, a message has one
// From, Date and Message-ID, and no Bcc.
func (w wanted) check(t testing.TB, m relaytest.Message) {
	t.Helper()
	if to := strings.Join(m.To, " "); m.From != w.from || to != w.to {
		t.Errorf("from <%s> to %s, want from <%s> to %s", m.From, to, w.from, w.to)
	}
	head, body := headerAndBody(t, m.Data)
	if body != w.body {
		t.Errorf("body %q\nwant %q", body, w.body)
	}
	for name, want := range w.header {
		if got := value(t, head, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"From", "Date", "Message-ID"} {
		if value(t, head, name) == "" {
			t.Errorf("no %s: %s", name, head)
		}
	}
	if value(t, head, "Bcc") != "" {
		t.Errorf("there is a Bcc: %s", head)
	}
}

// patches is a directory with a series of two patches and a cover letter, written
// by git. The first patch adds a line with nothing but a dot.
func (b *box) patches() string {
	b.t.Helper()
	git := needs(b.t, "git", "git")
	repo, out := filepath.Join(b.dir, "repo"), filepath.Join(b.dir, "patches")
	b.git(git, "init", "-q", repo)
	for i, text := range []string{"one\n.\n", "one\n.\nfünf\n"} {
		if err := os.WriteFile(filepath.Join(repo, "file"), []byte(text), 0o644); err != nil {
			b.t.Fatal(err)
		}
		b.git(git, "-C", repo, "add", "file")
		b.git(git, "-C", repo, "commit", "-qm", fmt.Sprintf("change %d", i+1))
	}
	b.git(git, "-C", repo, "format-patch", "-q", "--cover-letter", "--root", "-o", out)
	return out
}

// git runs git as Zoë, whatever the settings of who runs the test.
func (b *box) git(path string, args ...string) result {
	b.t.Helper()
	cmd := b.command("", path, args...)
	cmd.Env = append(cmd.Env, "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=Zoë", "GIT_AUTHOR_EMAIL=zoe@web.test", "GIT_COMMITTER_NAME=Zoë", "GIT_COMMITTER_EMAIL=zoe@web.test")
	r := b.run(cmd)
	if r.code != 0 || r.err != "" {
		b.t.Fatalf("git %q ended with %d\nstderr: %s", args, r.code, r.err)
	}
	return r
}

// git send-email calls sendmail once for each mail of a series, by a shell or
// itself. What arrives is the patches as git wrote them, byte for byte.
func TestGitSendEmailArrives(t *testing.T) {
	t.Parallel()
	needsRoot(t) // whose name it is that git leaves to sendmail
	git := needs(t, "git", "git")
	if _, err := os.Stat("/usr/lib/git-core/git-send-email"); err != nil {
		servertest.Missing(t, "%v: apt-get install git-email", err)
	}
	upAndDown(t, relaytest.Options{}, func(t *testing.T, b *trial) {
		dir := b.patches()
		send := func(args ...string) string {
			t.Helper()
			return b.git(git, append([]string{"send-email", "--quiet", "--confirm=never", "--8bit-encoding=UTF-8", "--no-thread", "--suppress-cc=self",
				"--to=alice@example.org", "--bcc=secret@example.org"}, args...)...).out
		}
		files, err := filepath.Glob(filepath.Join(dir, "*.patch"))
		if err != nil || len(files) != 3 {
			t.Fatalf("patches %q, %v", files, err)
		}
		if err := os.WriteFile(files[0], []byte(cover), 0o644); err != nil {
			t.Fatal(err)
		}
		said := send("--sendmail-cmd="+b.front, "--envelope-sender=bounce@web.test", "--cc=Dévid <dev@example.org>", files[0], files[1])
		said += send("--smtp-server="+b.front, files[2])
		if want := "Sent [PATCH 0/2] series\nSent [PATCH 1/2] change 1\nSent [PATCH 2/2] change 2\n"; said != want {
			t.Errorf("git said %q, want %q", said, want)
		}
		list := b.arrived(3)
		slices.SortFunc(list, func(x, y relaytest.Message) int { return strings.Compare(subject(t, x), subject(t, y)) })
		for i, m := range list {
			w := wanted{
				from: "bounce@web.test", to: "alice@example.org dev@example.org secret@example.org",
				header: map[string]string{"From": "=?UTF-8?q?Zo=C3=AB?= <zoe@web.test>", "To": "alice@example.org", "Cc": "=?UTF-8?q?D=C3=A9vid?= <dev@example.org>"},
				body:   patchBody(t, files[i]),
			}
			if i == 2 {
				w.from, w.to, w.header["Cc"] = "root@web.test", "alice@example.org secret@example.org", ""
			}
			w.check(t, m)
		}
	})
}

const cover = "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\n" +
	"From: Zoë <zoe@web.test>\nDate: Mon, 23 Nov 2026 02:25:22 +0000\nSubject: [PATCH 0/2] series\n\nfrom the top\n.\n..\n-- \n2.39.5\n"

// patchBody is what follows the header of a patch, in CRLF lines.
func patchBody(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(text), "\n\n")
	return strings.ReplaceAll(body, "\n", "\r\n")
}

func subject(t testing.TB, m relaytest.Message) string {
	t.Helper()
	head, _ := headerAndBody(t, m.Data)
	return value(t, head, "Subject")
}

// mutt's batch mode. Its settings for delivery reports become those of ESMTP, and
// nothing is asked of a server that was not asked of us.
func TestMuttArrives(t *testing.T) {
	t.Parallel()
	mutt := needs(t, "mutt", "mutt")
	o := relaytest.Options{Extensions: []string{"8BITMIME", "DSN", "ENHANCEDSTATUSCODES"}}
	for _, dsn := range []bool{false, true} {
		t.Run(fmt.Sprintf("dsn_notify %v", dsn), func(t *testing.T) {
			t.Parallel()
			upAndDown(t, o, func(t *testing.T, b *trial) {
				settings := "set copy=no charset=utf-8 send_charset=utf-8 allow_8bit=yes use_8bitmime=yes use_envelope_from=yes realname=Zoe" +
					" sendmail=\"" + b.front + " -oem -oi\""
				if dsn {
					settings += " dsn_notify=failure,delay dsn_return=hdrs"
				}
				cmd := b.command("first\n.\nümläut\n", mutt, "-n", "-F", "/dev/null", "-e", settings, "-s", "from mütt",
					"-c", "carol@example.org", "-b", "secret@example.org", "--", "alice@example.org")
				cmd.Env = append(cmd.Env, "LC_ALL=C.UTF-8", "EMAIL=zoe@web.test")
				b.succeed(cmd)
				wanted{
					from: "zoe@web.test", to: "alice@example.org carol@example.org secret@example.org",
					header: map[string]string{"From": "Zoe <zoe@web.test>", "To": "alice@example.org", "Cc": "carol@example.org",
						"Subject": "from =?utf-8?B?bcO8dHQ=?=", "Content-Transfer-Encoding": "8bit"},
					body: "first\r\n.\r\nümläut\r\n",
				}.check(t, b.arrived(1)[0])
				checkDSN(t, b.server.Commands(), dsn)
			})
		})
	}
}

// checkDSN looks for mutt's dsn_return and dsn_notify in an SMTP session.
func checkDSN(t testing.TB, commands []string, want bool) {
	t.Helper()
	for _, line := range commands {
		verb, _, _ := strings.Cut(line, ":")
		switch parameter := map[string]string{"MAIL FROM": " RET=HDRS", "RCPT TO": " NOTIFY="}[verb]; {
		case parameter == "":
		case strings.Contains(line, parameter) != want:
			t.Errorf("%s: has%s %v, want %v", line, parameter, !want, want)
		case verb == "RCPT TO" && want:
			_, asked, _ := strings.Cut(line, parameter)
			if asked != "FAILURE,DELAY" && asked != "DELAY,FAILURE" {
				t.Errorf("%s: want failure and delay", line)
			}
		}
	}
}

// GNU mailutils names the sender in any case, and lets sendmail find the
// recipients if it was given them in the header.
func TestMailutilsArrives(t *testing.T) {
	t.Parallel()
	needsRoot(t) // whose name mailutils gives
	mail := needs(t, "mail.mailutils", "mailutils")
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, stdin string
		args        []string
		want        wanted
	}{
		{
			name: "operands", stdin: "hello\n.\nfünf\n",
			args: []string{"-E", "set nodot", "-r", "zoe@web.test", "-s", "from mailutils", "-a", "Cc: carol@example.org", "-a", "X-Job: 7", "alice@example.org", "root"},
			want: wanted{
				from: "zoe@web.test", to: "carol@example.org alice@example.org root@" + host,
				header: map[string]string{"Subject": "from mailutils", "X-Job": "7"},
				body:   "hello\r\n.\r\nfünf\r\n",
			},
		},
		{
			name: "header", stdin: "To: alice@example.org\nSubject: from mailutils -t\nBcc: secret@example.org\n\nhello\n", args: []string{"-t"},
			want: wanted{
				from: "root@" + host, to: "alice@example.org secret@example.org",
				header: map[string]string{"Subject": "from mailutils -t", "To": "<alice@example.org>"},
				body:   "hello\r\n",
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			upAndDown(t, relaytest.Options{}, func(t *testing.T, b *trial) {
				b.succeed(b.command(tt.stdin, mail, append([]string{"-N", "-E", "set sendmail=sendmail:" + b.front}, tt.args...)...))
				tt.want.check(t, b.arrived(1)[0])
			})
		})
	}
}
