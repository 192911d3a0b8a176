#!/bin/sh
# Brings the programs that no wheel carries, when they are missing:
#   prometheus.sh            Prometheus and Alertmanager
#   prometheus.sh --test     and Chromium, docker-compose (tests)
#   prometheus.sh --bench    and minio-client (benchmarks)
# Debian: apt-get as root or with sudo. macOS: brew. Elsewhere it says what to install.
# Nothing that it installs is left running: the stack starts its own processes.
set -eu

POLICY=/usr/sbin/policy-rc.d
POLICY_MARK='made by scripts/setup/prometheus.sh'
policy_is_ours=no
sudo=''

# Lines of: what | programs, any of which will do | Debian package | brew formula
wanted='prometheus|prometheus|prometheus|prometheus
promtool|promtool|prometheus|prometheus
alertmanager|prometheus-alertmanager alertmanager|prometheus-alertmanager|alertmanager
amtool|amtool|prometheus-alertmanager|alertmanager'
test_wanted='chromium|chromium|chromium|--cask chromium
docker-compose|docker-compose|docker-compose|docker-compose'
bench_wanted='minio-client|minio-client mcli|minio-client|minio-mc'

say() { printf '%s\n' "$*"; }
fail() {
    printf 'scripts/setup/prometheus.sh: %s\n' "$*" >&2
    exit 1
}

find_program() {
    for program in $1; do
        command -v "$program" && return 0
    done
    return 1
}

# Print for every missing row, each once: its Debian package, its brew formula, or its name.
list_missing() {
    printf '%s\n' "$wanted" | while IFS='|' read -r what programs debian brew; do
        find_program "$programs" >/dev/null && continue
        case "$1" in
        debian) say "$debian" ;;
        brew) say "$brew" ;;
        *) say "  $what" ;;
        esac
    done | sort -u
}

# Stop with an explanation when program $1 is older than $2.$3, which $4 needs.
need_version() {
    version=$("$1" --version 2>&1 | sed -n 's/.*version \([0-9][0-9]*\.[0-9][0-9]*\).*/\1/p' | head -n 1)
    major=${version%%.*}
    minor=${version#*.}
    case "$major$minor" in
    '' | *[!0-9]*) fail "cannot read the version of $1" ;;
    esac
    if [ "$major" -lt "$2" ] || { [ "$major" -eq "$2" ] && [ "$minor" -lt "$3" ]; }; then
        fail "$1 is $version; $4 needs $2.$3 or newer. Install a newer one and put it first on PATH."
    fi
}

report() {
    printf '%s\n' "$wanted" | while IFS='|' read -r what programs _ _; do
        found=$(find_program "$programs") || fail "$what is still missing: none of: $programs"
        say "$what: $found"
    done
    need_version "$(find_program prometheus)" 2 42 'keep_firing_for'
    need_version "$(find_program 'prometheus-alertmanager alertmanager')" 0 28 'msteamsv2_configs'
}

# Forbid that packages start services, unless the machine has a policy of its own.
make_policy() {
    if [ -e "$POLICY" ] || [ -L "$POLICY" ]; then
        # One of ours, left by a run that was killed, is taken over.
        grep -qs "$POLICY_MARK" "$POLICY" && policy_is_ours=yes
        return 0
    fi
    policy_is_ours=yes
    printf '#!/bin/sh\n# %s\nexit 101\n' "$POLICY_MARK" | $sudo tee "$POLICY" >/dev/null
    $sudo chmod 755 "$POLICY"
}

remove_policy() {
    [ "$policy_is_ours" = no ] || $sudo rm -f "$POLICY"
    policy_is_ours=no
}

# Names of the systemd units that package $1 brings.
list_units() {
    dpkg-query -L "$1" |
        sed -n 's#^\(/usr\)*/lib/systemd/system/\([^@/]*\.\(service\|timer\|socket\)\)$#\2#p' |
        sort -u
}

# Stop and disable what a package that we installed has set up.
disable_services() {
    if [ -d /run/systemd/system ]; then
        for unit in $(list_units "$1"); do
            $sudo systemctl disable --now "$unit" >/dev/null 2>&1 || true
            if systemctl is-active --quiet "$unit"; then
                fail "$unit was started by its package and does not stop: systemctl stop $unit"
            fi
        done
    elif [ -x "/etc/init.d/$1" ]; then
        # With our policy in force it never started, so there is nothing to stop.
        [ "$policy_is_ours" = yes ] || $sudo "/etc/init.d/$1" stop >/dev/null 2>&1 || true
        if command -v update-rc.d >/dev/null; then
            $sudo update-rc.d "$1" disable >/dev/null 2>&1 || true
        fi
    fi
}

install_with_apt() {
    if [ "$(id -u)" -ne 0 ]; then
        # Without a terminal nobody could type the password.
        if command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
            sudo=sudo
        else
            fail "neither root nor sudo. Ask an administrator for: apt-get install $*"
        fi
    fi
    trap remove_policy EXIT
    trap 'exit 130' INT
    trap 'exit 143' HUP TERM
    make_policy
    say "installing with apt-get: $*"
    $sudo apt-get -q -o DPkg::Lock::Timeout=120 update >/dev/null ||
        say 'apt-get update failed; going on with the package lists at hand' >&2
    # One that is there already, but not on this PATH, has services that are not ours to stop.
    new=''
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
            new="$new $package"
    done
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 \
        install --no-install-recommends "$@" >/dev/null ||
        fail "apt-get could not install: $*"
    for package in $new; do
        disable_services "$package"
    done
    remove_policy
}

for option in "$@"; do
    case "$option" in
    --test) wanted="$wanted
$test_wanted" ;;
    --bench) wanted="$wanted
$bench_wanted" ;;
    *)
        say "usage: prometheus.sh [--test] [--bench]" >&2
        exit 2
        ;;
    esac
done

missing=$(list_missing debian)
if [ -n "$missing" ]; then
    if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
        # shellcheck disable=SC2086
        install_with_apt $missing
    elif [ "$(uname -s)" = Darwin ] && command -v brew >/dev/null; then
        list_missing brew | while IFS= read -r formula; do
            say "installing with brew: $formula"
            # A formula may stand with its option, as in "--cask chromium".
            # shellcheck disable=SC2086
            brew install $formula </dev/null
        done
    else
        fail "install these and put them on PATH, then run this again
(Prometheus 2.42 or newer, Alertmanager 0.28 or newer):
$(list_missing name)"
    fi
fi
report
