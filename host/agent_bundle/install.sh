#!/bin/sh
# Installs the genba agent on this device from the files beside this script, without a network.
#
#   sudo sh install.sh [--token TOKEN] [--service] [--prefix DIR] [--python PATH] [--home DIR]
#
# --token    enrol the device too, with what `genba device enroll NAME` prints on the host
# --service  have systemd run the agent, from now on and after every start (needs an enrolled device)
# --prefix   where the program goes        (default /opt/genba-agent)
# --home     where the agent keeps its key (default /var/lib/genba-agent; for others than root the
#            agent's own default)
# --python   the Python to use             (default python@PYTHON@, then python3)
set -eu
umask 022

arch='@ARCH@'
bits='@BITS@'
version='@VERSION@'
python_version='@PYTHON@'
# The CPU level below that of this bundle, where there is one and an agent for it.
older_cpu='@OLDER_CPU@'
# Packages of Debian that this device must have already, as MODULE:PACKAGE.
from_debian='@APT@'
pip_wheel='@PIP@'

prefix=/opt/genba-agent
home=
python=
token=
service=

say() { printf '%s\n' "$*"; }
fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }
usage() { sed -n '2,/^set -eu/s/^# \{0,1\}//p' "$0"; }

while [ $# -gt 0 ]; do
    case $1 in
        --service) service=yes ;;
        --help | -h) usage; exit 0 ;;
        --token | --prefix | --python | --home)
            [ $# -ge 2 ] || fail "$1 needs a value; --help says which"
            case $1 in
                --token) token=$2 ;;
                --prefix) prefix=$2 ;;
                --python) python=$2 ;;
                --home) home=$2 ;;
            esac
            shift ;;
        *) fail "unknown option $1; --help lists them" ;;
    esac
    shift
done
case $prefix in /*) ;; *) fail "--prefix needs an absolute path, and not $prefix" ;; esac
if [ -z "$home" ] && [ "$(id -u)" = 0 ]; then home=/var/lib/genba-agent; fi

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
cd "$here"

# 1. What came on the stick is what was put on it.
sha256sum --check --quiet SHA256SUMS \
    || fail "files of this folder are damaged or missing: unpack the archive again, or copy it again"

# 2. The right Python. Only itself knows how wide it is: the kernel may be 64-bit below a 32-bit
#    system, and then uname says what does not matter.
tell='import sys, struct, platform
print("%d.%d" % sys.version_info[:2], struct.calcsize("P") * 8, platform.machine())'
found=
if [ -n "$python" ]; then set -- "$python"; else set -- "python$python_version" python3; fi
for candidate; do
    found=$("$candidate" -I -c "$tell" 2>/dev/null) || continue
    python=$candidate
    case $found in "$python_version "*) break ;; esac
done
[ -n "$found" ] || fail "there is no ${python:-python3} that starts here"
# Three words: version, bits, machine.
# shellcheck disable=SC2086
set -- $found
[ "$1" = "$python_version" ] || fail "this bundle is for Python $python_version, and $python is $1:" \
    "make one with \`genba agent-bundle --arch $arch --python $1\`"
case $2-$3 in
    64-x86_64) real=x86_64 ;;
    64-aarch64) real=aarch64 ;;
    32-armv7l | 32-armv8l | 32-aarch64) real=armv7l ;;
    32-i?86 | 32-x86_64) real=i686 ;;
    *) fail "no agent is known for this machine ($2-bit Python on $3)" ;;
esac
[ "$real" = "$arch" ] || fail "this bundle is for $arch ($bits-bit), and $python is a $2-bit $real:" \
    "make one with \`genba agent-bundle --arch $real --python $1\`"

# 3. What only Debian has for this machine.
missing=
command -v openssl >/dev/null || missing=' openssl'
for pair in $from_debian; do
    "$python" -I -c "import ${pair%%:*}" 2>/dev/null || missing="$missing ${pair#*:}"
done
[ -z "$missing" ] || fail "this device lacks packages of its own system; install them with:" \
    "sudo apt install$missing"

# 4. An environment beside any older one: that goes on working until the new one is whole.
program=$prefix/$version-$(sha256sum SHA256SUMS | cut -c1-8)
mkdir -p "$prefix/bin" 2>/dev/null && [ -w "$prefix/bin" ] \
    || fail "$prefix cannot be written: run this with sudo, or give --prefix DIR"
if [ ! -e "$program/complete" ]; then
    say "installing into $program"
    rm -rf "$program"
    if [ -n "$from_debian" ]; then shared=--system-site-packages; else shared=; fi
    # shellcheck disable=SC2086
    "$python" -I -m venv --without-pip $shared "$program" \
        || fail "$python cannot make an environment: sudo apt install python3-venv"
    # On Python 3.9 pip asks distutils where things go, which Debian 11 keeps in a package of its own;
    # this setting of pip has it ask as on newer Pythons.
    run_pip="import runpy, sys, sysconfig; sys.path.insert(0, 'wheels/$pip_wheel')
sysconfig._PIP_USE_SYSCONFIG = True
runpy.run_module('pip', run_name='__main__', alter_sys=True)"
    PIP_CONFIG_FILE=/dev/null "$program/bin/python" -I -c "$run_pip" --isolated install \
        --quiet --disable-pip-version-check --no-cache-dir --no-warn-script-location \
        --root-user-action=ignore --ignore-installed --no-deps --require-hashes \
        --no-index --find-links wheels --requirement requirements.txt \
        || fail "the wheels cannot be installed; what pip said above is the reason"
    status=0
    "$program/bin/python" -I -c 'import grpc, google.protobuf, psutil' || status=$?
    hint=${older_cpu:+: make a bundle with \`genba agent-bundle --arch $arch --python $python_version --cpu $older_cpu\`}
    [ "$status" -lt 128 ] || fail "this CPU lacks instructions that gRPC needs (signal $((status - 128)))$hint"
    [ "$status" = 0 ] || fail "the packages are there but do not load; the lines above say why"
    : >"$program/complete"
    sync
fi
ln -sfn "$program/bin/genba-agent" "$prefix/bin/genba-agent"
agent=$prefix/bin/genba-agent
say "$("$agent" --version) is in $program"

# 5. On request: enrolment and service. Otherwise, the commands for it.
set --
if [ -n "$home" ]; then set -- --home "$home"; fi
if [ -n "$token" ]; then "$agent" enroll "$@" --token "$token"; fi
if [ -n "$service" ]; then
    "$agent" install "$@"
    exit 0
fi
where=${home:+ --home $home}
say "next:"
[ -n "$token" ] || say "  $agent enroll$where --token TOKEN    # from \`genba device enroll NAME\` on the host"
say "  $agent doctor$where    # what good figures still need here"
if [ "$(id -u)" = 0 ]; then
    say "  $agent install$where    # have systemd run it; an older version runs until then"
else
    say "  $agent run$where    # work for the host until stopped"
fi
