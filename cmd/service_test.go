package cmd_test

import (
	"fmt"
	"strings"
	"testing"
)

// awaited is for scripts: it repeats a command until it succeeds.
const awaited = `
await() {
	for n in $(seq 600); do
		if "$@" >/dev/null 2>&1; then return; fi
		sleep 0.1
	done
	echo "$*: never"; return 1
}
pid() { postino status | sed -n 's/.* runs as pid \([0-9]*\) .*/\1/p' | grep .; }
another() { now=$(pid) && [ "$now" != "$1" ]; }
ended() { ! pidof postino; }
taken() { [ -z "$(find /var/spool/postino/drop -type f)" ]; }
`

// upgraded sends mail all the while that postino is installed anew, and wants all of
// it in the queue, and the new program to run.
const upgraded = `
mkdir /tmp/bin.newer
cp /bin.new/* /tmp/bin.newer
printf 'newer' | tee -a /tmp/bin.newer/postino >>/tmp/bin.newer/sendmail
for who in a b c; do
	(
		n=0
		until [ -e /tmp/enough ]; do
			send "$who $n" || { echo "FAILED: status $?"; exit; }
			n=$((n + 1))
		done
		echo $n >/tmp/sent.$who
	) &
	senders="${senders-} $!"
done
old=$(pid)
./install.sh --binaries /tmp/bin.newer
await another $old
./install.sh --binaries /bin.new
touch /tmp/enough
wait $senders
await postino status
await taken
echo "sent $(cat /tmp/sent.* | paste -sd+ - | sed 's/.*/echo $((&))/' | sh), queued $(postino queue --json | wc -l)"
cmp /proc/$(pid)/exe /bin.new/postino
`

// allIsThere fails when not all that upgraded sent is in the queue.
func allIsThere(t testing.TB, out string) {
	t.Helper()
	_, line, _ := strings.Cut(out, "\nsent ")
	var sent, queued int
	if _, err := fmt.Sscanf(line, "%d, queued %d", &sent, &queued); err != nil || sent == 0 || sent != queued {
		t.Errorf("%d sent, %d queued\n%s", sent, queued, out)
	}
	t.Logf("%d messages were sent meanwhile", sent)
}

// programs has a program get mail for a name of this machine, by the service that is
// turned on by the command before, and puts the configuration back.
const programs = `
printf 'prog: "|cat >/tmp/mail.prog; id -un >>/tmp/mail.prog"\n' >/etc/postino/aliases
printf 'hostname = "web.test"\n[aliases]\nfile = "/etc/postino/aliases"\nprograms = true\nrun_as = "postino-program"\nhelper = "/run/postino/program.sock"\n' >/etc/postino/postino.toml
newaliases
await test -S /run/postino/program.sock
printf 'Subject: to a program\n\nhello\n' | sendmail prog
await grep -x postino-program /tmp/mail.prog
grep -x hello /tmp/mail.prog
setpriv --reuid=65534 --regid=65534 --clear-groups stat -L /run/postino/program.sock 2>/dev/null && { echo "a stranger gets to the socket"; exit 1; }
setpriv --reuid=postino-program --regid=postino-program --clear-groups mv /run/postino/mailbox.sock /run/postino/other.sock 2>/dev/null && { echo "programs get at mailboxes"; exit 1; }
rm /etc/postino/aliases
printf 'hostname = "web.test"\nmode = "hold"\n' >/etc/postino/postino.toml
newaliases
await sh -c 'postino status | grep "mode: hold"'
`

// mailboxes has a user's mailbox written as that user, by the service that is turned on by
// the command before. What waits there as root may do little, and its socket is not for
// strangers.
const mailboxes = `
printf 'hostname = "web.test"\n[local]\ndeliver = "mbox:/var/mail/{user}"\nhelper = "/run/postino/mailbox.sock"\n' >/etc/postino/postino.toml
postino reload
await test -S /run/postino/mailbox.sock
printf 'Subject: to a mailbox\n\nhello\n' | sendmail games
await grep -x hello /var/mail/games
[ "$(stat -c %U:%a /var/mail/games)" = games:660 ]
waiting=$(pgrep -f '^[^ ]*postino mailbox serve /run/postino/mailbox.sock')
grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs):' /proc/$waiting/status
[ "$(grep -cE '^(Cap(Eff|Prm|Bnd):	00000000000000e0|NoNewPrivs:	1)$' /proc/$waiting/status)" = 4 ]
setpriv --reuid=65534 --regid=65534 --clear-groups stat /run/postino/mailbox.sock 2>/dev/null && { echo "a stranger gets to the socket"; exit 1; }
rm /var/mail/games
`

// Under runit the runner is started, started again when it dies, and replaced by a new
// one while mail is sent, of which none is lost; and all is taken away again.
func TestRunitKeepsTheRunner(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	needs(t, "runsvdir", "runit")
	out, changed := m.run(held+"rm -rf /etc/service; mkdir /etc/service", sent+awaited+`
cd /src
runsvdir -P /etc/service &
./install.sh --binaries /bin.new --service runit
await postino status
first=$(pid)
kill -KILL $first
await another $first
ln -s /etc/sv/postino-mailbox /etc/service/
`+mailboxes+`
ln -s /etc/sv/postino-program /etc/service/
`+programs+upgraded+`
postino delete --all
./install.sh --uninstall --purge
await ended
[ -z "$(find /run -name 'postino*')" ]
`)
	allIsThere(t, out)
	if changed != "" {
		t.Errorf("changed:\n%s", changed)
	}
}

// The same under OpenRC, as far as it has started where it did not boot the system.
func TestOpenRCKeepsTheRunner(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	needs(t, "openrc-run", "openrc")
	out, changed := m.run(held, sent+awaited+`
cd /src
mkdir -p /run/openrc
(cd /run/openrc; echo default >softlevel; mkdir -p daemons exclusive failed hotplugged inactive options scheduled started starting stopping tmp wasinactive)
./install.sh --binaries /bin.new
await postino status
first=$(pid)
kill -KILL $first
await another $first
printf 'hostname = "web.test"\nmode = "capture"\n' >/etc/postino/postino.toml
rc-service postino reload
await sh -c 'postino status | grep "mode: capture"'
printf 'hostname = "web.test"\nmode = "hold"\n' >/etc/postino/postino.toml
rc-service postino reload
await sh -c 'postino status | grep "mode: hold"'
rc-update add postino-mailbox
rc-service postino-mailbox start
`+mailboxes+`
rc-update add postino-program
rc-service postino-program start
`+programs+upgraded+`
postino delete --all
./install.sh --uninstall --purge
await ended
[ -z "$(find /run -name 'postino*')" ]
`)
	allIsThere(t, out)
	if changed != "" {
		t.Errorf("changed:\n%s", changed)
	}
}

// Without a service manager it is the same, and what is not sent yet keeps the spool
// and its user from being taken away.
func TestUpgradeWithoutServiceManagerLosesNothing(t *testing.T) {
	t.Parallel()
	out, changed := newMachine(t).run(held, sent+awaited+`
cd /src
./install.sh --binaries /bin.new --service none
`+upgraded+`
./install.sh --uninstall --purge && exit 1
./install.sh --uninstall
[ -e /var/spool/postino/spool.db ] && id postino && [ ! -e /usr/local/lib/postino/postino ]
./install.sh --binaries /bin.new --service none >/dev/null
postino delete --all
./install.sh --uninstall
./install.sh --uninstall --purge
`)
	allIsThere(t, out)
	if changed != "" || !strings.Contains(out, "messages that are not delivered yet: ") {
		t.Errorf("changed:\n%s\nout:\n%s", changed, out)
	}
}

// The units are what systemd understands: no warning of its own, no setting that it
// does not know, and little to object to.
func TestSystemdLikesTheUnits(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	needs(t, "systemd-analyze", "systemd")
	out, changed := m.run(held, `
cd /src
./install.sh --binaries /bin.new --service systemd >/dev/null
ls -l /etc/systemd/system/*/postino* | sed 's/.* -> //'
echo "--- verify"
cd /usr/local/lib/systemd/system
systemd-analyze verify ./postino.service ./postino.socket ./postino-mailbox.socket ./postino-mailbox@.service ./postino-program.socket ./postino-program@.service 2>&1 | grep postino | grep -v 'Special user nobody' || : # whom [aliases] run_as names by default
echo "--- end"
systemd-analyze security --offline=true --no-pager --threshold=20 postino.service | tail -n 1
systemd-tmpfiles --create --dry-run postino.conf 2>/dev/null || systemd-tmpfiles --create postino.conf
stat -c '%a %U' /var/spool/postino/drop
systemd-sysusers --cat-config >/dev/null
cd /src
./install.sh --uninstall --purge
`)
	_, verified, _ := strings.Cut(out, "--- verify\n")
	verified, _, _ = strings.Cut(verified, "--- end\n")
	if verified != "" {
		t.Errorf("systemd-analyze verify:\n%s", verified)
	}
	for _, want := range []string{"/usr/local/lib/systemd/system/postino.socket\n", "/usr/local/lib/systemd/system/postino.service\n", "Overall exposure level for postino.service: 1.", "3733 postino"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if changed != "" {
		t.Errorf("changed:\n%s", changed)
	}
}
