# install.sh, beside exim.
useradd -m ann
listing >/shared/before
cd /src || exit
step "install"
./install.sh --binaries /bin.new
smarthost
echo secret | install -m 0640 -g postino /dev/stdin /etc/postino/relay.pass
echo 'password_file = "/etc/postino/relay.pass"' >>/etc/postino/postino.toml
postino reload
systemctl is-enabled postino.socket postino.service
systemctl is-active postino.socket postino.service
send "by install.sh"
await arrived "by install.sh"

step "upgrade"
mkdir /tmp/newer
cp /bin.new/postino /bin.new/sendmail /tmp/newer
printf newer | tee -a /tmp/newer/postino >>/tmp/newer/sendmail
load
sleep 1
old=$(pid)
./install.sh --binaries /tmp/newer
await another "$old"
enough

step "uninstall"
./install.sh --uninstall
find /var/spool/postino /etc/postino -type f
./install.sh --uninstall --purge
systemctl list-units --all --no-legend 'postino*' | sed -n '/not-found/!s/^/left: /p'
echo hello | mail -s "by exim" ann
await grep -q '^Subject: by exim$' /var/mail/ann
rm /var/mail/ann
listing >/shared/after
diff /shared/before /shared/after || :
