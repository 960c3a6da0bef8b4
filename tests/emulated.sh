#!/bin/sh
# The kernels' tests as another processor would run them, under QEMU, on a Debian or Ubuntu with x86-64:
#
#     sudo apt-get install qemu-user
#     tests/emulated.sh avx2          # an x86-64 with AVX2 and without AVX-512 (Haswell)
#     tests/emulated.sh aarch64       # a 64-bit ARM with NEON (Neoverse N1); its Python and NumPy are put into build/aarch64
#
# What follows goes to pytest, in the place of tests/kernels. An emulated processor is many times as slow as this one:
# nothing is timed. What was run, and what cannot be: docs/performance.md.
set -eu
cd "$(dirname "$0")/.."
processor=${1:-}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- tests/kernels
export OPENBLAS_NUM_THREADS=1 PYTHONPATH="$PWD" PYTHONDONTWRITEBYTECODE=1

aarch64_python() { # Debian's own for that processor, unpacked, not installed; and wheels for it
    apt=$1/apt
    mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/state/status" # nothing is there: all that Python needs is fetched
    cat >"$apt/settings" <<EOF
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "";
Dir::State "$apt/state";
Dir::State::status "$apt/state/status";
Dir::Cache "$apt/cache";
EOF
    APT_CONFIG=$apt/settings apt-get update -qq
    APT_CONFIG=$apt/settings apt-get install -qq -y --download-only --no-install-recommends python3 libgcc-s1 libstdc++6
    for package in "$apt"/cache/archives/*.deb; do dpkg -x "$package" "$1"; done
    version=$(ls "$1/usr/bin" | sed -n 's/^python\(3\.[0-9]*\)$/\1/p')
    .venv/bin/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        >"$1/dependencies.txt"
    .venv/bin/python -m pip install --quiet --target "$1/packages" --python-version "$version" --only-binary=:all: \
        --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 --constraint constraints.txt \
        --requirement "$1/dependencies.txt" pytest hypothesis
    # A program that a test starts goes through this too: sys.executable is what stands behind -0. Not QEMU's usual processor,
    # which has SME: OpenBLAS's kernels for that give NaN there, in a plain NumPy product.
    cat >"$1/python.new" <<EOF
#!/bin/sh
export PYTHONPATH="\$PYTHONPATH:$1/packages"
exec qemu-aarch64 -cpu neoverse-n1 -0 "\$0" -L "$1" "$1/usr/bin/python$version" "\$@"
EOF
    chmod +x "$1/python.new"
    mv "$1/python.new" "$1/python"
}

case $processor in
avx2)
    exec qemu-x86_64 -cpu Haswell-v4 .venv/bin/python -m pytest "$@"
    ;;
aarch64)
    root=$PWD/build/aarch64
    [ -x "$root/python" ] || aarch64_python "$root"
    exec "$root/python" -m pytest "$@"
    ;;
*)
    echo "tests/emulated.sh: processor = '$processor': must be avx2 or aarch64" >&2
    exit 2
    ;;
esac
