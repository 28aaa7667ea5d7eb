# shellcheck shell=sh disable=SC2154 # what is not set here the other has
# The users of postino and the spool, as far as they are missing: read by install.sh, and
# made a part of the packages' postinst. Both say how to run a command, and to record
# what will be made.

# make_user NAME HOME COMMENT
make_user() {
	if id "$1" >/dev/null 2>&1; then return 0; fi
	record user "$1"
	for shell in /usr/sbin/nologin /sbin/nologin; do
		[ ! -x "$shell" ] || break
	done
	if command -v useradd >/dev/null; then
		own=--user-group
		if getent group "$1" >/dev/null; then own="--gid $1"; fi
		# shellcheck disable=SC2086 # two words
		run useradd --system $own --home-dir "$2" --no-create-home --shell "$shell" --comment "$3" "$1"
	else
		grep -q "^$1:" /etc/group || run addgroup -S "$1"
		run adduser -S -D -H -h "$2" -s "$shell" -G "$1" -g "$3" "$1"
	fi
}

# make_spool makes the spool directory, whose owner is who runs postino. It may be there,
# as the mount point of a file system of its own.
make_spool() {
	if [ -e "$spool/spool.db" ] || { [ -d "$spool" ] && [ "$(stat -c %u "$spool")" -ne 0 ]; }; then return 0; fi
	[ -d "$spool" ] || record spool "$spool"
	run mkdir -p -m 0755 "$spool" "$spool/drop"
	run chown postino:postino "$spool/drop"
	run chmod 3733 "$spool/drop" # while nobody can put something else in its place
	run chown postino:postino "$spool"
}

make_accounts() {
	make_user postino "$spool" 'postino mail queue'
	make_user postino-program / 'postino programs of aliases'
	make_spool
}
