# Mail has waited for the boot, and there is no smarthost yet.
step "without a smarthost"
systemctl is-active postino.service postino.socket
await sh -c '[ "$(postino queue --json | wc -l)" = 2 ]'
[ -z "$(systemctl --failed --quiet --no-legend)" ]
systemctl --quiet enable smarthost
send "in the second boot"
