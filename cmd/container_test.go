package cmd_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// image is all that a container has beside a volume: the two programs under /usr/sbin,
// as the README puts them into an image, and no passwd file, no shell, no library.
// Its root is read-only; $VOLUME, where it writes, is at $AT. A user without a name
// calls sendmail in it twice, and the container lasts until there is a file $VOLUME.end.
const image = `
mount -t tmpfs -o mode=755 tmpfs "$ROOT"
cd "$ROOT"
mkdir -p usr/sbin dev proc tmp ".$AT"
cp "$PROGRAMS/sendmail" "$PROGRAMS/postino" usr/sbin/
touch dev/null
mount --bind /dev/null dev/null
mount -t proc proc proc
mount --bind "$VOLUME" ".$AT"
mount -o remount,ro "$ROOT"
for n in 1 2; do
	printf 'Subject: from the container %s\n\nhello\n' $n |
		chroot --userspec=54321:54321 --groups= . /usr/sbin/sendmail -t -i alice@example.org
done
until [ -e "$VOLUME.end" ]; do sleep 0.05; done
`

// inContainer runs image with its variables, of which sendmail sees those that begin
// with POSTINO_, and returns how to end it.
func inContainer(t testing.TB, volume, at string, environ ...string) (end func()) {
	t.Helper()
	cmd := exec.Command("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "sh", "-euc", image)
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "ROOT=" + t.TempDir(), "VOLUME=" + volume, "AT=" + at,
		"PROGRAMS=" + filepath.Dir(program("postino"))}, environ...)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.WriteFile(volume+".end", nil, 0o644); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil || said.String() != "" {
			t.Errorf("in the container: %v\n%s", err, said.String())
		}
		if err := os.Remove(volume + ".end"); err != nil {
			t.Error(err)
		}
	}
}

// In a container without a daemon, whose volume is its user's, the front end starts
// what sends the mail, configured by variables alone.
func TestContainerWithoutDaemon(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	needs(t, "unshare", "util-linux")
	s, b := plainRelay(t)
	b.giveTo(strayUID)
	end := inContainer(t, b.spool, "/data", "POSTINO_SPOOL=/data", "POSTINO_HOSTNAME=app.test", "POSTINO_DOMAIN=app.test",
		"POSTINO_RELAY_HOST=127.0.0.1", fmt.Sprint("POSTINO_RELAY_PORT=", s.Port()), "POSTINO_RELAY_TLS=none")
	awaitIn(t, b.spool, "the mail", func() bool { return len(s.Messages()) == 2 })
	awaitIn(t, b.spool, "the end of the runner", func() bool { return b.holder() == 0 })
	end()
	for n := 1; n <= 2; n++ {
		subject := fmt.Sprint("from the container ", n)
		if m := messageWith(t, s, subject); m == nil || m.From != fmt.Sprintf("uid%d@app.test", strayUID) {
			t.Errorf("%+v", m)
		}
		if tr := b.trace(subject); tr.UID != strayUID {
			t.Errorf("%s: %+v", subject, tr)
		}
	}
}

// A container that has the spool of the machine mounted hands its mail to the runner
// there, or leaves it in drop/ while there is none.
func TestContainerWithTheSpoolOfTheMachine(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	needs(t, "unshare", "util-linux")
	s, b := plainRelay(t)
	b.giveTo(spoolUID)
	r := b.start()
	end := inContainer(t, b.spool, "/var/spool/postino")
	b.log.awaitN(t, 2, "msg=accepted", "via=socket", fmt.Sprintf("uid=%d", strayUID))
	end()
	r.stop()
	end = inContainer(t, b.spool, "/var/spool/postino")
	awaitIn(t, filepath.Join(b.spool, "drop"), "drop files", func() bool { return b.drops() == 2 })
	end()
	b.start()
	b.log.awaitN(t, 2, "msg=accepted", "via=drop", fmt.Sprintf("uid=%d", strayUID))
	b.log.awaitN(t, 4, "msg=finished")
	if n := len(s.Messages()); n != 4 {
		t.Errorf("%d messages arrived, want 4", n)
	}
}
