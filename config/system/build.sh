# shellcheck shell=sh
# Builds both programs, and knows what version that is: a part of install.sh and package.sh.
# The same source and version make the same programs, bit by bit.

# in_git asks git about the source, which may be another user's than root; there need be
# no git, and what is above the source is no matter.
in_git() {
	[ -e .git ] && command -v git >/dev/null && GIT_OPTIONAL_LOCKS=0 git -c safe.directory='*' "$@" 2>/dev/null
}

source_time() { in_git log -1 --format=%ct; }

# dotted is a version that packages of all kinds can be compared by.
dotted() { echo "0.0.$(date -u -d "@$1" +%Y%m%d%H%M)"; }

# source_version is VERSION where that is set; else of a checkout the time and the name of
# its commit, and whether something was changed; else the one that is no version.
source_version() {
	if [ -n "${VERSION-}" ]; then
		echo "$VERSION"
	elif time=$(source_time); then
		echo "$(dotted "$time")+$(in_git describe --always --dirty --abbrev=12 --exclude='*')"
	else
		echo 0.0.0
	fi
}

# compile VERSION DIR [ARCH]
compile() {
	CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOARCH=${3-${GOARCH-}} go build -trimpath -ldflags "-s -w -buildid= -X main.version=$1" \
		-o "$2/" ./cmd/sendmail ./cmd/postino
}
