# What the scripts of TestDebian begin with. Each is run by systemd once it has booted,
# with sh -eu.
# shellcheck shell=sh disable=SC2016 # what another shell is to expand
step() { echo "== $*"; }
await() {
	for _ in $(seq 300); do
		if "$@" >/dev/null 2>&1; then return; fi
		sleep 0.2
	done
	echo "never: $*"
	return 1
}
pid() { systemctl show -P MainPID postino.service; }
another() { [ "$(pid)" != 0 ] && [ "$(pid)" != "$1" ]; }
as() { user=$1 && shift && setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups "$@"; }
# send SUBJECT [USER [RECIPIENT]]
send() { printf 'Subject: %s\n\nhello\n' "$1" | as "${2:-nobody}" /usr/sbin/sendmail -i "${3:-carol@example.org}"; }
# arrived SUBJECT: at the smarthost, from somebody who had logged in under TLS.
arrived() { grep -q "\"User\":\"web\".*Subject: $1\\\\r.*\"TLS\":true" /shared/mail; }

# load sends mail all the while until "enough" has it counted: each message has arrived.
load() {
	rm -f /tmp/enough /tmp/sent.*
	senders=
	for who in a b c; do
		(
			n=0
			until [ -e /tmp/enough ]; do
				send "load $who $n" || { echo "sendmail: status $?"; exit 1; }
				n=$((n + 1))
			done
			echo $n >/tmp/sent.$who
		) &
		senders="$senders $!"
	done
}
enough() {
	touch /tmp/enough
	for sender in $senders; do wait "$sender"; done
	sent=$(cat /tmp/sent.* | paste -s -d + | sed 's/.*/echo $((&))/' | sh)
	await all_arrived
	echo "sent $sent, arrived $(grep -c 'Subject: load ' /shared/mail)"
	[ "$(grep -c 'Subject: load ' /shared/mail)" = "$sent" ]
	: >/shared/mail
}
all_arrived() { [ "$(grep -o 'Subject: load [a-c] [0-9]*' /shared/mail | sort -u | wc -l)" = "$sent" ]; }

# smarthost starts it, with a certificate that is new, and has postino use it.
smarthost() {
	systemctl start smarthost
	printf '%s\n' 'hostname = "web.test"' 'domain = "web.test"' 'local_domains = ["web.test"]' '[retry]' 'first = "5s"' '[relay]' \
		'host = "127.0.0.1"' 'port = 587' 'ca_file = "/shared/ca.pem"' 'username = "web"' >/etc/postino/postino.toml
}

# listing is what there is, but for logs, caches, and what systemd, apt and exim write by themselves.
listing() {
	find / -xdev \( -path /shared -o -path /src -o -path /bin.new -o -path /tmp -o -path /root -o -path /var/log -o -path /var/cache -o -path /var/tmp -o -path /var/lib/systemd -o -path /var/lib/apt -o -path /var/spool/exim4 \
		-o -path '/var/lib/dpkg/*-old' -o -path /var/lib/dpkg/triggers -o -path '/etc/*-' -o -path '/etc/.pwd.lock' -o -path /var/backups \) -prune \
		-o -type f -printf '%p %m %u %g %s\n' -o -printf '%p %y %m %u %g %l\n' | sort
	find /etc -type f ! -name '*-' ! -name .pwd.lock -exec cksum {} +
}

trap '[ $? = 0 ] || { systemctl --no-pager --failed; journalctl --no-pager -b -n 60 -u "postino*"; }' EXIT
ready() { case $(systemctl is-system-running) in running | degraded) ;; *) return 1 ;; esac }
await ready
systemctl is-system-running
