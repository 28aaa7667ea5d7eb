package cmd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postino/delivery/relay/servertest"
)

// boot has systemd be the first process of the machine, which runs the script as a unit
// once it has started.
const boot = `
mount --make-rshared / # as it is on a machine: units have namespaces of their own
umount -R /dev
mount -t tmpfs -o mode=755 tmpfs /dev
for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
	mknod -m 666 /dev/${device%%:*} c $(echo ${device#*:} | tr : ' ')
done
mkdir -p /dev/shm /dev/pts /run/systemd/system
mount -t devpts -o newinstance,ptmxmode=666 devpts /dev/pts
ln -s pts/ptmx /dev/ptmx
mount -t sysfs -o ro sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cat >/run/systemd/system/probe.service <<'end'
[Unit]
After=basic.target
[Service]
Type=oneshot
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C SYSTEMD_BUS_TIMEOUT=180
ExecStart=/bin/sh -eu /shared/script
StandardOutput=file:/shared/out
StandardError=inherit
ExecStopPost=/bin/sh -c 'echo $SERVICE_RESULT >/shared/result; systemctl --force exit'
end
cat >/run/systemd/system/probe.target <<'end'
[Unit]
Requires=basic.target probe.service
end
exec env -i container=other /lib/systemd/systemd --unit=probe.target --log-target=journal
`

// ownCgroup makes a control group for a systemd to rule in, below that of the test,
// and removes it with all that is in it when the test ends.
func ownCgroup(t testing.TB) *os.File {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	where := ""
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, " - cgroup2 ") {
			where = strings.Fields(line)[4]
		}
	}
	if where == "" {
		servertest.Missing(t, "no control groups of version 2 are mounted")
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	_, below, _ := strings.Cut(string(own), "0::")
	dir, err := os.MkdirTemp(filepath.Join(where, strings.TrimSpace(below)), "postino-test-")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Close()
		if out, err := exec.Command("find", dir, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	return f
}

// Under a systemd that really runs, postino does all that it does without one, with
// the privileges that its unit leaves it: none. Its socket outlives it; a runner that
// was killed or is stuck is replaced; and a wrong configuration loses nothing.
func TestSystemdKeepsTheRunner(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	needsFile(t, "/lib/systemd/systemd", "systemd")
	m.cgroup = ownCgroup(t)
	said, err := m.command(held+`
mkdir -p /etc/systemd/system/postino.service.d
printf '[Unit]\nStartLimitIntervalSec=1s\n[Service]\nRestartSec=100ms\nTimeoutAbortSec=1s\n' >/etc/systemd/system/postino.service.d/test.conf
`, sent+awaited+`
trap '[ $? = 0 ] || journalctl --no-pager -n 60 -u postino' EXIT
cd /src
./install.sh --binaries /bin.new
systemctl is-active postino.service postino.socket
grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid)' /proc/$(pid)/status
`+upgraded+`
systemctl show -p StatusText postino
systemctl reload postino

# A password that root alone can read.
printf '[relay]\nhost = "127.0.0.1"\nport = 1\nusername = "web"\ncredential = "relay"\n' >>/etc/postino/postino.toml
systemctl reload postino
postino doctor | grep conf.secret
install -m 600 /dev/stdin /etc/postino/relay.pass <<'end'
secret
end
printf '[Service]\nLoadCredential=relay:/etc/postino/relay.pass\n' >/etc/systemd/system/postino.service.d/relay.conf
systemctl daemon-reload
systemctl restart postino
postino doctor | grep conf.secret
cat /run/credentials/postino.service/relay
setpriv --reuid=65534 --regid=65534 --clear-groups cat /run/credentials/postino.service/relay && exit 1

old=$(pid)
# For the next two runners alone: it is less than a machine may stand still.
printf '[Service]\nWatchdogSec=3s\n' >/etc/systemd/system/postino.service.d/watchdog.conf
systemctl daemon-reload
kill -KILL $old || : # systemd may have been first
await another $old
old=$(pid)
kill -STOP $old || :
await another $old
rm /etc/systemd/system/postino.service.d/watchdog.conf
systemctl daemon-reload
echo "restarts: $(systemctl show -P NRestarts postino)"
[ $(systemctl show -P NRestarts postino) -ge 2 ] # more where the machine is too busy for that watchdog

echo 'nonsense = 1' >>/etc/postino/postino.toml
systemctl reload postino && exit 1
systemctl restart postino && exit 1
for n in $(seq 8); do send "wrong $n"; done
systemctl show -p ActiveState postino.socket
sed -i '$d' /etc/postino/postino.toml
sleep 1 # the limit on starts
systemctl restart postino
await postino trace "wrong 8"
systemctl stop postino.service
send "starts it"
postino trace "starts it" | sed -n 's/^  arrived.* by/started:/p'
await sh -c '[ $(postino queue --json | wc -l) = $(($(cat /tmp/sent.* | paste -sd+ -) + 9)) ]'
id=$(postino queue --json | tail -n 1 | sed 's/.*"id":"\([0-9A-F]*\)".*/\1/')
await sh -c "journalctl --no-pager -o cat POSTINO_ID=$id | grep accepted"
journalctl --no-pager -o cat POSTINO_ID=$id | sed 's/^/journal: /'

# A port that is root's to open, as postino.toml(5) has it.
mkdir -p /etc/systemd/system/postino.socket.d
printf '[Socket]\nListenStream=127.0.0.1:25\n' >/etc/systemd/system/postino.socket.d/override.conf
systemctl daemon-reload
ip link set lo up
systemctl stop postino.socket postino
systemctl start postino.socket postino
python3 -c 'import smtplib; smtplib.SMTP("127.0.0.1").sendmail("a@example.org", "alice@example.org", "Subject: by port\n\nhello\n")'
postino trace "by port" | grep '^  arrived.* by tcp from uid 0'
systemctl enable --now postino-mailbox.socket postino-program.socket
./install.sh --uninstall
ended
[ -z "$(systemctl --quiet --no-legend list-units --all 'postino*.socket')" ]
find /etc/systemd -name '*postino*.socket'
echo all is well
`, "BOOT="+boot)
	out, readErr := os.ReadFile(filepath.Join(m.shared, "out"))
	result, resultErr := os.ReadFile(filepath.Join(m.shared, "result"))
	if readErr != nil || resultErr != nil || string(result) != "success\n" {
		t.Fatalf("%v, %v, %v, %q\n%s\n%s", err, readErr, resultErr, result, said, out)
	}
	allIsThere(t, string(out))
	for _, want := range []string{"active\nactive\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n",
		"StatusText=mode hold, ", "ActiveState=failed\n", "started: socket from uid 65534, sh ", "journal: msg=accepted id=",
		"fail  conf.secret     relay: credential: neither in CREDENTIALS_DIRECTORY nor in /run/credentials/postino.service is a \"relay\"", "ok    conf.secret     relay: there is a password\nsecret\n", "all is well\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}
