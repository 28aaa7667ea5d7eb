# shellcheck shell=sh disable=SC2154 # what is not set here install.sh has
# What each service manager wants of postino: a part of install.sh.

# helpers are services that the administrator turns on. For systemd they are sockets.
helpers='postino-mailbox postino-program'

# manager is the one that is here.
manager() {
	if [ -n "$root" ] || [ -d /run/systemd/system ]; then
		echo systemd
	elif [ -e /run/openrc/softlevel ]; then
		echo openrc
	elif [ -d /run/runit ] || [ -d "$active" ]; then
		echo runit
	elif command -v systemctl >/dev/null; then
		echo systemd
	elif command -v openrc-run >/dev/null; then
		echo openrc
	else
		echo none
	fi
}

install_service() {
	case $service in
	systemd)
		for unit in config/system/*.socket config/system/*.service; do
			put_text "${unit##*/}" "$system/systemd/system/${unit##*/}" 0644
		done
		put_text user/postino.service "$system/systemd/user/postino.service" 0644
		put_text postino.sysusers "$system/sysusers.d/postino.conf" 0644
		put_text postino.tmpfiles "$system/tmpfiles.d/postino.conf" 0644
		;;
	openrc)
		for name in postino $helpers; do
			put_text "$name.openrc" "/etc/init.d/$name" 0755
		done
		;;
	runit)
		for name in postino $helpers; do
			put_text "$name.runit" "/etc/sv/$name/run" 0755
			put_text postino.runit-log "/etc/sv/$name/log/run" 0755
		done
		;;
	none) ;;
	*) fail "--service $service: want systemd, openrc, runit or none" ;;
	esac
	record service "$service"
}

# start_service starts the runner, or has one that runs take the new program's place.
start_service() {
	case $service in
	systemd)
		if [ -d /run/systemd/system ]; then run systemctl daemon-reload; fi
		run systemctl --quiet enable postino.socket postino.service
		[ -d /run/systemd/system ] || return 0
		run systemctl start postino.socket
		run systemctl restart postino.service
		;;
	openrc)
		run rc-update --quiet add postino default
		[ -e /run/openrc/softlevel ] || return 0
		for name in $helpers; do
			run rc-service --ifstarted "$name" restart
		done
		run rc-service postino restart
		;;
	runit)
		for name in $helpers postino; do
			if there "$active/$name" && [ -e "/etc/sv/$name/supervise/ok" ]; then run sv -w 60 restart "/etc/sv/$name"; fi
		done
		there "$active/postino" || put_link /etc/sv/postino "$active/postino"
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

# stop_service ends what is ours, also what the administrator has turned on.
stop_service() {
	case $service in
	systemd)
		set -- postino.socket postino.service postino-mailbox.socket postino-program.socket
		if [ -d /run/systemd/system ]; then run systemctl stop "$@"; fi
		run systemctl --quiet disable "$@"
		;;
	openrc)
		for name in postino $helpers; do
			if [ -e /run/openrc/softlevel ]; then run rc-service --ifstarted "$name" stop; fi
			for level in /etc/runlevels/*/"$name"; do
				! there "$level" || run rm "$level"
			done
		done
		;;
	runit)
		for name in postino $helpers; do
			if [ -e "/etc/sv/$name/supervise/ok" ]; then
				run sv -w 60 exit "/etc/sv/$name" || run sv force-shutdown "/etc/sv/$name"
				run rm -rf "/etc/sv/$name/supervise" "/etc/sv/$name/log/supervise"
			fi
			! there "$active/$name" || run rm "$active/$name"
		done
		;;
	none) stop_runner ;;
	esac
	for dir in /run/postino /run/postino-program; do # with the sockets of helpers
		[ ! -d "$dir" ] || run rm -rf "$dir"
	done
}
