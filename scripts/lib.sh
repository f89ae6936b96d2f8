# Sourced by the other scripts: one target directory and one set of flags for every build.
# RocksDB takes minutes to compile, and is compiled again whenever profile or flags differ.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"

# Even an empty value replaces the flags in .cargo/config.toml.
for name in RUSTFLAGS CARGO_ENCODED_RUSTFLAGS; do
  if [ -n "${!name+set}" ]; then
    echo "$name is set: it would replace the flags in .cargo/config.toml. Unset it." >&2
    exit 2
  fi
done
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark/target}"

# The one profile; every selection of packages is the whole workspace, for the same reason.
profile=(--release --workspace)

# stage NAME COMMAND...: runs it, and says how long it took.
stage() {
  local name="$1" from="$SECONDS"
  shift
  echo "== $name"
  "$@"
  echo "== $name: $((SECONDS - from)) s"
}

# Installs exactly what the lock file in a folder says, unless it is there. No package runs anything.
npm_install() (
  cd "$1"
  command -v npm >/dev/null || {
    echo "npm is missing: scripts/setup installs it" >&2
    exit 1
  }
  if ! cmp -s package-lock.json node_modules/.installed; then
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
    cp package-lock.json node_modules/.installed
  fi
)

# The SDK for browsers.
build_sdk() {
  npm_install client/js
  npm --prefix client/js run build --silent
}

# What is broken on purpose (mutants/src/lib.rs) is in the binaries.
broken=(--features tidemark-store/mutants,tidemark-gateway/mutants,tidemark-sim/mutants)

# The same, under names of its own, so that the release's binaries stay what they are.
build_mutants() {
  cargo build "${profile[@]}" "${broken[@]}" \
    --bin tidemark-store-mutants --bin tidemark-gateway-mutants --bin tidemark-sim-mutants
}

# Debian's Prometheus, without the service that its package would start: scripts/setup puts it here.
prometheus_home="${XDG_CACHE_HOME:-$HOME/.cache}/tidemark/prometheus"

# prometheus_tool NAME: where prometheus or promtool is; fails where there is none.
prometheus_tool() {
  command -v "$1" || { [ -x "$prometheus_home/usr/bin/$1" ] && echo "$prometheus_home/usr/bin/$1"; }
}

# The ports of this machine on which somebody listens.
listening() {
  local address state
  cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | while read -r _ address _ state _; do
    [ "$state" != 0A ] || echo "$((16#${address##*:}))"
  done
}

# free_ports FIRST: the first base port from there on with nobody on the 400 ports that are a cluster's and those of
# what scripts start beside it. Below the ports that the system gives out.
free_ports() {
  local base taken
  for ((base = $1; base + 400 <= 32768; base += 400)); do
    taken="$(listening | awk -v from="$base" '$1 >= from && $1 < from + 400')"
    [ -n "$taken" ] || { echo "$base"; return; }
  done
  echo "no 400 ports in a row are free from $1 on: stop what listens there" >&2
  return 1
}

# own_ports BASE: fails, and says why, if somebody listens on one of these 400.
own_ports() {
  [ "$(free_ports "$1" 2>/dev/null)" = "$1" ] || {
    echo "somebody listens on a port from $1 to $(($1 + 399)): stop that, or name another base port" >&2
    return 1
  }
}
