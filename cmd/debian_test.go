package cmd_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postino/spool/standstill"
)

// bootTime bounds one boot of a Debian and what it does there.
const bootTime = 12 * time.Minute

// debian is a machine in user-mode Linux that boots with systemd: a kernel of its own, a
// disk, which is a copy of the directory that debianVariable names, and no network.
type debian struct {
	t      testing.TB
	disk   string
	shared string // /shared there
}

// firstProcess mounts directories of ours and becomes systemd.
const firstProcess = `#!/bin/sh
mount -t hostfs -o %s none /shared
mount -t hostfs -o %s none /src
mount -t hostfs -o %s none /bin.new
exec /lib/systemd/systemd
`

// trialUnit runs a script once the machine is up, and ends the machine.
const trialUnit = `[Unit]
After=multi-user.target
[Service]
Type=exec
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive SYSTEMD_COLORS=0 SYSTEMD_BUS_TIMEOUT=180
ExecStart=/bin/sh -eu /shared/script
StandardOutput=append:/shared/out
StandardError=inherit
ExecStopPost=/bin/sh -c 'echo $SERVICE_RESULT >/shared/result; systemctl --no-block poweroff'
`

// smarthostUnit is relaytest's, for a machine without Go.
const smarthostUnit = `[Unit]
Before=postino.service systemd-logind.service
[Service]
Type=exec
Environment=POSTINO_TEST_SMARTHOST=/shared
ExecStartPre=/bin/rm -f /shared/ca.pem
ExecStart=/shared/smarthost -test.run TestServeAMachine -test.timeout 0
ExecStartPost=/bin/sh -c 'until [ -s /shared/ca.pem ]; do sleep 0.1; done'
[Install]
WantedBy=multi-user.target
`

// newDebian makes a machine. base has what all of them share.
func newDebian(t testing.TB, base string) *debian {
	t.Helper()
	d := &debian{t: t, disk: filepath.Join(t.TempDir(), "disk"), shared: t.TempDir()}
	out, err := exec.Command("cp", "-al", filepath.Join(base, "one"), filepath.Join(base, "two"), filepath.Join(base, "smarthost"), d.shared).CombinedOutput()
	if err == nil {
		out, err = exec.Command("cp", "--sparse=always", filepath.Join(base, "disk"), d.disk).CombinedOutput()
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	source, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	d.write("first", fmt.Sprintf(firstProcess, d.shared, source, filepath.Dir(program("postino"))))
	d.write("trial", trialUnit)
	d.write("unit", smarthostUnit)
	// sbin and lib are links there, and debugfs follows none.
	edit := exec.Command("debugfs", "-w", d.disk, "-f", "-")
	edit.Stdin = strings.NewReader(strings.NewReplacer("@", d.shared).Replace(`
mkdir /shared
mkdir /src
mkdir /bin.new
cd /usr/sbin
write @/first first-process
sif first-process mode 0100755
cd /etc/systemd/system
write @/trial trial.service
write @/unit smarthost.service
mkdir multi-user.target.wants
cd multi-user.target.wants
symlink trial.service /etc/systemd/system/trial.service
`))
	if out, err := edit.CombinedOutput(); err != nil {
		t.Fatalf("debugfs: %v\n%s", err, out)
	}
	return d
}

func (d *debian) write(name, text string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.shared, name), []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

// boot starts the machine, has it run a script of testdata/debian, and returns what
// that said. The test fails unless the script ends with 0 and the machine ends.
func (d *debian) boot(script string) string {
	d.t.Helper()
	var text []byte
	for _, name := range []string{"lib.sh", script} {
		part, err := os.ReadFile(filepath.Join("testdata/debian", name))
		if err != nil {
			d.t.Fatal(err)
		}
		text = append(text, part...)
	}
	d.write("script", string(text))
	d.write("out", "")
	d.write("result", "")
	d.write("mail", "")
	cmd := exec.Command("/usr/bin/linux.uml", "mem=640M", "ubd0="+d.disk, "root=/dev/ubda", "rw", "init=/sbin/first-process",
		"con=null", "con0=null,fd:1", "ssl=null", "systemd.firstboot=off")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + d.shared, "TMPDIR=/dev/shm"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var console bytes.Buffer
	// The kernel wants a pipe.
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	var copied sync.WaitGroup
	copied.Go(func() { _, _ = io.Copy(&console, out) })
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	tooLong := time.AfterFunc(bootTime, func() {
		d.t.Errorf("%s: the machine is not off within %v\n%s", script, bootTime, standstill.Of(cmd.Process.Pid))
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	})
	err := cmd.Wait()
	tooLong.Stop()
	in.Close()
	copied.Wait()
	said, readErr := os.ReadFile(filepath.Join(d.shared, "out"))
	result, resultErr := os.ReadFile(filepath.Join(d.shared, "result"))
	if err := errors.Join(err, readErr, resultErr); err != nil || string(result) != "success\n" {
		log := console.String()
		d.t.Fatalf("%s: %v, %q\n%s\n%s", script, err, result, log[max(0, len(log)-1000):], said)
	}
	return string(said)
}

// wants fails unless each text is in what was said.
func (d *debian) wants(said string, texts ...string) {
	d.t.Helper()
	for _, want := range texts {
		if !strings.Contains(said, want) {
			d.t.Errorf("no %q in:\n%s", want, said)
		}
	}
}

// unchanged fails when what is said about the end has a difference to the beginning.
func (d *debian) unchanged(said string) {
	d.t.Helper()
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "< ") || strings.HasPrefix(line, "> ") || strings.HasPrefix(line, "left: ") {
			d.t.Errorf("changed: %s", line)
		}
	}
}

// debianParts makes what the machines share: packages, a smarthost, a disk.
func debianParts(t testing.TB, tree string) string {
	t.Helper()
	base := t.TempDir()
	var made sync.WaitGroup
	for name, version := range map[string]string{"one": "1.0.0", "two": "1.0.1"} {
		made.Go(func() { makePackages(t, "..", version, "022", filepath.Join(base, name)) })
	}
	disk := filepath.Join(base, "disk")
	for _, line := range [][]string{
		{"go", "test", "-c", "-o", filepath.Join(base, "smarthost"), "postino/delivery/relay/relaytest"},
		{"truncate", "-s", "3G", disk},
		{"mkfs.ext4", "-q", "-F", "-d", tree, disk},
	} {
		cmd := exec.Command(line[0], line[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%q: %v\n%s", line, err, out)
		}
	}
	made.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return base
}

// A Debian that boots with systemd, and knows nothing of a namespace: the packages, and
// install.sh, take exim's place there and give it back, and lose no mail meanwhile.
func TestDebian(t *testing.T) {
	tree := os.Getenv(debianVariable)
	if tree == "" {
		t.Skip(debianVariable + " is not set: CONTRIBUTING.md says what it is")
	}
	needsRoot(t)
	needs(t, "mkfs.ext4", "e2fsprogs")
	needs(t, "linux.uml", "user-mode-linux")
	base := debianParts(t, tree)
	t.Run("package", func(t *testing.T) {
		t.Parallel()
		d := newDebian(t, base)
		said := d.boot("package.sh")
		t.Log(said)
		d.wants(said, "enabled\nenabled\nactive\nactive\n", "ok    conf.secret ", "ok    relay ", "\nann mail 660\n", "NoNewPrivs:\t1\nSeccomp:\t2\n", "CapBnd:\t0000000000000000\n")
		t.Log(d.boot("reboot.sh"))
		said = d.boot("leave.sh")
		t.Log(said)
		d.wants(said, "exim4-daemon-light: /usr/sbin/sendmail\n")
		d.unchanged(said)
	})
	t.Run("source", func(t *testing.T) {
		t.Parallel()
		d := newDebian(t, base)
		said := d.boot("source.sh")
		t.Log(said)
		d.wants(said, "enabled\nenabled\nactive\nactive\n")
		d.unchanged(said)
	})
	t.Run("user", func(t *testing.T) {
		t.Parallel()
		d := newDebian(t, base)
		said := d.boot("user.sh")
		t.Log(said)
		d.wants(said, "POSTINO_SPOOL=/home/ann/.local/state/postino\n", "a login has none\n")
		d.wants(d.boot("linger.sh"), "ann      /usr/bin/postino --user run\n")
	})
}
