# The packages take exim's place, and do all that postino does.
step "install"
useradd -m ann
listing >/shared/before
apt-get -q -y --no-install-recommends install /shared/one/*.deb
systemctl is-enabled postino.socket postino.service
systemctl is-active postino.socket postino.service

step "the password is root's, and systemd gives it to the service"
smarthost
echo 'credential = "relay"' >>/etc/postino/postino.toml
echo secret | install -m 0600 /dev/stdin /etc/postino/relay.pass
mkdir -p /etc/systemd/system/postino.service.d
printf '[Service]\nLoadCredential=relay:/etc/postino/relay.pass\n' >/etc/systemd/system/postino.service.d/override.conf
systemctl daemon-reload
systemctl restart postino
postino doctor | grep -E '^ok +(conf.secret|relay) '
send "by credential"
await arrived "by credential"
for who in nobody ann; do
	if as $who cat /run/credentials/postino.service/relay /proc/"$(pid)"/environ /etc/postino/relay.pass; then exit 1; fi
done

step "the first mail starts it"
systemctl stop postino.service
systemctl is-active postino.socket
send "starts it"
systemctl is-active postino.service
await arrived "starts it"

step "callers"
echo '* * * * * root echo what the job says' >/etc/cron.d/probe
echo '* * * * * ann echo what her job says' >>/etc/cron.d/probe
printf 'root: carol@example.org\nann: dora@example.org\n' >>/etc/aliases
for who in root ann; do
	as $who php -n -r "exit(mail('carol@example.org', 'php by $who', 'hello') ? 0 : 1);"
	echo hello | as $who mail -s "mail by $who" carol@example.org
	for what in php mail; do
		await arrived "$what by $who"
		postino trace "$what by $who" | grep "^  arrived.* uid $(id -u $who), $what "
	done
done

step "a runner that hangs"
printf '[Service]\nWatchdogSec=4s\nTimeoutAbortSec=2s\n' >/etc/systemd/system/postino.service.d/watch.conf
systemctl daemon-reload
systemctl restart postino
kill -STOP "$(pid)"
send "while it hangs"
await arrived "while it hangs"
await sh -c '[ "$(systemctl show -P NRestarts postino)" -ge 1 ]' # it may have gone on for a moment
rm /etc/systemd/system/postino.service.d/watch.conf
systemctl daemon-reload
systemctl restart postino

step "a wrong configuration"
cp /etc/postino/postino.toml /tmp
echo 'nonsense = 1' >>/etc/postino/postino.toml
if systemctl reload postino; then exit 1; fi
cp /tmp/postino.toml /etc/postino

step "cron"
await grep -q 'what her job says.*dora@example.org' /shared/mail
await grep -q 'what the job says.*carol@example.org' /shared/mail
rm /etc/cron.d/probe
sed -i '$d' /etc/aliases

step "mailboxes, programs, files"
cat >>/etc/postino/postino.toml <<'end'
[local]
deliver = "mbox:/var/mail/{user}"
helper = "/run/postino/mailbox.sock"
[aliases]
programs = true
run_as = "postino-program"
helper = "/run/postino/program.sock"
end
printf 'prog: "|cat >/var/lib/probe/prog"\nfile: /var/lib/probe/file\n' >>/etc/aliases
install -d -o postino-program /var/lib/probe
mkdir /etc/systemd/system/postino-program@.service.d
printf '[Service]\nReadWritePaths=/var/lib/probe\n' >/etc/systemd/system/postino-program@.service.d/override.conf
systemctl daemon-reload
systemctl --quiet enable --now postino-mailbox.socket postino-program.socket
systemctl reload postino
for who in ann prog file; do send "to $who" root $who; done
await grep -q '^Subject: to ann$' /var/mail/ann
await grep -q '^Subject: to prog$' /var/lib/probe/prog
await grep -q '^Subject: to file$' /var/lib/probe/file
stat -c '%U %G %a' /var/mail/ann

step "load: stopped, killed, restarted, upgraded"
load
sleep 1
systemctl restart postino
systemctl stop postino.service
sleep 1
systemctl stop postino.service postino.socket
sleep 1
find /var/spool/postino/drop -type f | grep -c .
systemctl start postino.socket
sleep 1
systemctl kill -s KILL postino.service
sleep 1
old=$(pid)
dpkg -i /shared/two/postino*.deb
await another "$old"
enough
postino status | grep '^postino 1.0.1 runs'

step "hardening"
systemd-analyze security --no-pager postino.service | tail -1
grep -E '^(CapBnd|NoNewPrivs|Seccomp:)' /proc/"$(pid)"/status

step "mail that waits"
systemctl stop smarthost
send "waits in the queue"
await grep -q . /dev/stdin <<end
$(postino queue --json)
end
systemctl stop postino.service postino.socket
send "waits in drop"
[ -z "$(systemctl --failed --quiet --no-legend)" ]
