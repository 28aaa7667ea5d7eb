#!/bin/sh
# "./install.sh try" builds postino and carries one message through it, all in a
# temporary directory. It touches nothing else; what Go keeps in its own caches
# (GOCACHE, GOMODCACHE) is Go's.
set -eu

usage() {
	cat >&2 <<'EOF'
usage: ./install.sh try

  try   build both programs in a temporary directory, start a runner there that
        sends nothing (mode "capture"), submit a message as PHP would, show what
        became of it, and remove everything

System installation is not part of this version: README.md says how to set
postino up by hand.
EOF
	exit 64 # EX_USAGE
}

fail() {
	printf 'install.sh: %s\n' "$1" >&2
	exit 1
}

title() { printf '\n== %s\n\n' "$1"; }

work=
runner=

# clean_up stops the runner and removes all there is, however we end.
clean_up() {
	status=$?
	trap '' HUP INT TERM
	if [ -n "$runner" ]; then
		kill -TERM "$runner" 2>/dev/null || :
		wait "$runner" 2>/dev/null || :
	fi
	if [ "$status" -ne 0 ] && [ -s "$work/log" ]; then
		printf '\ninstall.sh: what the runner said:\n' >&2
		cat "$work/log" >&2
	fi
	[ -z "$work" ] || rm -rf "$work"
	exit "$status"
}

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

build() {
	command -v go >/dev/null ||
		fail 'go: not found: install Go 1.26 or later (https://go.dev/dl/) and put its bin directory on the PATH'
	mkdir "$work/bin"
	title 'building sendmail and postino'
	CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -trimpath -o "$work/bin/" ./cmd/sendmail ./cmd/postino ||
		fail "the build failed, for the reason above: Go 1.26 or later is needed (this is $(go version)), and a way to the modules that go.mod names"
	ln -s sendmail "$work/bin/mailq"
	PATH=$work/bin:$PATH
	postino version ||
		fail "programs in $work cannot be run: name another directory in TMPDIR"
}

start() {
	POSTINO_SPOOL=$work/spool POSTINO_CONFIG=$work/postino.toml
	export POSTINO_SPOOL POSTINO_CONFIG
	cat >"$POSTINO_CONFIG" <<'EOF'
hostname = "try.example.com"
domain = "example.com"
mode = "capture"
EOF
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
	cd "$(dirname "$0")"
	trap clean_up EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
	work=$(mktemp -d) || fail 'no temporary directory: name one in TMPDIR'
	build
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

case "$#:${1-}" in
1:try) try ;;
*) usage ;;
esac
