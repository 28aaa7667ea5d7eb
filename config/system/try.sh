# shellcheck shell=sh disable=SC2154 # what is not set here the other has
# Carries one message through a postino that was built, all in a temporary directory:
# a part of install.sh.

# await runs a command until it succeeds or about 20 s are over, or the runner is
# no longer there.
await() {
	tries=0
	until "$@"; do
		tries=$((tries + 1))
		[ "$tries" -le 200 ] || return 1
		kill -0 "$runner" 2>/dev/null || return 1
		sleep 0.1 2>/dev/null || sleep 1
	done
}

# The socket has this mode once somebody listens on it.
listening() { [ "$(stat -c %a "$POSTINO_SPOOL/submit.sock" 2>/dev/null)" = 666 ]; }

# arrived sets id to the queue ID of the message that was kept.
arrived() {
	id=$(postino capture list | cut -d ' ' -f 1) && [ -n "$id" ]
}

start() {
	POSTINO_SPOOL=$work/spool POSTINO_CONFIG=$work/postino.toml
	export POSTINO_SPOOL POSTINO_CONFIG
	cat >"$POSTINO_CONFIG" <<'END'
hostname = "try.example.com"
domain = "example.com"
mode = "capture"
END
	postino run </dev/null >/dev/null 2>"$work/log" &
	runner=$!
	await listening || fail 'the runner does not take submissions'
}

# submit writes what PHP's mail() writes: CRLF after header fields, LF in the body.
submit() {
	printf '%s\r\n' 'To: Alice <alice@example.org>' 'Subject: hello from postino' \
		'X-PHP-Originating-Script: 1000:contact.php' 'Cc: bob' 'Bcc: archive@example.org' ''
	printf '%s\n' 'Dear Alice,' '' 'if you can read this, it works.' '.' 'The dot above did not end it.'
}

try() {
	build
	ln -s sendmail "$work/bin/mailq"
	PATH=$work/bin:$PATH
	postino version ||
		fail "programs in $work cannot be run: name another directory in TMPDIR"
	start
	submit | sendmail -t -i || fail 'sendmail did not take the message'
	await arrived || fail 'the message did not arrive'

	title "what arrived (postino capture show $id)"
	postino capture show "$id"
	postino capture show "$id" | grep -q '^The dot above' || fail 'the message did not arrive whole'
	title "its life (postino trace $id)"
	postino trace "$id"
	title 'the queue (mailq)'
	mailq
	printf '\nIt works. Everything is removed again; README.md says how to go on.\n'
}
