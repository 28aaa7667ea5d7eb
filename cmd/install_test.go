package cmd_test

import (
	"strings"
	"testing"
)

// held is a configuration that sends nothing.
const held = `
mkdir -p /etc/postino
printf 'hostname = "web.test"\nmode = "hold"\n' >/etc/postino/postino.toml
`

// sent submits a message as nobody.
const sent = `
send() { printf 'Subject: %s\n\nhello\n' "$1" | setpriv --reuid=65534 --regid=65534 --clear-groups ${2:-/usr/sbin/sendmail} -i alice@example.org; }
`

// What is installed is there, works, is what --dry-run says, and stays as it is when it is installed again;
// when it is taken away, the system is as it was, to the last file, with each kind of
// service manager and with each way to take sendmail's place.
func TestUninstallLeavesTheSystemAsItWas(t *testing.T) {
	t.Parallel()
	for name, given := range waysOfSendmail() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			out, changed := m.run(held+given, sent+`
cd /src
as_said() { # ARGUMENTS: does what they say, which --dry-run has to tell
	./install.sh "$@" --dry-run | grep '^  ' >/tmp/dry
	./install.sh "$@" | grep '^  ' | diff /tmp/dry -
}
as_said --binaries /bin.new --service none
for path in /usr/sbin/sendmail /usr/lib/sendmail; do
	send "to-$path" $path
done
for program in sendmail mailq newaliases; do echo "$program: $(readlink -f $(command -v $program))"; done
mailq
[ "$(postino doctor 2>/dev/null | grep -c '^ok *bin[.]')" = 3 ]
echo "--- again"
./install.sh --binaries /bin.new
echo "--- end"
postino delete --all
as_said --uninstall --purge
`)
			if changed != "" {
				t.Errorf("changed:\n%s", changed)
			}
			_, again, _ := strings.Cut(out, "--- again\n")
			again, _, _ = strings.Cut(again, "--- end\n")
			for _, word := range []string{"  install ", "  link ", "  mkdir ", "  ln ", "useradd"} {
				if strings.Contains(again, word) {
					t.Errorf("installed again:\n%s", again)
				}
			}
			for _, want := range []string{"sendmail: /usr/local/lib/postino/sendmail", "mailq: /usr/local/lib/postino/sendmail",
				"newaliases: /usr/local/lib/postino/sendmail", "in 2 Requests"} {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in:\n%s", want, out)
				}
			}
		})
	}
}

// What stays when postino is taken away, its configuration among it, goes when the
// same is said again with --purge, and not while mail waits there.
func TestPurgeTakesAwayWhatStayed(t *testing.T) {
	t.Parallel()
	out, changed := newMachine(t).run("rm -rf /etc/postino", sent+`
cd /src
./install.sh --binaries /bin.new --service none --without-mta
printf 'mode = "hold"\n' >/etc/postino/postino.toml
postino reload
send held /usr/local/lib/postino/sendmail
./install.sh --uninstall
echo "--- stayed"
./install.sh --uninstall --purge && echo purged a message
ls -d /etc/postino/postino.toml /var/spool/postino/spool.db
./install.sh --binaries /bin.new --service none --without-mta >/dev/null
postino delete --all
./install.sh --uninstall >/dev/null
./install.sh --uninstall --purge
`)
	_, stayed, _ := strings.Cut(out, "--- stayed\n")
	if changed != "" || !strings.HasPrefix(stayed, "install.sh: messages that are not delivered yet: 1:") || strings.Contains(stayed, " stays\n") ||
		!strings.Contains(stayed, "\n/etc/postino/postino.toml\n/var/spool/postino/spool.db\n") {
		t.Errorf("changed:\n%s\nafter:\n%s", changed, stayed)
	}
}

// waysOfSendmail are the ways in which sendmail is in its place, or is not.
func waysOfSendmail() map[string]string {
	const without = "rm -f /usr/bin/dpkg-divert; "
	return map[string]string{
		"diversions":   "",
		"plain":        without,
		"beside":       "for name in mailq newaliases; do ln -s sendmail /usr/sbin/$name; done",
		"nothing":      without + "rm -f /usr/sbin/sendmail /usr/lib/sendmail /usr/bin/mailq /usr/bin/newaliases",
		"alternatives": without + alternativesOfRedHat,
	}
}

// alternativesOfRedHat is a system with another mailer in the group that Fedora and
// its relatives have for them, chosen by hand. Debian's program has the same flags.
const alternativesOfRedHat = `
ln -s update-alternatives /usr/bin/alternatives
for path in /usr/sbin/sendmail /usr/lib/sendmail /usr/bin/mailq /usr/bin/newaliases; do
	rm -f $path
done
for name in other another; do printf '#!/bin/sh\n' >/usr/sbin/sendmail.$name; chmod 755 /usr/sbin/sendmail.$name; done
alternatives --install /usr/sbin/sendmail mta /usr/sbin/sendmail.other 30 --slave /usr/bin/mailq mta-mailq /usr/sbin/sendmail.other
alternatives --install /usr/sbin/sendmail mta /usr/sbin/sendmail.another 90
alternatives --set mta /usr/sbin/sendmail.other
`

// --dry-run says what would be done, and does nothing; --root copies files below a
// directory and does nothing else.
func TestDryRunAndRootLeaveTheSystemAlone(t *testing.T) {
	t.Parallel()
	out, changed := newMachine(t).run("", `
cd /src
./install.sh --binaries /bin.new --dry-run
echo "--- root"
./install.sh --binaries /bin.new --prefix /usr --root /tmp/stage >/dev/null
DESTDIR=/tmp/stage2 ./install.sh --binaries /bin.new --prefix /usr >/dev/null
diff -r --no-dereference /tmp/stage /tmp/stage2
cd /tmp/stage
find . ! -type d -printf '%P %m %l\n' | sort
`)
	if changed != "" {
		t.Errorf("changed:\n%s", changed)
	}
	dry, root, _ := strings.Cut(out, "--- root\n")
	for _, want := range []string{"install /usr/local/lib/postino/sendmail\n", "useradd ", "link /usr/sbin/sendmail -> /usr/local/lib/postino/sendmail\n"} {
		if !strings.Contains(dry, want) {
			t.Errorf("no %q in:\n%s", want, dry)
		}
	}
	for _, want := range []string{"usr/bin/postino 777 ../lib/postino/postino\n", "usr/lib/postino/postino 755 \n", "usr/sbin/sendmail 777 /usr/lib/postino/sendmail\n",
		"usr/lib/systemd/system/postino.service 644 \n", "usr/share/man/man8/postino.8 644 \n", "usr/share/man/man8/postino-queue.8 644 \n"} {
		if !strings.Contains(root, want) {
			t.Errorf("no %q in:\n%s", want, root)
		}
	}
}
