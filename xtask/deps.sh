#!/bin/sh
# Installs what building and testing Outrigger needs and this machine lacks: tools from the distribution's packages,
# a Rust compiler that has `core` for BPF, and bpf-linker of that compiler's LLVM.
#
# A shell script, because on a fresh machine cargo itself may be what is missing. It says what it installs and why,
# asks first on a terminal unless YES=1, and does nothing, quickly, when nothing is missing.
#
# usage: deps.sh [qemu]      qemu: also what `cargo xtask verify-kernel` runs kernels with
set -eu

workspace=$(cd "$(dirname "$0")/.." && pwd)
PATH="${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:$PATH:/usr/sbin:/sbin"
export PATH
rust_wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$workspace/Cargo.toml")
linker_wanted="^0.13"

say() { printf 'deps: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
as_root() { [ "$(id -u)" = 0 ]; }
at_least() { # at_least VERSION WANTED
    [ -n "$1" ] && [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}
version_of() { "$@" --version 2>/dev/null | sed -n 's/^[a-z-]* \([0-9.]*\).*/\1/p'; }

# --- What is to be installed -------------------------------------------------------------------------------------

packages=
plan=
confirmed=${YES:-0}

need() { # need PACKAGE REASON
    packages="$packages $1"
    plan="$plan
    $1: $2"
}

refresh_index() {
    as_root && [ -z "${refreshed:-}" ] || return 0
    say "reading the package index"
    apt-get update -qq || fail "apt-get update failed"
    refreshed=1
}

ask() { # ask LIST
    say "to be installed:$1"
    [ "$confirmed" != 1 ] && [ -t 0 ] || return 0
    printf 'deps: go on? [y/N] ' >&2
    read -r answer
    case $answer in y | Y | yes) confirmed=1 ;; *) fail "nothing was installed" ;; esac
}

install_packages() {
    [ -n "$packages" ] || return 0
    have apt-get || fail "neither Debian nor Ubuntu: install the counterparts of$packages"
    if ! as_root; then
        say "missing:$plan"
        fail "not root: run \`sudo apt-get install$packages\`, then this again"
    fi
    ask "$plan"
    refresh_index
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null ||
        fail "apt-get install$packages failed"
    packages=
    plan=
}

# --- What is there -----------------------------------------------------------------------------------------------

need_tools() {
    have cc && have c++ && [ -e /usr/include/stdio.h ] || need build-essential "the C compiler that crates build with"
    have ip || need iproute2 "network namespaces and devices of the tests"
    have ping || need iputils-ping "ICMP in the tests and the demo"
    have nft || need nftables "what nodes of a cluster do to packets that they forward, in the tests"
    python3 -c 'import ensurepip, venv' 2>/dev/null || need python3-venv "renders the Helm chart in a Python environment of its own"
    [ -e /etc/ssl/certs/ca-certificates.crt ] || need ca-certificates "cargo downloads over TLS"
    [ "${1:-}" != qemu ] || have qemu-system-x86_64 || need qemu-system-x86 "runs kernels in verify-kernel"
}

has_distribution_compiler() {
    [ -x /usr/bin/cargo ] && at_least "$(version_of /usr/bin/rustc)" "$rust_wanted" || return 1
    libraries=$(/usr/bin/rustc --print target-libdir --target bpfel-unknown-none 2>/dev/null) || return 1
    ls "$libraries"/libcore-*.rlib >/dev/null 2>&1
}

has_nightly_compiler() {
    have rustup && sysroot=$(rustup run nightly rustc --print sysroot 2>/dev/null) || return 1
    [ -d "$sysroot/lib/rustlib/src/rust/library/core" ]
}

# Prefers the distribution's compiler, which is a package like any other; it excludes the *package* rustup.
need_bpf_compiler() {
    if has_distribution_compiler || has_nightly_compiler; then return 0; fi
    have apt-get || return 0
    refresh_index
    for flavour in -web ''; do
        core=libstd-rust$flavour-dev-bpf
        version=$(apt-cache policy "$core" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9].*\)/\1/p')
        if at_least "$version" "$rust_wanted" && ! dpkg-query -W rustup >/dev/null 2>&1; then
            need "rustc$flavour" "a Rust compiler that builds for BPF"
            need "cargo$flavour" "builds with that compiler"
            need "$core" "Rust's core library for BPF"
            return 0
        fi
    done
    have rustup || need rustup "no package here has Rust $rust_wanted for BPF; rustup's nightly has"
}

# Without a distribution's compiler for BPF, rustup's nightly builds `core` from source.
install_nightly() {
    if has_distribution_compiler || has_nightly_compiler; then return 0; fi
    have rustup || fail "no Rust compiler for BPF: install rustup (https://www.rust-lang.org/tools/install), then run this again"
    ask "
    rustup toolchain nightly with rust-src: builds Rust's core library for BPF"
    rustup toolchain install nightly --profile minimal --component rust-src || fail "rustup did not install nightly"
}

check_host_compiler() {
    if at_least "$(version_of rustc)" "$rust_wanted" && have cargo; then return 0; fi
    have rustup || fail "rustc is older than $rust_wanted or missing: install rustup (https://www.rust-lang.org/tools/install)"
    ask "
    rustup toolchain stable: this workspace needs Rust $rust_wanted"
    rustup toolchain install stable || fail "rustup did not install stable"
    rustup default stable
}

compiler_llvm() {
    if has_distribution_compiler; then /usr/bin/rustc -vV; else rustup run nightly rustc -vV; fi |
        sed -n 's/^LLVM version: \([0-9]*\).*/\1/p'
}

linker_fits() { # linker_fits LLVM
    have bpf-linker || return 1
    linked=$(ldd "$(command -v bpf-linker)" 2>/dev/null | grep libLLVM) || return 0 # linked statically
    case $linked in
        *"not found"*) return 1 ;;
        *libLLVM.so."$1"[!0-9]* | *libLLVM-"$1"[!0-9]*) return 0 ;;
        *) return 1 ;;
    esac
}

need_linker() {
    llvm=$(compiler_llvm)
    if linker_fits "$llvm"; then return 0; fi
    [ -x "/usr/lib/llvm-$llvm/bin/llvm-config" ] || need "llvm-$llvm-dev" "bpf-linker links with the compiler's LLVM, $llvm"
    install_packages
    ask "
    bpf-linker (cargo install, for LLVM $llvm): links the BPF object"
    LLVM_PREFIX="/usr/lib/llvm-$llvm" RUSTFLAGS="-L native=/usr/lib/llvm-$llvm/lib" \
        cargo install --quiet --locked --force bpf-linker --version "$linker_wanted" \
        --no-default-features --features "llvm-$llvm" || fail "cargo install bpf-linker failed"
}

need_tools "$@"
need_bpf_compiler
install_packages
install_nightly
check_host_compiler
need_linker
