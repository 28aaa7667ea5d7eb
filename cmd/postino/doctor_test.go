package main

import (
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// tree makes a file system of a text: "path: a line", and further lines below it.
func tree(text string) fstest.MapFS {
	files := fstest.MapFS{}
	var current *fstest.MapFile
	for line := range strings.Lines(text) {
		if name, first, found := strings.Cut(line, ": "); found && strings.Contains(name, "/") && !strings.Contains(name, "=") {
			current = &fstest.MapFile{Data: []byte(first)}
			files[name] = current
			continue
		}
		current.Data = append(current.Data, line...)
	}
	return files
}

// The doctor says of each place where PHP and cron are told what to call whether their
// mail comes here. OURS is a program of postino.
func TestDoctorSaysWhatPHPAndCronCall(t *testing.T) {
	ours, err := os.Executable() // its path in the build information begins as that of all our programs
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ files, want string }{
		{"", ""},
		{"etc/hosts: 127.0.0.1 localhost\n", ""},
		{"etc/php/8.2/mods-available/x.ini: extension = x\n", ""},
		{"etc/php/8.2/cli/php.ini: ;sendmail_path =\nmemory_limit = 1\n", "ok php.sendmail /etc/php/8.2/cli: sendmail_path is not set"},
		{"etc/php.ini: sendmail_path = OURS -t -i ; that is it\n", "ok php.sendmail /etc/php.ini:1: OURS -t -i, of postino"},
		{"etc/php83/php.ini: a = 1\netc/php83/conf.d/50-mail.ini: sendmail_path = \"OURS -t\"\n", "ok php.sendmail /etc/php83/conf.d/50-mail.ini:1: OURS -t"},
		{"usr/local/etc/php/conf.d/a.ini: sendmail_path = '/usr/bin/env A=b OURS -bs'\n", "ok php.sendmail"},
		{"etc/php.ini: sendmail_path =\n", "fail php.sendmail /etc/php.ini:1: sendmail_path is empty"},
		{"etc/php.ini: sendmail_path = /bin/cat -t\n", "warn php.sendmail /etc/php.ini:1: /bin/cat -t, which is not postino's"},
		{"etc/php.ini: sendmail_path = /no/such/sendmail -t -i\n", "fail php.sendmail /etc/php.ini:1: /no/such/sendmail -t -i"},
		{"etc/php.ini: sendmail_path = OURS -i\n", "fail php.sendmail /etc/php.ini:1: OURS -i: without -t"},
		{"etc/php.ini: sendmail_path = OURS -t -Z\n", "fail php.sendmail /etc/php.ini:1: OURS -t -Z: \"-Z\" is not an option"},
		{"etc/php.ini: sendmail_path = OURS -t -f\n", "fail php.sendmail /etc/php.ini:1: OURS -t -f: -f needs a value"},
		{"etc/php.ini: sendmail_path = OURS -t -bp\n", "fail php.sendmail /etc/php.ini:1: OURS -t -bp: -bp takes no message"},
		{"etc/php.ini: sendmail_path = OURS -t bob -i\n", "fail php.sendmail /etc/php.ini:1: OURS -t bob -i: options come before"},
		{"etc/php.ini: sendmail_path = OURS -t\nmail.force_extra_parameters = -Z\n", "fail php.sendmail /etc/php.ini:1: OURS -t -Z"},
		{"etc/php.ini: sendmail_path = OURS -t -f \"$USER\"\n", "skip php.sendmail /etc/php.ini:1"},
		{"etc/php.ini: sendmail_path = \"OURS -t | tee /tmp/x\"\n", "skip php.sendmail /etc/php.ini:1"},
		{"etc/php.ini: sendmail_path = 'OURS -t -f \"me'\n", "skip php.sendmail /etc/php.ini:1: OURS -t -f \"me: a quote is not closed"},
		{
			"etc/php/8.2/fpm/php.ini: x = 1\netc/php/8.2/fpm/pool.d/shop.conf: [shop]\nphp_admin_value[sendmail_path] = OURS -t -i -f shop@web.test\n",
			"ok php.sendmail /etc/php/8.2/fpm: sendmail_path is not set\nok php.sendmail /etc/php/8.2/fpm/pool.d/shop.conf:2: OURS -t -i -f shop@web.test",
		},
		{"etc/sysconfig/crond: # options\nCRONDARGS=\"-s -m off\"\n", "warn cron.sendmail /etc/sysconfig/crond:2: -m: off: cron sends no mail"},
		{"etc/default/cron: EXTRA_OPTS='-m \"OURS -t\" -L 1'\n", "ok cron.sendmail /etc/default/cron:1: -m: OURS -t"},
		{"etc/default/cron: EXTRA_OPTS='-L 1'\n", ""},
	} {
		got := callers(tree(strings.ReplaceAll(tt.files, "OURS", ours)))
		want := strings.Split(strings.ReplaceAll(tt.want, "OURS", ours), "\n")
		if tt.want == "" {
			want = nil
		}
		if len(got) != len(want) {
			t.Errorf("%q: got %+v, want %q", tt.files, got, want)
			continue
		}
		for i, f := range got {
			if line := f.Status + " " + f.Check + " " + f.Found; !strings.HasPrefix(line, want[i]) || f.Remedy == "" && f.Status != well {
				t.Errorf("%q: got %+v, want %q", tt.files, f, want[i])
			}
		}
	}
}

// A clock is wrong when something that has happened is yet to come.
func TestDoctorKnowsAWrongClock(t *testing.T) {
	now := arrival
	for _, tt := range []struct {
		after  time.Duration
		status string
	}{{-time.Hour, well}, {0, well}, {clockSlack, well}, {clockSlack + time.Second, failing}} {
		if f := judgeClock(now, []moment{{"it began", now.Add(-time.Hour)}, {"mail came", now.Add(tt.after)}}); f.Status != tt.status {
			t.Errorf("%v after now: got %+v, want %s", tt.after, f, tt.status)
		}
	}
}

// What a file of PHP has is read or passed over, whatever it is; quotes make a word of
// what is between them.
func FuzzSettings(f *testing.F) {
	for _, s := range []string{"sendmail_path = \"/usr/sbin/sendmail -t \\\"x\\\"\"", "=", "a='", "[x]\nmail.force_extra_parameters=-f $X;"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, f := range callers(fstest.MapFS{"etc/php.ini": {Data: []byte(text)}, "etc/default/cron": {Data: []byte(text)}}) {
			if f.Found == "" || f.Status != well && f.Remedy == "" {
				t.Errorf("%+v", f)
			}
		}
		words, err := shellWords(text)
		again := make([]string, len(words))
		for i, w := range words {
			again[i] = "'" + w + "'"
		}
		if got, _ := shellWords(strings.Join(again, " ")); err == nil && !strings.Contains(strings.Join(words, ""), "'") && !slices.Equal(got, words) {
			t.Errorf("%q: %q, and quoted %q", text, words, got)
		}
	})
}
