# The smarthost is there at this boot.
step "it goes out"
await arrived "waits in drop"
await arrived "waits in the queue"
await arrived "in the second boot"
await sh -c '[ -z "$(postino queue --json)" ]'
systemctl --quiet disable --now smarthost

step "exim again"
apt-get -q -y --no-install-recommends install /var/cache/apt/archives/exim4-daemon-light_*.deb
dpkg -S /usr/sbin/sendmail
systemctl is-active postino.service # it is not the system's sendmail any more
apt-get -q -y purge postino
systemctl list-units --all --no-legend 'postino*' | sed -n '/not-found/!s/^/left: /p'
echo hello | mail -s "by exim" ann
await grep -q '^Subject: by exim$' /var/mail/ann

# What the administrator made.
rm -r /etc/systemd/system/postino*.d /var/lib/probe /var/mail/ann
sed -i '/^root: carol/d; /^prog: /d; /^file: /d' /etc/aliases
listing >/shared/after
diff /shared/before /shared/after || :
