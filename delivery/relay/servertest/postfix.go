package servertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// nobody owns the mailboxes of Postfix.
const nobody = 65534

// PostfixMaster is the path of the program that Debian's Postfix is.
const PostfixMaster = "/usr/lib/postfix/sbin/master"

// master are Postfix's services but for those that listen.
const master = `cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
proxymap unix - - n - - proxymap
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
error unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`

// Postfix starts Postfix in dir, which other users may enter, and returns when ready
// says so. It has the services that listeners adds to master.cf, and the parameters
// that main adds to main.cf; its virtual mailboxes are below dir/mail, and what it
// logs is in dir/postfix.log. Whose mail it takes, main has to say.
func Postfix(t testing.TB, dir, listeners, main string, ready func() bool) {
	t.Helper()
	log := filepath.Join(dir, "postfix.log")
	Write(t, dir, "etc/master.cf", listeners+master)
	Write(t, dir, "etc/main.cf", fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file_prefixes = %[1]s
maillog_file = %[2]s
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.test
mydestination =
local_header_rewrite_clients =
virtual_mailbox_base = %[1]s/mail
virtual_uid_maps = static:%[3]d
virtual_gid_maps = static:%[3]d
smtpd_error_sleep_time = 0
`, dir, log, nobody)+main)
	Mkdir(t, dir, "queue/pid", 0)
	Mkdir(t, dir, "data", UID(t, "postfix"))
	Mkdir(t, dir, "mail", nobody)
	etc := filepath.Join(dir, "etc")
	if out, err := exec.Command("postfix", "-c", etc, "check").CombinedOutput(); err != nil {
		said, _ := os.ReadFile(log)
		t.Fatalf("postfix check: %v\n%s%s", err, out, said)
	}
	Daemon(t, log, ready, PostfixMaster, "-c", etc, "-d")
}
