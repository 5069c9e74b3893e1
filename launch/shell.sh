# What the scripts share; sourced, never run. Expects `root`, the repository's root, and leaves it as the working directory.
# say: one line of what comes next. fail: one clear error and an exit.

say() { printf '\n==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

cd "$root" || exit 1

# Jobs for the compiler: the cores, but no more than one per 1.5 GB of memory.
build_jobs() {
  local cores memory
  cores=$(nproc)
  memory=$(awk '/^MemAvailable:/ {print int($2 / 1500000)}' /proc/meminfo 2>/dev/null)
  [ -n "$memory" ] && [ "$memory" -lt "$cores" ] && cores=$memory
  [ "$cores" -lt 1 ] && cores=1
  echo "$cores"
}

# configure PRESET [-DKEY=VALUE ...]: quiet where it works, all of it where it does not. Uses ccache where there is one.
configure() {
  local preset=$1 log=build/$1/configure.log
  shift
  mkdir -p "build/$preset"
  if command -v ccache >/dev/null; then
    export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
    set -- "$@" -DCMAKE_CXX_COMPILER_LAUNCHER=ccache
  fi
  cmake --preset "$preset" "$@" >"$log" 2>&1 || {
    cat "$log" >&2
    fail "cmake could not configure the preset $preset"
  }
  sed -n 's/^-- \(CUDA.*\)/    \1/p' "$log"
}

# mpirun with what this user and machine need: root must be allowed, and ranks may outnumber cores.
set_mpirun() {
  local ranks=$1 cores
  mpirun=(mpirun)
  [ "$(id -u)" -eq 0 ] && mpirun+=(--allow-run-as-root)
  # Without lscpu, or where it knows nothing of the cores: the cpus.
  cores=$(lscpu -p=CORE,SOCKET 2>/dev/null | grep -v '^#' | sort -u | wc -l) || cores=$(nproc)
  [ "$cores" -lt "$ranks" ] && mpirun+=(--oversubscribe)
  mpirun+=(-np "$ranks")
}
