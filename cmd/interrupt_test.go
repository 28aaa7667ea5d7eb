package cmd_test

import (
	"os"
	"strings"
	"testing"
)

// killer runs install.sh with programs that count where their arguments match KILL_IN, and
// the Nth of them kills it like a power cut, before or after it has done what it does.
const killer = `
mkdir /tmp/killer
cat >/tmp/killer/any <<'end'
#!/bin/sh
name=${0##*/}
if ! echo "$name $*" | PATH=$REAL_PATH grep -qE "$KILL_IN"; then PATH=$REAL_PATH exec $name "$@"; fi
n=$(($(cat /tmp/killer/count) + 1))
echo $n >/tmp/killer/count
if [ $n -eq $KILL_AT ]; then [ $((n % 2)) -eq 0 ] || { PATH=$REAL_PATH $name "$@"; }; kill -KILL $(cat /tmp/killer/pid); exit; fi
PATH=$REAL_PATH exec $name "$@"
end
chmod 755 /tmp/killer/any
for name in cp mv ln rm mkdir rmdir chmod chown useradd userdel dpkg-divert alternatives grep; do
	if command -v $name >/dev/null; then ln -s any /tmp/killer/$name; fi
done
killed() { # N ARGUMENTS: false when it ended before
	echo 0 >/tmp/killer/count
	at=$1; shift
	status=0
	REAL_PATH=$PATH KILL_AT=$at KILL_IN="$kill_in" PATH=/tmp/killer:$PATH sh -c 'echo $$ >/tmp/killer/pid; exec "$@"' sh ./install.sh "$@" >/tmp/said 2>&1 || status=$?
	[ $status = 137 ] || [ $status = 0 ] || { echo "at $at: status $status"; tail -n 5 /tmp/said; exit 1; }
	[ $status = 137 ]
}
`

// Killed anywhere, install.sh can be run again, or undo what it did; and --uninstall,
// killed anywhere, too: then the system is as it was.
func TestInterruptedInstallationLeavesNothing(t *testing.T) {
	t.Parallel()
	points, where := os.Getenv("POSTINO_INSTALL_KILLS"), "."
	if points == "" {
		points, where = "2 5 13", "/usr/sbin/sendmail|/var/spool/postino|user"
	}
	for name, given := range waysOfSendmail() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, changed := newMachine(t).run(held+given, killer+`
cd /src
kill_in='`+where+`'
for point in `+points+`; do
	if killed $point --binaries /bin.new --service none; then
		if [ -e /usr/local/lib/postino/installed ]; then ./install.sh --uninstall --purge >/dev/null; fi
		killed $point --binaries /bin.new --service none || :
		./install.sh --binaries /bin.new --service none >/dev/null
	fi
	[ "$(readlink -f /usr/sbin/sendmail)" = /usr/local/lib/postino/sendmail ]
	killed $point --uninstall || :
	if [ -e /usr/local/lib/postino/installed ]; then ./install.sh --uninstall --purge >/dev/null; fi
done
`)
			if changed != "" {
				t.Errorf("changed:\n%s", strings.TrimSpace(changed))
			}
		})
	}
}
