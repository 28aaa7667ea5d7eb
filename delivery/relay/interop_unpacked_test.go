package relay

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postino/delivery/relay/servertest"
)

// Exim and OpenSMTPD cannot be installed beside Postfix. Their packages are unpacked
// into the directory that this variable names, as .ci/run does it, and each server runs
// in a mount namespace of its own, where the users and directories are that are written
// into its program.
const unpackedVariable = "POSTINO_TEST_SERVERS"

// unpacked is a directory that programs were unpacked into, with this one in it.
func unpacked(t *testing.T, program string) string {
	t.Helper()
	dir := os.Getenv(unpackedVariable)
	if dir == "" {
		servertest.Missing(t, "%s names no directory of unpacked servers: see .ci/run", unpackedVariable)
	}
	servertest.Needs(t, filepath.Join(dir, program), "see unpack_servers in .ci/run")
	return dir
}

// namespace runs a shell script as servertest.Daemon does, as root of a mount namespace in which
// these users are.
func namespace(t *testing.T, port int, dir, script string, users ...string) {
	t.Helper()
	for _, name := range []string{"passwd", "group"} {
		text, err := os.ReadFile("/etc/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for i, user := range users {
			line := fmt.Sprintf("%s:x:%d:%[2]d::/:/bin/false\n", user, serverID+i)
			if name == "group" {
				line = fmt.Sprintf("%s:x:%d:\n", user, serverID+i)
			}
			text = append(text, line...)
		}
		servertest.Write(t, dir, name, string(text))
	}
	script = fmt.Sprintf("set -e\nmount --bind %[1]s/passwd /etc/passwd\nmount --bind %[1]s/group /etc/group\n", dir) + script
	servertest.Daemon(t, filepath.Join(dir, "said"), listening(port), "unshare", "--mount", "sh", servertest.Write(t, dir, "run", script))
}

// serverID is the number of the first user of a namespace.
const serverID = 64991

// Exim takes what is sent ahead, by BDAT and by DATA, and a command at a time.
func TestInteropWithExim(t *testing.T) {
	t.Parallel()
	packages := unpacked(t, "usr/sbin/exim4")
	for name, hidden := range map[string]string{"all": "", "DATA": "chunking_advertise_hosts =", "neither": "chunking_advertise_hosts =\npipelining_advertise_hosts ="} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := openDir(t)
			port := servertest.FreePort(t)
			for _, sub := range []string{"spool", "mail", "log"} {
				owned(t, filepath.Join(dir, sub), serverID)
			}
			conf := servertest.Write(t, dir, "exim.conf", fmt.Sprintf(`primary_hostname = mx.test
exim_user = Debian-exim
exim_group = Debian-exim
spool_directory = %[1]s/spool
log_file_path = %[1]s/log/%%slog
pid_file_path = %[1]s/pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = %[2]d
disable_ipv6
keep_environment =
host_lookup =
rfc1413_hosts =
tls_advertise_hosts =
acl_smtp_rcpt = rcpt
deliver_drop_privilege
smtp_accept_max_per_connection = 10000
smtp_accept_queue_per_connection = 10000
%[3]s
begin acl
rcpt:
  accept local_parts = box
  deny message = 5.1.1 nobody of that name
begin routers
here:
  driver = accept
  transport = box
begin transports
box:
  driver = appendfile
  directory = %[1]s/mail
  maildir_format
`, dir, port, hidden))
			namespace(t, port, dir, fmt.Sprintf("exec %s/usr/sbin/exim4 -C %s -bdf -oX %d\n", packages, conf, port), "Debian-exim")
			list := letters(60)
			post(t, to(t, port), list, "nobody@x.test")
			arrived(t, filepath.Join(dir, "mail/new/*"), list)
		})
	}
}

// OpenSMTPD takes a command at a time.
func TestInteropWithOpenSMTPD(t *testing.T) {
	t.Parallel()
	packages := unpacked(t, "usr/sbin/smtpd")
	dir := openDir(t)
	port := servertest.FreePort(t)
	owned(t, filepath.Join(dir, "mail"), serverID+2)
	conf := servertest.Write(t, dir, "smtpd.conf", fmt.Sprintf(`table users { "box@x.test" = box }
listen on 127.0.0.1 port %[2]d hostname mx.test
action "box" maildir "%[1]s/mail" virtual <users>
match from any for domain "x.test" action "box"
`, dir, port))
	// These places are written into the program.
	namespace(t, port, dir, strings.NewReplacer("PACKAGES", packages, "CONF", conf).Replace(`mount -t tmpfs -o mode=755 none /var/spool
mkdir -m 711 /var/spool/smtpd
mount -t tmpfs -o mode=755 none /var/lib
mkdir -p /var/lib/opensmtpd/empty
mount -t tmpfs -o mode=755 none /usr/libexec
mkdir /usr/libexec/opensmtpd
cp PACKAGES/usr/libexec/opensmtpd/* /usr/libexec/opensmtpd/
mount -t tmpfs -o mode=755 none /run
exec PACKAGES/usr/sbin/smtpd -d -f CONF
`), "opensmtpd", "opensmtpq", "box")
	list := letters(60)
	post(t, to(t, port), list, "nobody@y.test")
	arrived(t, filepath.Join(dir, "mail/new/*"), list)
}

// owned makes a directory of a user.
func owned(t *testing.T, dir string, uid int) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, uid, uid); err != nil {
		t.Fatal(err)
	}
}
