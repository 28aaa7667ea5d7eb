package cmd_test

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// foundation is a package that stands for what our packages want of a system that has no
// other packages.
const foundation = `
name: foundation
arch: all
platform: linux
version: 1.0.0
maintainer: nobody <nobody@localhost>
description: what is here without rpm
provides: [/bin/sh, /usr/sbin/useradd, /usr/sbin/alternatives]
`

// checkRPM does with the packages what an administrator does, beside another mailer of the
// group, which gets its place back.
func checkRPM(t testing.TB, dir string) {
	m := newMachine(t)
	needs(t, "rpm", "rpm")
	m.shared = dir
	config := filepath.Join(t.TempDir(), "foundation.yaml")
	if err := os.WriteFile(config, []byte(foundation), 0o644); err != nil {
		t.Fatal(err)
	}
	nfpm := exec.Command("go", "tool", "-modfile=.ci/tools.mod", "nfpm", "package", "--config", config, "--packager", "rpm", "--target", filepath.Join(dir, "foundation.rpm"))
	nfpm.Dir = ".."
	if out, err := nfpm.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const without = "rm -f /usr/bin/dpkg-divert; for page in man1/mailq.1 man1/newaliases.1 man5/aliases.5 man8/sendmail.8; do rm -f /usr/share/man/$page*; done"
	out, _ := m.run(held+without+alternativesOfRedHat, sent+awaited+`
where() { echo "$1: $(readlink -f /usr/sbin/sendmail) $(readlink -f /usr/bin/mailq)"; }
rpm="rpm --force-debian --quiet"
where before
$rpm -i /shared/foundation.rpm
$rpm -i /shared/one/*.rpm
where "chosen by hand"
alternatives --auto mta
where installed
$rpm -V postino postino-mta
stat -c '%n %a %U' /var/spool/postino/drop
id -un postino-program
sendmail -bd
await postino status
send first
old=$(pid)
echo '# mine' >>/etc/default/postino
$rpm -U /shared/two/*.rpm
await another $old
where upgraded
send second
await taken
postino status | head -n 1
echo "$(mailq | tail -n 1) $(tail -n 1 /etc/default/postino)"
$rpm -e postino-mta
where "without mta"
$rpm -e postino
await ended
[ ! -e /usr/lib/postino ] && [ -e /var/spool/postino/spool.db ] && [ -e /etc/postino/postino.toml ] && [ -e /etc/default/postino.rpmsave ]
`)
	const other, ours = "/usr/sbin/sendmail.other /usr/sbin/sendmail.other\n", "/usr/lib/postino/sendmail /usr/lib/postino/sendmail\n"
	for _, want := range []string{"before: " + other, "chosen by hand: " + other, "installed: " + ours, "/var/spool/postino/drop 3733 postino\n", "postino-program\n",
		"upgraded: " + ours, "postino 1.0.1 runs", "in 2 Requests. # mine\n", "without mta: /usr/sbin/sendmail.another "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}

// checkAPK looks for what apk(8) would not read: apk_tar_parse knows octal numbers alone,
// and takes an entry without a name for the end.
func checkAPK(t testing.TB, dir string) {
	files, err := filepath.Glob(filepath.Join(dir, "*.apk"))
	if err != nil || len(files) != 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		packed, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		in := tar.NewReader(packed)
		for {
			h, err := in.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.Name == "" || h.Name == "./" || h.Mode&^0o7777 != 0 || h.Uid != 0 || h.Gid != 0 {
				t.Errorf("%s: %q has mode %o, uid %d, gid %d", filepath.Base(name), h.Name, h.Mode, h.Uid, h.Gid)
			}
		}
	}
}
