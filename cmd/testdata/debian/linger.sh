# Without a login: she lingers.
await arrived next
ps -o user,args -C postino
