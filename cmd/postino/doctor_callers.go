package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path"
	"slices"
	"strings"
)

// phpPlaces are where PHP of Debian, Fedora, Alpine, Remi and the images for containers
// looks for its settings: php.ini in a directory, and beside it what else is read, the
// later file counting, and the pools of php-fpm, each of which may have its own.
func phpPlaces() [][3]string {
	return [][3]string{
		{"etc/php/*/*", "conf.d/*.ini", "pool.d/*.conf"},
		{"etc", "php.d/*.ini", "php-fpm.d/*.conf"},
		{"etc/php[0-9]*", "conf.d/*.ini", "php-fpm.d/*.conf"},
		{"etc/opt/remi/php*", "php.d/*.ini", "php-fpm.d/*.conf"},
		{"usr/local/etc/php", "conf.d/*.ini", "../php-fpm.d/*.conf"},
	}
}

// cronFiles are where options of cron are; cronie's -m names what sends its mail.
func cronFiles() []string {
	return []string{"etc/sysconfig/crond", "etc/default/cron", "etc/default/cronie", "etc/conf.d/cronie", "etc/conf.d/crond"}
}

// setting is a line of a file.
type setting struct{ where, key, value string }

// callers looks how PHP and cron are told to send mail, in their files below a root;
// nothing of theirs is run. There is a finding for each place.
func callers(root fs.FS) []finding {
	var found []finding
	for _, p := range phpPlaces() {
		dirs, _ := fs.Glob(root, p[0]) // the patterns are right
		for _, dir := range dirs {
			found = append(found, php(root, dir, path.Join(dir, p[1]), path.Join(dir, p[2]))...)
		}
	}
	for _, name := range cronFiles() {
		for _, s := range settings(root, name) {
			words, _ := shellWords(s.value)
			for n := 1; n < len(words); n++ {
				if words[n-1] == "-m" {
					found = append(found, judge("cron.sendmail", "cron", s.where+": -m", words[n]))
				}
			}
		}
	}
	return found
}

// php looks at one installation of PHP, if it is one.
func php(root fs.FS, dir, more, pools string) []finding {
	files, _ := fs.Glob(root, more)
	files = append([]string{path.Join(dir, "php.ini")}, files...)
	var calls, extra setting
	some := false
	for _, name := range files {
		list := settings(root, name)
		some = some || len(list) > 0
		for _, s := range list {
			switch s.key {
			case "sendmail_path":
				calls = s
			case "mail.force_extra_parameters":
				extra = s
			}
		}
	}
	if !some {
		return nil
	}
	const check = "php.sendmail"
	full := func(s setting) finding {
		if strings.TrimSpace(s.value) == "" {
			return finding{check, failing, s.where + ": sendmail_path is empty: mail() says that it has sent the mail, and it is lost",
				`sendmail_path = "/usr/sbin/sendmail -t -i", or leave it out`}
		}
		return judge(check, "PHP", s.where, strings.TrimSpace(s.value+" "+extra.value))
	}
	var found []finding
	if calls.where != "" {
		found = append(found, full(calls))
	} else {
		found = append(found, finding{check, well, "/" + dir + ": sendmail_path is not set: PHP calls what it was built with, /usr/sbin/sendmail -t -i as a rule", ""})
	}
	files, _ = fs.Glob(root, pools)
	for _, name := range files {
		for _, s := range settings(root, name) {
			if s.key == "php_admin_value[sendmail_path]" || s.key == "php_value[sendmail_path]" {
				found = append(found, full(s))
			}
		}
	}
	return found
}

// maxSettings bounds, in octets, how much of a file of settings is read.
const maxSettings = 1 << 20

// settings reads the lines "key = value" of a file of PHP or of shell variables; there
// are none in one that cannot be read.
func settings(root fs.FS, name string) []setting {
	f, err := root.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	var list []setting
	lines := bufio.NewScanner(io.LimitReader(f, maxSettings))
	for n := 1; lines.Scan(); n++ {
		key, value, found := strings.Cut(lines.Text(), "=")
		key = strings.TrimSpace(key)
		if found && !strings.ContainsAny(key[:min(1, len(key))], ";#") {
			list = append(list, setting{fmt.Sprintf("/%s:%d", name, n), key, unquoted(strings.TrimSpace(value))})
		}
	}
	return list
}

// unquoted is a value without its quotes, or without the comment behind it.
func unquoted(value string) string {
	if value == "" || value[0] != '"' && value[0] != '\'' {
		value, _, _ = strings.Cut(value, ";")
		return strings.TrimSpace(value)
	}
	var b strings.Builder
	for n := 1; n < len(value) && value[n] != value[0]; n++ {
		if value[0] == '"' && value[n] == '\\' && n+1 < len(value) {
			n++
		}
		b.WriteByte(value[n])
	}
	return b.String()
}

// shellWords splits a command into its words. It fails where the shell does more with
// it than that.
func shellWords(command string) ([]string, error) {
	var words []string
	var word strings.Builder
	begun, quote := false, byte(0)
	for n := range len(command) {
		switch c := command[n]; {
		case quote == 0 && (c == ' ' || c == '\t'):
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		case quote == 0 && (c == '"' || c == '\''):
			quote, begun = c, true
		case c == quote && quote != 0:
			quote = 0
		case strings.IndexByte("$`\\", c) >= 0 && quote != '\'', strings.IndexByte("|&;<>()*?[#~\n", c) >= 0 && quote == 0:
			return nil, errors.New("the shell has to make sense of it")
		default:
			word.WriteByte(c)
			begun = true
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote is not closed")
	}
	if begun {
		words = append(words, word.String())
	}
	return words, nil
}

// judge says whether a command that is to send mail, with the recipients in its header,
// is ours and will do it. who says so, at where.
func judge(check, who, where, command string) finding {
	where += ": " + command
	words, err := shellWords(command)
	if err != nil {
		return finding{check, skipped, fmt.Sprintf("%s: %v", where, err), "see that it ends in /usr/sbin/sendmail -t -i"}
	}
	for len(words) > 0 && (path.Base(words[0]) == "env" || strings.Contains(words[0], "=")) {
		words = words[1:]
	}
	if len(words) == 0 || words[0] == "off" {
		return finding{check, warning, where + ": " + who + " sends no mail", "leave it out"}
	}
	name, err := exec.LookPath(words[0])
	if err != nil {
		return finding{check, failing, fmt.Sprintf("%s: %v: mail of %s is lost", where, err, who), "name /usr/sbin/sendmail -t -i, or leave it out"}
	}
	if _, ours, err := identify(name); err != nil || !ours {
		return finding{check, warning, where + ", which is not postino's: mail of " + who + " goes another way", "name /usr/sbin/sendmail -t -i, or leave it out"}
	}
	if err := readsMessage(words[1:]); err != nil {
		return finding{check, failing, fmt.Sprintf("%s: %v: mail of %s is refused", where, err, who), "name /usr/sbin/sendmail -t -i, or leave it out"}
	}
	return finding{check, well, where + ", of postino", ""}
}

// readsMessage says why sendmail would not take a message from such a call for the
// recipients in the header.
func readsMessage(args []string) error {
	o, err := parseSendmail(args)
	if err != nil {
		return err
	}
	switch o.mode {
	case "", "m", "q":
	case "s":
		return nil // by SMTP, as some libraries speak it to what sendmail_path names
	default:
		return fmt.Errorf("-b%s takes no message", o.mode)
	}
	switch {
	case o.help || o.queue != nil:
		return errors.New("that takes no message")
	case slices.ContainsFunc(o.operands, func(s string) bool { return strings.HasPrefix(s, "-") }):
		return fmt.Errorf("options come before the recipients: %q", o.operands)
	case !o.header:
		return errors.New("without -t nobody reads the recipients, which are in the header")
	}
	return nil
}
