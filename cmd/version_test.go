package cmd_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// What install.sh builds has the version of its source: of a checkout that of its commit,
// whoever owns it and whatever else is changed; without git of its own one that is always
// the same; and what the administrator says before all that.
func TestVersionIsTheSources(t *testing.T) {
	t.Parallel()
	needs(t, "git", "git")
	file, err := filepath.Abs("../config/system/build.sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-euc", `
unset VERSION
. "$1"
export HOME=/nonexistent GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_DATE=@1795500000 GIT_COMMITTER_DATE=@1795500000
export GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=n@localhost GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=n@localhost
git init -q .
echo 1 >file
git add file
git commit -qm one
source_version
[ "$(id -u)" -ne 0 ] || chown -R 65534 .
source_version
echo 2 >file
source_version
mkdir sub
cd sub
source_version
cd ..
VERSION=1.2.3 source_version
rm -rf .git
source_version
`, "sh", file)
	cmd.Dir = t.TempDir()
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	const commit = `0\.0\.202611240600\+[0-9a-f]{12}`
	want := regexp.MustCompile(`^(` + commit + `)\n(` + commit + `)\n` + commit + `-dirty\n0\.0\.0\n1\.2\.3\n0\.0\.0\n$`)
	if found := want.FindSubmatch(said); found == nil || string(found[1]) != string(found[2]) {
		t.Errorf("%s", said)
	}
}
