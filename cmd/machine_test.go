package cmd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// machineTime bounds what is done on a machine, in seconds of a busy one.
const machineTime = 8 * time.Minute

// machine is a copy of a system, this one's by default, on which scripts of a test may
// do what they like as root: its files are a copy on write in memory, its processes,
// mounts, network and hostname its own. It has our source in /src, our programs in /bin.new and
// what a test shares in /shared.
type machine struct {
	t      testing.TB
	lower  string // the directory that is copied
	shared string
	cgroup *os.File // where its processes are; nil is where the test is
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	needsRoot(t)
	needs(t, "unshare", "util-linux")
	return &machine{t: t, lower: "/", shared: t.TempDir()}
}

// setUp makes the machine and runs the two scripts that it finds in the environment:
// given, whose changes count as how the machine was, and script. It ends with a list
// of what that one changed and did not change back. Logs, caches and the copies that
// the programs for users keep of their files are no part of it.
const setUp = `
mount -t tmpfs -o mode=755 tmpfs "$BOX"
cd "$BOX"
mkdir before before.work after after.work was is
layer() { # LOWER UPPER WHERE
	mount -t overlay overlay -o lowerdir=$1,upperdir=$2,workdir=$2.work $3
	mkdir -p $3/src $3/bin.new $3/shared
	mount --bind "$SOURCE" $3/src
	mount --bind "$PROGRAMS" $3/bin.new
	mount --bind "$SHARED" $3/shared
	mount -t proc proc $3/proc
	mount --rbind /dev $3/dev
	mount -t tmpfs -o mode=755 tmpfs $3/run
	mount -t tmpfs -o mode=1777 tmpfs $3/tmp
}
inside() { # WHERE SCRIPT
	chroot $1 /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive sh -euc "$2"
}
layer "$LOWER" before was
[ -z "$GIVEN" ] || inside was "$GIVEN"
layer before:"$LOWER" after is
[ -z "$BOOT" ] || { printf '%s\n' "$SCRIPT" >"$SHARED/script"; cd is; pivot_root . .; umount -l .; exec chroot . /bin/sh -euc "$BOOT"; }
inside is "$SCRIPT"
printf '\n=== changed\n'
cd after
find . -mindepth 1 | grep -vE '^./(var/(log|cache|tmp)(/|$)|var/lib/dpkg/(diversions-old|status-old|lock|triggers)|etc/(passwd|group|shadow|gshadow)-$|etc/.pwd.lock|root/)' | sort | while read -r p; do
	a=$(find $p -maxdepth 0 -printf '%y %m %u %g %l') b=$(find ../was/$p -maxdepth 0 -printf '%y %m %u %g %l' 2>/dev/null) || :
	if [ "$a" != "$b" ] || { [ -f $p ] && ! cmp -s $p ../was/$p; }; then echo "$p: $a, was $b"; fi
done
`

// run runs script on the machine after given, and returns what it said, and the files
// that it left other than they were. It fails the test when the script fails.
func (m *machine) run(given, script string) (out, changed string) {
	m.t.Helper()
	said, err := m.command(given, script)
	out, changed, ended := strings.Cut(said, "\n=== changed\n")
	if err != nil || !ended {
		m.t.Fatalf("%v\n%s", err, said)
	}
	return out, changed
}

// command is run before its result is looked at. More variables are for setUp.
func (m *machine) command(given, script string, more ...string) (string, error) {
	m.t.Helper()
	source, err := filepath.Abs("..")
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child", "sh", "-euc", setUp)
	cmd.Env = append(os.Environ(), "LOWER="+m.lower, "SOURCE="+source, "PROGRAMS="+filepath.Dir(program("postino")), "SHARED="+m.shared, "BOX="+m.t.TempDir(),
		"GIVEN="+given, "SCRIPT="+script, "BOOT=")
	cmd.Env = append(cmd.Env, more...)
	if m.cgroup != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(m.cgroup.Fd())}
	}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = patience
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	stop := limited(m.t, cmd, machineTime)
	err = cmd.Wait()
	stop()
	return said.String(), err
}
