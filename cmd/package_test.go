package cmd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// debianVariable names a directory with another Debian to install the packages on,
// made by debootstrap; see CONTRIBUTING.md. Otherwise it is a copy of this machine.
const debianVariable = "POSTINO_TEST_DEBIAN"

// makePackages makes the packages of a version from the source in a directory.
func makePackages(t testing.TB, source, version, umask, out string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", "umask $1; shift; exec \"$@\"", "sh", umask, filepath.Join(source, "config/system/package.sh"), out)
	cmd.Env = append(os.Environ(), "VERSION="+version, "SOURCE_DATE_EPOCH=1795500000")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("package.sh: %v\n%s", err, said)
	}
}

// The same source makes the same packages, wherever it is and whatever the umask and
// the time; they have in them what there is to install; and Debian replaces another
// mailer by them, upgrades while mail is sent, removes and purges.
func TestPackages(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "another place")
	if out, err := exec.Command("cp", "-r", "..", elsewhere).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var made sync.WaitGroup
	for _, p := range []struct{ source, version, umask, out string }{
		{"..", "1.0.0", "022", "one"}, {elsewhere, "1.0.0", "077", "again"}, {"..", "1.0.1", "022", "two"},
	} {
		made.Go(func() { makePackages(t, p.source, p.version, p.umask, filepath.Join(dir, p.out)) })
	}
	made.Wait()
	if t.Failed() {
		return
	}
	one, again := sums(t, dir, "one"), sums(t, dir, "again")
	if one != again {
		t.Errorf("two builds of the same:\n%s\n%s", one, again)
	}
	t.Run("contents", func(t *testing.T) { t.Parallel(); checkContents(t, filepath.Join(dir, "one")) })
	t.Run("rpm", func(t *testing.T) { t.Parallel(); checkRPM(t, dir) })
	t.Run("apk", func(t *testing.T) { t.Parallel(); checkAPK(t, filepath.Join(dir, "one")) })
	t.Run("deb", func(t *testing.T) { t.Parallel(); checkDebian(t, dir) })
}

// sums are the checksums of packages, which must be theirs.
func sums(t testing.TB, dir, version string) string {
	t.Helper()
	check := exec.Command("sha256sum", "--check", "--quiet", "SHA256SUMS")
	check.Dir = filepath.Join(dir, version)
	if out, err := check.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(check.Dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// checkContents looks into the packages that cannot be installed here.
func checkContents(t testing.TB, dir string) {
	needs(t, "rpm", "rpm")
	shell := func(script string) string {
		cmd := exec.Command("sh", "-euc", script)
		cmd.Dir = dir
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("%s: %v", script, err)
		}
		return string(out)
	}
	tests := []struct {
		script string
		has    []string
		not    string
	}{
		{"rpm -qp --nosignature --list --scripts --provides --requires postino-1.0.0-1.*.rpm",
			[]string{"/usr/lib/postino/sendmail\n", "/usr/lib/systemd/system/postino.socket\n", "/etc/default/postino\n", "useradd", "systemctl"}, "/usr/sbin/sendmail\n"},
		{"rpm -qp --nosignature --list --scripts --provides --requires postino-mta-*.rpm",
			[]string{"alternatives --install /usr/sbin/sendmail mta ", "\nMTA", "\n/usr/sbin/sendmail\n", "postino = 1.0.0\n", "/usr/share/man/man8/sendmail.8\n"}, "server(smtp)"},
		{"rpm -qp --nosignature --configfiles postino-1.0.0-1.*.rpm", []string{"/etc/default/postino\n"}, "toml"},
		{"rpm2cpio postino-1.0.0-1.*.rpm | cpio --quiet -it", []string{"/usr/lib/postino/postino\n", "/usr/share/man/man5/postino.toml.5\n"}, "init.d"},
		{"tar --warning=no-unknown-keyword -xzOf postino_1.0.0_*.apk .PKGINFO .post-upgrade; tar --warning=no-unknown-keyword -tzf postino_1.0.0_*.apk",
			[]string{"pkgver = 1.0.0\n", "adduser", "etc/init.d/postino\n", "etc/init.d/postino-mailbox\n", "etc/init.d/postino-program\n", "usr/share/fish/vendor_completions.d/postino.fish\n"}, "usr/sbin/sendmail\n"},
		{"tar --warning=no-unknown-keyword -xzOf postino-mta_1.0.0_*.apk .PKGINFO; tar --warning=no-unknown-keyword -tzf postino-mta_1.0.0_*.apk", []string{"replaces = busybox\n", "depend = postino=1.0.0\n", "usr/sbin/sendmail\n"}, "usr/lib/postino"},
	}
	for _, tt := range tests {
		out := shell(tt.script)
		for _, want := range tt.has {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in\n%s", tt.script, want, out)
			}
		}
		if strings.Contains(out, tt.not) {
			t.Errorf("%s: %q in\n%s", tt.script, tt.not, out)
		}
	}
}

// mailOfCron has cron send, as soon as a minute is over.
const mailOfCron = `
echo '* * * * * root echo what the job said' >/etc/cron.d/probe
cron
await postino trace "echo what the job said"
postino trace "echo what the job said" | sed -n 's/^  arrived.*uid/cron: uid/p'
kill $(pidof cron)
rm /etc/cron.d/probe
`

// checkDebian does with the packages what an administrator does.
func checkDebian(t testing.TB, dir string) {
	m := newMachine(t)
	needs(t, "dpkg", "dpkg")
	m.shared = dir
	byCron := ""
	if other := os.Getenv(debianVariable); other != "" {
		m.lower = other
		byCron = mailOfCron // within a minute
	}
	out, changed := m.run("rm -f /var/lib/man-db/auto-update", sent+awaited+`
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d
mkdir -p /etc/postino
printf 'hostname = "web.test"\nmode = "hold"\n' >/etc/postino/postino.toml
echo "before: $(dpkg -S /usr/sbin/sendmail)"
apt-get -q -y --no-install-recommends install /shared/one/*.deb
echo "after: $(dpkg -S /usr/sbin/sendmail)"
echo "users: $(dpkg-query -W -f '${db:Status-Abbrev}${Package} ' bsd-mailx cron)"
[ ! -e /run/systemd/system ]
sendmail -bd
await postino status
php -n -r 'exit(mail("bob@example.org", "by PHP", "hello") ? 0 : 1);'
echo hello | mail -s "by mail" bob@example.org
for name in PHP mail; do postino trace "by $name" | sed -n "s/^  arrived.*uid/$name: uid/p"; done
echo '# mine' >>/etc/default/postino
old=$(pid)
for who in a b; do
	(
		n=0
		until [ -e /tmp/enough ]; do send "$who $n" || { echo "FAILED: status $?"; exit; }; n=$((n + 1)); done
		echo $n >/tmp/sent.$who
	) &
	senders="${senders-} $!"
done
dpkg -i /shared/two/*.deb
await another $old
touch /tmp/enough
wait $senders
await taken
echo "sent $(($(cat /tmp/sent.a) + $(cat /tmp/sent.b) + 2)), queued $(postino queue --json | wc -l)"
postino status | head -n 1
sendmail --version
tail -n 1 /etc/default/postino
`+byCron+`
apt-get -q -y remove postino postino-mta
await ended
[ -e /var/spool/postino/spool.db ] && [ -e /etc/default/postino ] && [ ! -e /usr/bin/postino ] && id postino
dpkg --purge postino
rm /usr/sbin/policy-rc.d
`)
	allIsThere(t, out)
	for _, want := range []string{"after: postino-mta: /usr/sbin/sendmail", "users: ii bsd-mailx ii cron ", "PHP: uid 0", "mail: uid 0", "postino 1.0.1 runs", "postino sendmail 1.0.1\n", "\n# mine\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if byCron != "" && !strings.Contains(out, "cron: uid 0") {
		t.Errorf("nothing by cron:\n%s", out)
	}
	for line := range strings.Lines(changed) {
		if strings.Contains(line, "postino") {
			t.Errorf("after purge: %s", line)
		}
	}
}
