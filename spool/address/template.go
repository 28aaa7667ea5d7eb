package address

import "strings"

// Fill is the address that a template makes of a: {user} in it stands for the local part
// of a, and {hostname} for hostname. Where no address comes of that, because the local
// part does not fit or the template has no domain, it is a.
func Fill(template string, a Address, hostname string) Address {
	at := strings.LastIndexByte(template, '@')
	if at < 0 {
		return a
	}
	fill := strings.NewReplacer("{user}", a.Local, "{hostname}", hostname)
	to := Address{Local: fill.Replace(template[:at]), Domain: fill.Replace(template[at+1:])}
	if back, err := Parse(to.String()); err != nil || back != to {
		return a
	}
	return to
}
