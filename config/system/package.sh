#!/bin/sh
# Makes packages of what install.sh installs, in the directory that is named: deb, rpm
# and apk, and their checksums. The same source, VERSION and SOURCE_DATE_EPOCH make the
# same files, bit by bit. GOARCH names the machine they are for.
set -eu
out=$(mkdir -p "${1:?usage: config/system/package.sh DIR}" && cd "$1" && pwd)
cd "$(dirname "$0")/../.."
umask 022
. config/system/build.sh

# Without git there is no time of the source: then both variables are wanted.
: "${SOURCE_DATE_EPOCH:=$(source_time)}"
: "${SOURCE_DATE_EPOCH:?is the time of the source, and not known without git: set it, and VERSION}"
: "${VERSION:=$(dotted "$SOURCE_DATE_EPOCH")}"
arch=${GOARCH:-$(go env GOARCH)}
export SOURCE_DATE_EPOCH
time=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
compile "$VERSION" "$stage/bin" "$arch"
native=$stage/bin
if [ "$arch" != "$(go env GOHOSTARCH)" ]; then
	native=$stage/native
	compile "$VERSION" "$native" "$(go env GOHOSTARCH)"
fi
POSTINO_NATIVE=$native/postino ./install.sh --root "$stage/postino" --prefix /usr --binaries "$stage/bin" --without-mta >/dev/null
# What others have under the same name belongs to the package that takes their place.
for page in man8/sendmail.8 man1/mailq.1 man1/newaliases.1 man5/aliases.5; do
	mkdir -p "$stage/postino-mta/usr/share/man/${page%/*}"
	mv "$stage/postino/usr/share/man/$page" "$stage/postino-mta/usr/share/man/$page"
done
cp LICENSE "$stage/postino/usr/share/doc/postino/copyright"
cp -r config/system/package "$stage"
cp config/system/*.openrc "$stage/package"
sed -i '/^# accounts.sh:/{
	r config/system/accounts.sh
	d
}' "$stage/package/postinst"
find "$stage/postino" "$stage/postino-mta" "$stage/package" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

# files lists what is below a directory. (Of a whole tree nfpm would make directories with
# a mode that apk does not understand.)
files() {
	(cd "$1" && find usr ! -type d | LC_ALL=C sort) | while read -r path; do
		if [ -h "$1/$path" ]; then
			echo "  - {src: $(readlink "$1/$path"), dst: /$path, type: symlink}"
		else
			echo "  - {src: $1/$path, dst: /$path}"
		fi
	done
}

for package in postino postino-mta; do
	files "$stage/$package" >"$stage/files"
	for format in deb rpm apk; do
		long=s
		[ "$format" != apk ] || long='/@LONG@/d; s' # apk has one line for a description
		sed "/@FILES@/r $stage/files
			/@FILES@/d; $long|@LONG@||; s|@ARCH@|$arch|g; s|@VERSION@|$VERSION|g; s|@STAGE@|$stage|g; s|@TIME@|$time|g" \
			"config/system/package/$package.yaml" >"$stage/nfpm.yaml"
		${NFPM:-go tool -modfile=.ci/tools.mod nfpm} package --config "$stage/nfpm.yaml" --packager "$format" --target "$out" >/dev/null
	done
done
cd "$out"
sha256sum ./*.deb ./*.rpm ./*.apk >SHA256SUMS
ls
