#!/bin/sh
# Installs postino on this system, or takes it away again: see usage below.
#
# "./install.sh try" builds postino and carries one message through it, all in a
# temporary directory. It touches nothing else; what Go keeps in its own caches
# (GOCACHE, GOMODCACHE) is Go's.
set -eu

usage() {
	cat >&2 <<'EOF'
usage: ./install.sh [FLAG ...]     install, or bring an installation up to date
       ./install.sh --uninstall    put everything back as it was
       ./install.sh try            see it work in a temporary directory

  --prefix DIR     install below DIR (/usr/local)
  --binaries DIR   take sendmail and postino from DIR instead of building them
  --root DIR       only copy the files, below DIR, to make a package or an image of
                   them; DESTDIR in the environment does the same
  --service NAME   systemd, openrc, runit or none (the one that is here)
  --without-mta    leave /usr/sbin/sendmail, mailq and newaliases as they are
  --dry-run        print what would be done, and do nothing
  --purge          with --uninstall: remove the configuration and the spool as well
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

# make_room makes the temporary directory, which goes with us.
make_room() {
	trap clean_up EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
	work=$(mktemp -d) || fail 'no temporary directory: name one in TMPDIR'
}

build() {
	PATH=$PATH:/usr/local/go/bin # where Go says to put it, and sudo does not look
	command -v go >/dev/null ||
		fail 'go: not found: install Go 1.26 or later (https://go.dev/dl/) and put its bin directory on the PATH, which sudo may replace: /etc/sudoers, secure_path'
	mkdir "$work/bin"
	title 'building sendmail and postino'
	CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -trimpath -o "$work/bin/" ./cmd/sendmail ./cmd/postino ||
		fail "the build failed, for the reason above: Go 1.26 or later is needed (this is $(go version)), and a way to the modules that go.mod names"
}

build_to_try() {
	build
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
	make_room
	build_to_try
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

# What follows installs. Everything that is done goes by one of the next functions,
# which print it, and is written down in a list, by which it is undone.

prefix=/usr/local binaries='' root=${DESTDIR-} service='' mta=yes dry='' purge='' made=' '
spool=/var/spool/postino config=/etc/postino
links='/usr/sbin/sendmail /usr/lib/sendmail /usr/bin/mailq /usr/bin/newaliases'

# run does one thing, and prints it.
run() {
	printf '  %s\n' "$*"
	[ -n "$dry" ] || "$@"
}

there() { [ -e "$1" ] || [ -h "$1" ]; }

# record writes down "KIND PATH [SAVED]", once.
record() {
	[ -z "$dry$root" ] || return 0
	grep -qsxF "$*" "$list" || printf '%s\n' "$*" >>"$list"
}

# ours PATH: whether the list has it.
ours() { grep -qsE "^(file|saved|divert) $1( |\$)" "$list"; }

# make_dir makes a directory and those above it.
make_dir() {
	if [ -d "$root$1" ]; then return 0; fi
	case $made in *" $1 "*) return 0 ;; esac
	made="$made$1 "
	make_dir "$(dirname "$1")"
	run mkdir -m 0755 "$root$1"
	record dir "$1"
}

# keep gives what is at PATH a second name, so that PATH is never missing: who sends
# mail in this moment finds the old program or the new one.
keep() {
	if there "$2"; then
		cmp -s "$1" "$2" || fail "$2 is in the way of keeping $1: move it elsewhere"
	elif there "$1"; then
		make_dir "$(dirname "$2")"
		run ln -P "$1" "$2" 2>/dev/null || run cp -pPR "$1" "$2"
	fi
}

# take_over puts aside what is at PATH and not ours; with "divert" such that packages
# of the distribution leave our file alone.
take_over() {
	[ -z "$root" ] || return 0
	how=$(sed -n "s|^\([a-z]*\) $1\( .*\)*\$|\1|p" "$list" 2>/dev/null) || how=
	if [ -n "$how" ]; then
		:
	elif [ "${2-}" = divert ] && command -v dpkg-divert >/dev/null && [ -z "$(dpkg-divert --listpackage "$1")" ]; then
		how=divert
		keep "$1" "$1.distrib"
		record divert "$1" "$1.distrib"
	elif there "$1"; then
		keep "$1" "$lib/replaced$1"
		record saved "$1" "$lib/replaced$1"
	else
		record file "$1"
	fi
	if [ "$how" = divert ] && [ -z "$(dpkg-divert --listpackage "$1")" ]; then
		run dpkg-divert --quiet --local --no-rename --divert "$1.distrib" --add "$1"
	fi
}

# put FILE PATH MODE copies a file, at once.
put() {
	if [ -f "$root$2" ] && cmp -s "$1" "$root$2" && { ours "$2" || [ -n "$root" ]; }; then
		return 0
	fi
	make_dir "$(dirname "$2")"
	take_over "$2"
	printf '  install %s\n' "$root$2"
	[ -z "$dry" ] || return 0
	cp "$1" "$root$2.new"
	chmod "$3" "$root$2.new"
	mv -f "$root$2.new" "$root$2"
}

# put_link TARGET PATH [divert]: the same for a symbolic link.
put_link() {
	if [ "$(readlink "$root$2")" = "$1" ] && { ours "$2" || [ -n "$root" ]; }; then
		return 0
	fi
	make_dir "$(dirname "$2")"
	take_over "$2" "${3-}"
	printf '  link %s -> %s\n' "$root$2" "$1"
	[ -z "$dry" ] || return 0
	ln -s "$1" "$root$2.new"
	mv -f "$root$2.new" "$root$2"
}

# put_text is put for a file of config/system that names a program.
put_text() {
	[ -n "$work" ] || make_room
	sed "s|/usr/bin/postino|$prefix/bin/postino|g" "config/system/$1" >"$work/text"
	put "$work/text" "$2" "$3"
}

manager() {
	if [ -n "$root" ]; then
		echo systemd
	elif [ -d /run/systemd/system ]; then
		echo systemd
	elif [ -e /run/openrc/softlevel ]; then
		echo openrc
	elif [ -d /run/runit ] || [ -e /etc/service/. ]; then
		echo runit
	elif command -v systemctl >/dev/null; then
		echo systemd
	elif command -v openrc-run >/dev/null; then
		echo openrc
	else
		echo none
	fi
}

# systemd has places for what is not a distribution's.
settle() {
	lib=$prefix/lib/postino list=$prefix/lib/postino/installed
	case $prefix in
	/usr | /usr/local) system=$prefix/lib ;;
	*) system=/etc ;;
	esac
	if [ -r "$list" ] && [ -z "$service" ]; then
		service=$(sed -n 's/^service //p' "$list")
	fi
	service=${service:-$(manager)}
}

install_programs() {
	put "$binaries/postino" "$lib/postino" 0755
	put "$binaries/sendmail" "$lib/sendmail" 0755
	put_link ../lib/postino/postino "$prefix/bin/postino"
	install_completion bash "$prefix/share/bash-completion/completions/postino"
	install_completion zsh "$prefix/share/zsh/site-functions/_postino"
	install_completion fish "$prefix/share/fish/vendor_completions.d/postino.fish"
	for page in man/*.[158] man/postino*.7; do
		put "$page" "$prefix/share/man/man${page##*.}/${page#man/}" 0644
	done
	for page in man/[!p]*.7 man/*.md README.md LICENSE; do
		put "$page" "$prefix/share/doc/postino/${page#man/}" 0644
	done
}

# install_completion makes what a shell wants to know. POSTINO_NATIVE is a postino that
# runs here, where the one to install is another machine's.
install_completion() {
	[ -n "$work" ] || make_room
	"${POSTINO_NATIVE:-$binaries/postino}" completion "$1" >"$work/completion"
	put "$work/completion" "$2" 0644
}

# install_user makes the user who runs postino and owns the spool.
install_user() {
	[ -z "$root" ] || return 0
	if ! id postino >/dev/null 2>&1; then
		record user postino
		if command -v useradd >/dev/null; then
			run useradd --system --user-group --home-dir "$spool" --no-create-home --shell "$(nologin)" --comment 'postino mail queue' postino
		else
			run addgroup -S postino
			run adduser -S -D -H -h "$spool" -s "$(nologin)" -G postino -g 'postino mail queue' postino
		fi
	fi
	make_dir "$config"
	if [ ! -d "$spool" ]; then
		make_dir "$(dirname "$spool")"
		run mkdir -m 0755 "$spool"
		run mkdir "$spool/drop"
		run chown postino:postino "$spool/drop"
		run chmod 3733 "$spool/drop" # while nobody can put something else in its place
		run chown postino:postino "$spool"
		record spool "$spool"
	fi
}

nologin() {
	for shell in /usr/sbin/nologin /sbin/nologin; do
		[ ! -x "$shell" ] || break
	done
	echo "$shell"
}

# install_mta puts sendmail in the place where everybody looks for it, as the
# distribution does that.
install_mta() {
	[ -n "$mta" ] || return 0
	if [ -z "$root" ] && command -v alternatives >/dev/null; then
		if ! grep -qs '^alternative ' "$list"; then
			record alternative "$(alternatives --display mta 2>/dev/null | sed -n '1s/.*manual.*/manual/p; s/.*currently points to //p' | paste -s -d ' ' -)"
		fi
		run alternatives --install /usr/sbin/sendmail mta "$lib/sendmail" 100 \
			--slave /usr/lib/sendmail mta-sendmail "$lib/sendmail" \
			--slave /usr/bin/mailq mta-mailq "$lib/sendmail" \
			--slave /usr/bin/newaliases mta-newaliases "$lib/sendmail"
		run alternatives --set mta "$lib/sendmail"
		return
	fi
	for path in $links; do
		put_link "$lib/sendmail" "$path" divert
	done
}

install_service() {
	case $service in
	systemd)
		for unit in postino.socket postino.service postino-mailbox.socket postino-mailbox@.service \
			postino-program.socket postino-program@.service; do
			put_text "$unit" "$system/systemd/system/$unit" 0644
		done
		put_text user/postino.service "$system/systemd/user/postino.service" 0644
		put_text postino.sysusers "$system/sysusers.d/postino.conf" 0644
		put_text postino.tmpfiles "$system/tmpfiles.d/postino.conf" 0644
		;;
	openrc) put_text postino.openrc /etc/init.d/postino 0755 ;;
	runit)
		put_text postino.runit /etc/sv/postino/run 0755
		put_text postino.runit-log /etc/sv/postino/log/run 0755
		;;
	none) ;;
	*) fail "--service $service: want systemd, openrc, runit or none" ;;
	esac
	record service "$service"
}

# start_service starts the runner, or has one that runs take the new program's place.
start_service() {
	[ -z "$root" ] || return 0
	case $service in
	systemd)
		if [ ! -d /run/systemd/system ]; then
			run systemctl --quiet enable postino.socket postino.service
			return 0
		fi
		run systemctl daemon-reload
		run systemctl --quiet enable postino.socket postino.service
		run systemctl start postino.socket
		run systemctl restart postino.service
		;;
	openrc)
		run rc-update --quiet add postino default
		if [ -e /run/openrc/softlevel ]; then run rc-service postino restart; fi
		;;
	runit)
		if there /etc/service/postino && [ -e /etc/sv/postino/supervise/ok ]; then
			run sv restart /etc/sv/postino
		else
			put_link /etc/sv/postino /etc/service/postino
		fi
		;;
	none)
		stop_runner
		run "$lib/sendmail" -bd
		;;
	esac
}

# stop_runner ends the runner that is no service manager's.
stop_runner() {
	! "$lib/postino" status >/dev/null 2>&1 || run "$lib/postino" stop
}

stop_service() {
	case $service in
	systemd)
		if [ -d /run/systemd/system ]; then
			run systemctl stop postino.socket postino.service
		fi
		run systemctl --quiet disable postino.socket postino.service
		;;
	openrc)
		if [ -e /run/openrc/softlevel ]; then run rc-service --ifstarted postino stop; fi
		run rc-update --quiet delete postino default
		;;
	runit)
		if [ -e /etc/sv/postino/supervise/ok ]; then
			run sv -w 60 exit /etc/sv/postino || run sv force-shutdown /etc/sv/postino
			run rm -rf /etc/sv/postino/supervise /etc/sv/postino/log/supervise
		fi
		;;
	none) stop_runner ;;
	esac
}

install_all() {
	if [ -z "$binaries" ]; then
		make_room
		build
		binaries=$work/bin
	fi
	for program in postino sendmail; do
		[ -x "$binaries/$program" ] || fail "$binaries/$program: not there: --binaries wants a directory with postino and sendmail"
	done
	[ -n "$root$dry" ] || [ "$(id -u)" -eq 0 ] || fail 'only root can install; --dry-run shows what would be done'
	title "installing in $root$prefix, service manager: $service"
	make_dir "$lib"
	install_programs
	install_user
	install_service
	start_service
	install_mta # last: now somebody takes what it is given
	[ -z "$root$dry" ] || return 0
	printf '\nDone: %s.\n' "$("$lib/postino" version)"
	if [ ! -e "$config/postino.toml" ]; then
		printf 'Mail goes directly to its domains by MX until %s/postino.toml names a\nsmarthost: "postino setup" asks for one.\n' "$config"
	fi
}

# leave writes down what --purge would take away.
leave() {
	printf '  %s %s stays\n' "$1" "$2"
	printf '%s\n' "$*" >>"$work/left"
}

# undo takes back what one line of the list says.
undo() {
	case $1 in
	file) if there "$2"; then run rm -f "$2"; fi ;;
	saved | divert)
		if there "$3"; then run mv -f "$3" "$2"; else run rm -f "$2"; fi
		[ "$1" = saved ] || run dpkg-divert --quiet --local --no-rename --remove "$2"
		;;
	dir)
		if [ -n "$dry" ]; then
			printf '  rmdir %s, if it is empty\n' "$2"
		elif rmdir "$2" 2>/dev/null; then
			printf '  rmdir %s\n' "$2"
		elif [ "$2" = "$config" ] && there "$2"; then
			leave "$@"
		fi
		;;
	alternative)
		run alternatives --remove mta "$lib/sendmail"
		if [ "${2-}" = manual ]; then run alternatives --set mta "$3"; fi
		;;
	service) stop_service ;;
	spool) if [ -n "$purge" ] || unused; then run rm -rf "$2"; else leave "$@"; fi ;;
	user)
		if [ -d "$spool" ] && [ -z "$dry" ]; then
			leave "$@"
		elif command -v userdel >/dev/null; then
			run userdel "$2"
		else
			run deluser "$2"
		fi
		;;
	esac
}

# waiting is how many messages are not delivered yet.
waiting() {
	[ -x "$lib/postino" ] || return 0
	{ "$lib/postino" queue --json && find "$spool/drop" -type f; } | wc -l
}

# unused: nobody ever sent anything, as far as can be told.
unused() {
	said=$("$lib/postino" queue --json && "$lib/postino" log -n 1 && find "$spool/drop" -type f) && [ -z "$said" ]
}

uninstall_all() {
	[ -r "$list" ] || fail "$list: not there, so nothing is installed in $prefix: --prefix names another place"
	[ -n "$dry" ] || [ "$(id -u)" -eq 0 ] || fail 'only root can do this; --dry-run shows what would be done'
	undelivered=$(waiting)
	if [ -n "$purge" ] && [ "${undelivered:-0}" -gt 0 ]; then
		fail "$undelivered messages are not delivered yet: \"postino queue\" shows them, \"postino export\" takes them elsewhere, \"postino delete\" gives them up"
	fi
	title "taking away what is in $prefix"
	make_room
	# The last first: mail goes to whom it went before, then the runner ends.
	sed '1!G;h;$!d' "$list" >"$work/list"
	while read -r kind path more; do
		if [ "$kind" = dir ] && [ "$path" = "$lib" ]; then
			if [ -s "$work/left" ]; then
				{ echo "dir $lib" && sed '1!G;h;$!d' "$work/left"; } >"$list"
				break
			fi
			run rm -rf "$list" "$lib/replaced"
		fi
		if [ -n "$purge" ] && [ "$path" = "$config" ]; then run rm -rf "$config"; fi
		# shellcheck disable=SC2086 # two words, or none
		undo "$kind" "$path" $more </dev/null
	done <"$work/list"
	if [ "$service" = systemd ] && [ -d /run/systemd/system ]; then run systemctl daemon-reload; fi
	if [ -s "$work/left" ]; then printf '\n--uninstall --purge takes away what stays, once all mail is delivered.\n'; fi
}

# value is the operand of a flag.
value() { [ -n "${2-}" ] || fail "$1 wants a value"; }

main() {
	what=install_all
	while [ $# -gt 0 ]; do
		case $1 in
		--prefix) value "$@" && prefix=${2%/} && shift ;;
		--binaries) value "$@" && binaries=$(cd "$2" && pwd) && shift ;;
		--root) value "$@" && root=${2%/} && shift ;;
		--service) value "$@" && service=$2 && shift ;;
		--without-mta) mta= ;;
		--dry-run) dry=yes ;;
		--purge) purge=yes ;;
		--uninstall) what=uninstall_all ;;
		*) usage ;;
		esac
		shift
	done
	case $prefix in
	/*[!A-Za-z0-9/._-]* | [!/]* | '') fail "--prefix $prefix: want an absolute path of letters, digits and ._-" ;;
	esac
	umask 022
	unset POSTINO_SPOOL POSTINO_CONFIG
	cd "$(dirname "$0")"
	settle
	$what
}

case "$#:${1-}" in
1:try)
	cd "$(dirname "$0")"
	try
	;;
*) main "$@" ;;
esac
