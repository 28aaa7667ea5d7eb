package cmd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"postino/delivery/relay/relaytest"
)

// documents are those with examples, which people type as they are.
var documents = []string{"../README.md", "../man/*.[158]", "../man/postino*.7"}

// notRun are examples that the next test does not run, by how they begin, and why. The
// flags that postino and install.sh get in them are parsed all the same. All others run.
var notRun = [][2]string{
	{"./install.sh", "TestUninstallLeavesTheSystemAsItWas and others do, on a machine of their own; .ci/run does try"},
	{"sudo ./install.sh", "likewise"},
	{"go test", "this is it"},
	{"config/system/package.sh", "TestPackages"},
	{"sudo apt ", "TestPackages, with dpkg"},
	{"install -m 0640", "there need not be a group postino here"},
	{"less ", "it shows a file"},
	{"export ", "the variables of this test are others"},
	{"COPY ", "for a container engine; TestContainerWithoutDaemon"},
	{"RUN ", "likewise"},
	{"ENV ", "likewise"},
	{"postfix stop", "TestQueueOfPostfixIsTakenOver"},
	{"postino config import postfix --queue", "likewise"},
	{"postino setup", "TestSetupOnATerminalSendsMail, TestSetupByFlagsAsksNothing"},
	{"postino doctor", "TestDoctorFindsWhatIsWrongWithASmarthost has a DNS for it"},
	{"postino auth login", "TestMailGoesWithALoginByDevice has a provider"},
	{"postino log --follow", "it stays"},
	{"postino run", "it stays; the runner of this test is one"},
	{"postino export", "what is attempted meanwhile stays"},
	{"postino capture show", "what ./install.sh try shows"},
	{"postino spool ", "for a spool that no runner has; TestMailOfAnotherSpoolIsDelivered"},
	{"cp -a ", "likewise"},
	{"chown -R ", "likewise"},
	{"ls /var/tmp/old", "likewise"},
	{"chgrp ", "likewise"},
	{"postino release --reason", "likewise"},
	{"postino queue --json --reason", "jq may not be here"},
	{"postino config check && pkill", "nobody else's runner is to be told"},
	{"systemctl ", "there need not be systemd"},
	{"rc-update ", "TestOpenRCKeepsTheRunner"},
	{"ln -s /etc/sv/", "TestRunitKeepsTheRunner"},
	{"rsync ", "there is no other host"},
	{"ssh ", "likewise"},
	{"journalctl ", "there need not be a journal"},
	{"pflogsumm ", "TestPflogsummReadsTheLog"},
}

// otherExamples are literal displays that are neither a configuration nor typed, by how
// they begin.
var otherExamples = []string{"[Service]", "[Socket]", "sendmail_path = ", "----Queue ID", "postfix/pickup", "postino.toml:14:7:"}

// display is a literal part of a document.
type display struct {
	file  string
	line  int
	lines []string
}

// named is a place without a line.
type named string

func (n named) String() string { return string(n) }

func (d *display) String() string { return fmt.Sprintf("%s:%d", d.file, d.line) }
func (d *display) text() string   { return strings.Join(d.lines, "\n") + "\n" }

// displays are the literal parts of a document: what is indented by four in Markdown,
// and of a page .Bd -literal and .Dl.
func displays(t testing.TB, file string) []display {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var list []display
	inside := false
	add := func(n int, line string) {
		if !inside {
			list = append(list, display{file: file, line: n})
		}
		d := &list[len(list)-1]
		d.lines = append(d.lines, line)
	}
	for i, line := range strings.Split(string(text), "\n") {
		literal, one := false, ""
		if filepath.Ext(file) == ".md" {
			one, literal = strings.CutPrefix(line, "    ")
			literal = literal || line == "" && inside
		} else {
			one = unescape.Replace(line)
			literal = inside && line != ".Ed"
			if rest, ok := strings.CutPrefix(one, ".Dl "); ok {
				add(i+1, rest)
			}
			if strings.HasPrefix(line, ".Bd -literal") {
				inside = true
				list = append(list, display{file: file, line: i + 1})
				continue
			}
		}
		if literal {
			add(i+1, one)
		}
		inside = literal
	}
	return list
}

// quoted are our commands within the text of a document.
var quoted = regexp.MustCompile("(?m)(?:^\\.Ql |`)(postino [a-z][^`\n]*?)(?:`|(?: [.,;:)])*$)")

// unescape makes text of what mdoc(7) has in our pages.
var unescape = strings.NewReplacer(`\e`, `\`, `\(aq`, `'`, `\(dq`, `"`, `\(ti`, `~`, `\-`, `-`, `\&`, ``)

var (
	tomlLine    = regexp.MustCompile(`^(\[|[a-z_]+ = )`)
	aliasLine   = regexp.MustCompile(`^(# who reads|[a-z]+: )`)
	remark      = regexp.MustCompile(`\s+# .*`)
	prompt      = regexp.MustCompile(`^[$#] `)
	separator   = regexp.MustCompile(`&&|\|\||[|;]`)
	flagWord    = regexp.MustCompile(`--[a-z-]+`)
	ourPath     = regexp.MustCompile(`^(\./|config/)[a-z/-]*\.sh`)
	ourUnit     = regexp.MustCompile(`postino[a-z@-]*\.[a-z]+`)
	placeholder = regexp.MustCompile(`\b0?6[0-9A-F]{14,15}\b`)
)

// typed are the lines of a display as a shell gets them.
func (d *display) typed() []string {
	text := strings.ReplaceAll(d.text(), "\\\n", " ")
	text = strings.ReplaceAll(text, "&&\n", "&& ")
	var list []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(remark.ReplaceAllString(prompt.ReplaceAllString(line, ""), ""))
		if line != "" {
			list = append(list, line)
		}
	}
	return list
}

// desk is where the examples are tried: a runner with the configuration of the README
// and a smarthost, and files where they are expected, all below one directory.
type desk struct {
	*box
	paths  *strings.Replacer
	notRun map[string]bool // which of those were met
	id     string          // of a message that waits
}

func newDesk(t testing.TB) *desk {
	s := relaytest.New(t, relaytest.Options{TLS: relaytest.StartTLS, Users: map[string]string{"web1": "geheim"},
		Rules: []relaytest.Rule{{At: "RCPT", Arg: "@gone.example", Reply: "452 4.2.2 over quota"}}})
	b := newBox(t, "")
	here := func(parts ...string) string { return filepath.Join(append([]string{b.dir}, parts...)...) }
	b.config, b.front = here("etc", "postino", "postino.toml"), program("sendmail")
	for _, dir := range []string{here("etc", "postino"), here("root")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d := &desk{box: b, notRun: make(map[string]bool)}
	main := here("etc", "main.cf")
	d.paths = strings.NewReplacer("/etc/postino/", here("etc", "postino")+"/", "/root/", here("root")+"/", "/etc/aliases.new", here("etc", "aliases"),
		"/usr/sbin/sendmail", program("sendmail"), "/var/lib/node_exporter", here("root"), "www-data", "root", "import postfix --secrets", "import postfix "+main+" --secrets",
		`host = "smtp.example.net"`, fmt.Sprintf("host = \"127.0.0.1\"\nca_file = %q", s.CAFile()), "port = 587", "port = "+strconv.Itoa(s.Port()))
	relay := fmt.Sprintf("[127.0.0.1]:%d", s.Port())
	for name, text := range map[string]string{
		here("etc", "postino", "relay.pass"): "geheim\n",
		here("etc", "aliases"):               "root: ops@example.com\n",
		here("message"):                      "To: ann@example.org\n\nhi\n",
		here("message.eml"):                  "To: bob@example.org\n\nhi\n",
		here("etc", "passwords"):             relay + " web1:geheim\n",
		main: "myhostname = web1.example.com\nrelayhost = " + relay + "\nsmtp_tls_security_level = secure\nsmtp_tls_CAfile = " + s.CAFile() +
			"\nsmtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = texthash:" + here("etc", "passwords") + "\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// shell runs a command line where the examples are tried.
func (d *desk) shell(line string) result {
	d.t.Helper()
	cmd := d.command("", "/bin/sh", "-euc", d.paths.Replace(line))
	cmd.Env[0] = "PATH=" + filepath.Dir(program("postino")) + ":/usr/sbin:/usr/bin:/sbin:/bin"
	cmd.Dir = d.dir
	return d.run(cmd)
}

// try runs one line of an example, or parses it.
func (d *desk) try(where fmt.Stringer, line string) {
	d.t.Helper()
	for _, part := range separator.Split(line, -1) {
		d.parse(where, strings.TrimPrefix(strings.TrimSpace(part), "sudo "))
	}
	for _, n := range notRun {
		if strings.HasPrefix(line, n[0]) {
			d.notRun[n[0]] = true
			return
		}
	}
	if r := d.shell(placeholder.ReplaceAllString(line, d.id)); r.code != 0 {
		d.t.Errorf("%v: %s\nends with %d, %s%s", where, line, r.code, r.out, r.err)
	}
}

// parse looks at the flags of postino and install.sh, and whether files of ours exist.
func (d *desk) parse(where fmt.Stringer, command string) {
	d.t.Helper()
	if strings.HasPrefix(command, "postino ") {
		if r := d.shell(command + " --help"); r.code != 0 {
			d.t.Errorf("%v: %s: %s", where, command, r.err)
		}
	}
	if strings.HasPrefix(command, "systemctl ") {
		for _, unit := range ourUnit.FindAllString(command, -1) {
			d.there(where, "config/system/"+unit)
		}
	}
	if path := ourPath.FindString(command); path != "" {
		d.there(where, path)
	}
	if strings.HasPrefix(command, "./install.sh") {
		script, err := os.ReadFile("../install.sh")
		if err != nil {
			d.t.Fatal(err)
		}
		for _, word := range flagWord.FindAllString(command, -1) {
			if !strings.Contains(string(script), "\n\t\t"+word+")") {
				d.t.Errorf("%v: %s: there is no %s", where, command, word)
			}
		}
	}
}

// there wants a file of the source.
func (d *desk) there(where fmt.Stringer, path string) {
	d.t.Helper()
	if _, err := os.Stat(filepath.Join("..", path)); err != nil {
		d.t.Errorf("%v: %v", where, err)
	}
}

// accept has postino check what is no command line. It reports whether it was none.
func (d *desk) accept(e *display) bool {
	d.t.Helper()
	for _, start := range otherExamples {
		if strings.HasPrefix(e.lines[0], start) {
			return true
		}
	}
	checker := ""
	switch {
	case tomlLine.MatchString(e.lines[0]):
		checker = "config check"
	case aliasLine.MatchString(e.lines[0]):
		checker = "aliases check"
	default:
		return false
	}
	name := filepath.Join(d.dir, "example")
	if err := os.WriteFile(name, []byte(d.paths.Replace(e.text())), 0o600); err != nil {
		d.t.Fatal(err)
	}
	if r := d.shell("postino " + checker + " " + name); r.code != 0 {
		d.t.Errorf("%v: %s", e, r.err)
	} else if strings.Contains(e.text(), "[relay]") && d.id == "" { // the first one is the README's
		if err := os.Rename(name, d.config); err != nil {
			d.t.Fatal(err)
		}
		d.start()
	}
	return true
}

// wait submits a message that is not delivered, for examples about one.
func (d *desk) wait() {
	d.t.Helper()
	d.sendmail("Subject: weekly report\n\nhi\n", "-i", "bob@gone.example", "bob@example.org", "you@example.org", "ann@example.org")
	d.id, _, _ = strings.Cut(strings.TrimPrefix(d.postino("queue", "--json"), `{"id":"`), `"`)
}

// Each example in the README and in the pages does what it is there for: command lines
// run, or where they cannot do so here their flags are parsed, and configurations are
// accepted.
func TestExamplesOfTheDocumentsWork(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, pattern := range documents {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(pattern, err)
		}
		for _, file := range files {
			if d.id != "" {
				d.wait()
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, found := range quoted.FindAllSubmatch(text, -1) {
				d.parse(named(file), string(found[1]))
			}
			for _, e := range displays(t, file) {
				if d.accept(&e) {
					if d.id == "" && d.holder() != 0 {
						d.wait()
					}
					continue
				}
				if d.id == "" && d.t.Failed() {
					d.t.FailNow()
				}
				for _, line := range e.typed() {
					d.try(&e, line)
				}
			}
		}
	}
	for _, n := range notRun {
		if !d.notRun[n[0]] {
			t.Errorf("no example begins with %q any more", n[0])
		}
	}
}
