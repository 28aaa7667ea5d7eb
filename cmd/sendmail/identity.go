package main

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// identity is who calls, by the uid that the kernel gives and the password file.
// The environment has no say in it.
type identity struct {
	login    string
	fullName string // empty when unknown
}

// whoAmI looks the real uid up in a password file. A uid without an entry, as
// containers have it, is called uid1234.
func whoAmI(passwd string, uid int) identity {
	unknown := identity{login: "uid" + strconv.Itoa(uid)}
	fd, err := unix.Open(passwd, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return unknown
	}
	file := os.NewFile(uintptr(fd), passwd) // os.Open would set up a poller first
	defer file.Close()
	want := strconv.Itoa(uid)
	for lines := bufio.NewScanner(file); lines.Scan(); {
		// login:password:uid:gid:gecos:home:shell
		fields := strings.SplitN(lines.Text(), ":", 7)
		if len(fields) >= 5 && fields[2] == want && printable(fields[0]) {
			return identity{fields[0], gecosName(fields[4], fields[0])}
		}
	}
	return unknown
}

// gecosName is the full name in a gecos field: what stands before the first
// comma, where "&" is the login name with a capital letter.
func gecosName(gecos, login string) string {
	name, _, _ := strings.Cut(gecos, ",")
	capital := strings.ToUpper(login[:1]) + login[1:]
	return strings.TrimSpace(strings.ReplaceAll(name, "&", capital))
}

// printable reports whether s is not empty and free of control characters.
func printable(s string) bool { return s != "" && !hasControl(s) }

// hasControl reports whether s has an ASCII control character.
func hasControl(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return true
		}
	}
	return false
}
