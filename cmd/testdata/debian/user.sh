# A person's own postino, under a user manager.
step "setup"
useradd -m -s /bin/sh ann
apt-get -q -y --no-install-recommends install /shared/one/*.deb
smarthost
rm /etc/postino/postino.toml
cat >/tmp/ann.sh <<'end'
set -eu
echo secret >~/password
postino --user setup --host 127.0.0.1:587 --username web --password-file ~/password --address ann@example.org \
	--ca-file /shared/ca.pem --to carol@example.org
printf '[retry]\nfirst = "5s"\n' >>~/.config/postino/postino.toml
systemctl --user enable --now postino
systemctl --user is-active postino
end
loginctl enable-linger ann
runuser -l ann -c 'sh /tmp/ann.sh'
await arrived "postino works on .*"

step "what a new session finds"
ann() { runuser -l ann -c "$*"; }
loginctl disable-linger ann
await sh -c '! loginctl show-user ann'
loginctl enable-linger ann
await ann systemctl --user is-active postino
ann 'systemctl --user show-environment | grep ^POSTINO_'
ann 'echo "a login has ${POSTINO_SPOOL-none}"'
ann systemd-run --user --wait --quiet sh -c '"printf \"Subject: hers\n\nhello\n\" | sendmail -i dora@example.org"'
await arrived hers
ann postino --user trace hers
ann systemctl --user reload postino

step "its end, and the next boot"
systemctl stop smarthost
ann systemd-run --user --wait --quiet sh -c '"printf \"Subject: next\n\nhello\n\" | sendmail -i dora@example.org"'
loginctl disable-linger ann
await sh -c '! pgrep -u ann'
loginctl enable-linger ann
systemctl --quiet enable smarthost
