#!/bin/sh
# Installs postino on this system, or takes it away again: see usage below.
#
# "./install.sh try" touches nothing but a temporary directory; what Go keeps in its own
# caches (GOCACHE, GOMODCACHE) is Go's.
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

# make_room makes the temporary directory, which goes with us.
make_room() {
	[ -z "$work" ] || return 0
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
	make_room
	mkdir "$work/bin"
	version=$(source_version)
	title "building sendmail and postino $version"
	compile "$version" "$work/bin" ||
		fail "the build failed, for the reason above: Go 1.26 or later is needed (this is $(go version)), and a way to the modules that go.mod names"
}

# Everything that is done is printed, and first written down in a list by which it is
# undone: whoever is interrupted can do the same again, or undo it. A line of the list is
#	file PATH		there was none
#	saved PATH SAVED	what was there has that name
#	divert PATH SAVED	the same, and dpkg knows
#	waiting N		so many messages were not delivered when the programs went
#	dir, user, spool, service, alternative ...

prefix=/usr/local binaries='' root=${DESTDIR-} service='' mta=yes dry='' purge='' made=' '
spool=/var/spool/postino config=/etc/postino
links='/usr/sbin/sendmail /usr/lib/sendmail /usr/bin/mailq /usr/bin/newaliases'

# run does one thing, and prints it.
run() {
	printf '  %s\n' "$*"
	[ -n "$dry" ] || "$@"
}

there() { [ -e "$1" ] || [ -h "$1" ]; }

record() {
	[ -z "$dry$root" ] || return 0
	grep -qsxF "$*" "$list" || printf '%s\n' "$*" >>"$list"
}

# kind_of PATH: file, saved or divert where the list has it.
kind_of() { [ ! -r "$list" ] || sed -n "s|^\([a-z]*\) $1\( .*\)*\$|\1|p" "$list"; }

# make_list makes the directory that the list is in, with those above it, and the list,
# all at once.
make_list() {
	if [ -d "$root$lib" ]; then return 0; fi
	printf '  mkdir -p %s\n' "$root$lib"
	top=$lib made=" $lib "
	until [ -z "${top%/*}" ] || [ -d "$root${top%/*}" ]; do
		top=${top%/*}
		made="$made$top "
	done
	[ -z "$dry" ] || return 0
	[ -z "$root" ] || { mkdir -p "$root$lib" && return 0; }
	rm -rf "$top.new"
	mkdir -p "$top.new${lib#"$top"}"
	dir=$lib list=$top.new${list#"$top"}
	until [ "$dir" = "${top%/*}" ]; do
		record dir "$dir"
		dir=${dir%/*}
	done
	mv "$top.new" "$top"
	list=$lib/installed
}

# make_dir makes a directory and those above it.
make_dir() {
	if [ -d "$root$1" ]; then return 0; fi
	case $made in *" $1 "*) return 0 ;; esac # by a dry run
	made="$made$1 "
	make_dir "$(dirname "$1")"
	record dir "$1"
	run mkdir -m 0755 "$root$1"
}

# take_over gives what is at PATH, and not ours, a second name, so that PATH is never
# missing: who sends mail in this moment finds the old program or the new one. With
# "divert" packages of the distribution leave our file alone.
take_over() {
	[ -z "$root" ] || return 0
	how=$(kind_of "$1") known=$how
	if [ -n "$known" ]; then
		:
	elif [ "${2-}" = divert ] && command -v dpkg-divert >/dev/null && [ -z "$(dpkg-divert --listpackage "$1")" ]; then
		how=divert
	elif there "$1"; then
		how=saved
	else
		how="file"
	fi
	case $how in
	file) saved='' ;;
	divert) saved=$1.distrib ;;
	saved) saved=$lib/replaced$1 ;;
	esac
	if [ -z "$known" ] && [ -n "$saved" ] && there "$saved"; then
		fail "$saved is in the way of keeping $1: move it elsewhere"
	fi
	record "$how" "$1" ${saved:+"$saved"}
	if [ -n "$saved" ] && there "$1" && ! there "$saved"; then keep "$1" "$saved"; fi
	if [ "$how" = divert ] && [ -z "$(dpkg-divert --listpackage "$1")" ]; then
		run dpkg-divert --quiet --local --no-rename --divert "$saved" --add "$1"
	fi
}

keep() {
	make_dir "$(dirname "$2")"
	printf '  keep %s as %s\n' "$1" "$2"
	[ -z "$dry" ] || return 0
	ln -P "$1" "$2" 2>/dev/null || { cp -pPR "$1" "$2.new" && mv -f "$2.new" "$2"; }
}

# put FILE PATH MODE copies a file, at once.
put() {
	if [ -f "$root$2" ] && cmp -s "$1" "$root$2" && [ -n "$root$(kind_of "$2")" ]; then return 0; fi
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
	if [ "$(readlink "$root$2")" = "$1" ] && [ -n "$root$(kind_of "$2")" ]; then return 0; fi
	make_dir "$(dirname "$2")"
	take_over "$2" "${3-}"
	printf '  link %s -> %s\n' "$root$2" "$1"
	[ -z "$dry" ] || return 0
	ln -sfn "$1" "$root$2.new"
	mv -f "$root$2.new" "$root$2"
}

# put_text is put for a file of config/system that names a program.
put_text() {
	make_room
	sed "s|/usr/bin/postino|$prefix/bin/postino|g" "config/system/$1" >"$work/text"
	put "$work/text" "$2" "$3"
}

# settle finds out where things go.
settle() {
	lib=$prefix/lib/postino list=$prefix/lib/postino/installed
	case $prefix in # systemd has places for what is not a distribution's
	/usr | /usr/local) system=$prefix/lib ;;
	*) system=/etc ;;
	esac
	# Of some mailers these are beside sendmail, and root's PATH has them first.
	for path in /usr/sbin/mailq /usr/sbin/newaliases; do
		if [ -z "$root" ] && there "$path" && [ "$(inode /usr/sbin/.)" != "$(inode /usr/bin/.)" ]; then links="$links $path"; fi
	done
	for active in /var/service /run/runit/service /etc/service; do # of runit
		[ ! -d "$active" ] || break
	done
	installed=$(sed -n 's/^service //p' "$list" 2>/dev/null) || installed=
	service=${service:-${installed:-$(manager)}}
	[ "$service" = "${installed:-$service}" ] || fail "--service $service: it is installed for $installed: --uninstall first"
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
	make_room
	"${POSTINO_NATIVE:-$binaries/postino}" completion "$1" >"$work/completion"
	put "$work/completion" "$2" 0644
}

# install_mta puts sendmail in the place where everybody looks for it, as the
# distribution does that.
install_mta() {
	if [ -z "$root" ] && command -v alternatives >/dev/null; then
		install_alternative
		return
	fi
	for path in $links; do
		put_link "$lib/sendmail" "$path" divert
	done
}

# install_alternative joins the group of mailers that Fedora and its relatives have. That
# replaces links of its own and nothing else.
install_alternative() {
	for path in $links; do
		case $(readlink "$path") in
		/etc/alternatives/*) continue ;;
		esac
		there "$path" || continue
		take_over "$path"
		run rm -f "$path"
	done
	if ! grep -qs '^alternative' "$list"; then
		record alternative "$(alternatives --display mta 2>/dev/null | sed -n '1s/.*manual.*/manual/p; s/.*currently points to //p' | paste -s -d ' ' -)"
	fi
	run alternatives --install /usr/sbin/sendmail mta "$lib/sendmail" 100 \
		--slave /usr/lib/sendmail mta-sendmail "$lib/sendmail" \
		--slave /usr/bin/mailq mta-mailq "$lib/sendmail" \
		--slave /usr/bin/newaliases mta-newaliases "$lib/sendmail"
	run alternatives --set mta "$lib/sendmail"
}

install_all() {
	if [ -z "$binaries" ]; then
		build
		binaries=$work/bin
	fi
	for program in postino sendmail; do
		[ -x "$binaries/$program" ] || fail "$binaries/$program: not there: --binaries wants a directory with postino and sendmail"
	done
	[ -n "$root$dry" ] || [ "$(id -u)" -eq 0 ] || fail 'only root can install; --dry-run shows what would be done'
	title "installing in $root$prefix, service manager: $service"
	make_list
	install_programs
	if [ -z "$root" ]; then
		make_dir "$config"
		make_dir "$(dirname "$spool")"
		make_accounts
	fi
	install_service
	[ -n "$root" ] || start_service
	[ -z "$mta" ] || install_mta # last: now somebody takes what it is given
	[ -z "$root$dry" ] || return 0
	printf '\nDone: %s.\n' "$("$lib/postino" version)"
	if [ ! -e "$config/postino.toml" ]; then
		printf 'Mail goes directly to its domains by MX until %s/postino.toml names a\nsmarthost: "postino setup" asks for one.\n' "$config"
	fi
}

# undo takes back what one line of the list says; it may be so already. What has to stay
# sets stays.
undo() {
	case $1 in
	file | saved | divert) put_back "$@" ;;
	dir)
		if [ -n "$purge" ] && [ "$2" = "$config" ]; then run rm -rf "$2"; fi
		[ ! -d "$2" ] || run rmdir --ignore-fail-on-non-empty "$2"
		if [ "$2" = "$config" ] && [ -d "$2" ] && [ -z "$dry" ]; then stays=$2; fi
		;;
	alternative)
		! alternatives --display mta 2>/dev/null | grep -q "^$lib/sendmail " || run alternatives --remove mta "$lib/sendmail"
		[ "${2-}" != manual ] || run alternatives --set mta "$3"
		;;
	service) stop_service ;;
	spool)
		if [ -n "$purge" ] || unused; then
			run rm -rf "$2"
		else
			stays=$2
			[ "${undelivered:-0}" -eq 0 ] || record waiting "$undelivered"
		fi
		;;
	user)
		if ! id "$2" >/dev/null 2>&1; then
			:
		elif [ "$2" = postino ] && [ -d "$spool" ] && [ -z "$dry" ]; then
			stays="user $2"
		elif command -v userdel >/dev/null; then
			run userdel "$2"
		else
			run deluser "$2"
		fi
		;;
	esac
}

# put_back KIND PATH [SAVED]: the file that was there, if any. That may have gone with its
# package; then our link goes too.
put_back() {
	[ -n "$dry" ] || rm -f "$2.new"
	if [ "$1" = file ]; then
		! there "$2" || run rm -f "$2"
	elif there "$3" && [ "$(inode "$2")" = "$(inode "$3")" ]; then
		run rm -f "$3" # it was only kept
	elif there "$3"; then
		run mv -f "$3" "$2"
	elif [ "$(readlink "$2")" = "$lib/sendmail" ]; then
		run rm -f "$2"
	fi
	[ "$1" != divert ] || run dpkg-divert --quiet --local --no-rename --remove "$2"
}

inode() { stat -c %d:%i "$1" 2>/dev/null || :; }

# waiting is how many messages are not delivered yet.
waiting() {
	if [ ! -x "$lib/postino" ]; then # taken away before, and the list has it
		sed -n 's/^waiting //p' "$list"
		return
	fi
	[ -d "$spool/drop" ] || return 0
	{ "$lib/postino" queue --json && find "$spool/drop" -type f; } | wc -l
}

# unused: nobody ever sent anything, as far as can be told.
unused() {
	[ -d "$spool/drop" ] || return 0
	said=$("$lib/postino" queue --json && "$lib/postino" log -n 1 && find "$spool/drop" -type f) && [ -z "$said" ]
}

uninstall_all() {
	[ -r "$list" ] || fail "$list: not there, so nothing is installed in $prefix: --prefix names another place"
	[ -n "$dry" ] || [ "$(id -u)" -eq 0 ] || fail 'only root can do this; --dry-run shows what would be done'
	undelivered=$(waiting)
	if [ -n "$purge" ] && [ "${undelivered:-0}" -gt 0 ]; then
		fail "messages that are not delivered yet: $undelivered: install postino again if it is gone; \"postino queue\" shows them, \"postino export\" takes them elsewhere, \"postino delete\" gives them up"
	fi
	title "taking away what is in $prefix"
	make_room
	left='' above=''
	# The last first: mail goes to whom it went before, then the runner ends.
	sed '1!G;h;$!d' "$list" >"$work/list"
	while read -r line; do
		case $lib/:$line in
		"${line#dir }"/*:"dir "*)
			above="${line#dir } $above"
			continue
			;;
		esac
		stays=
		# shellcheck disable=SC2086 # two words or three
		undo $line </dev/null
		if [ -n "$stays" ]; then
			printf '  %s stays\n' "$stays"
			left=yes
		elif [ -z "$dry" ]; then
			grep -vxF "$line" "$list" >"$list.new" || :
			mv -f "$list.new" "$list"
		fi
	done <"$work/list"
	if [ "$service" = systemd ] && [ -d /run/systemd/system ]; then run systemctl daemon-reload; fi
	if [ -n "$left" ]; then
		printf '\n--uninstall --purge takes away what stays, once all mail is delivered.\n'
		return
	fi
	run rm -rf "$lib/replaced" "$list"
	for dir in $above; do
		run rmdir --ignore-fail-on-non-empty "$dir"
	done
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
	LC_ALL=C # what other programs say is read
	export LC_ALL
	cd "$(dirname "$0")"
	. config/system/accounts.sh
	. config/system/build.sh
	. config/system/services.sh
	settle
	$what
}

case "$#:${1-}" in
1:try)
	cd "$(dirname "$0")"
	. config/system/build.sh
	. config/system/try.sh
	try
	;;
*) main "$@" ;;
esac
