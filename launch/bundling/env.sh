# What the bundle's start scripts share; sourced with `here`, the bundle's folder, by any POSIX shell. Checks the C library,
# finds CUDA's libraries, and sets what the dynamic linker and Open MPI have to know. What mpirun found, its ranks take over.

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 6
}
speaks() { [ "${OMPI_COMM_WORLD_RANK:-${PMIX_RANK:-0}}" = 0 ]; }

# A.B >= C.D, by parts?
at_least() {
  [ "$(printf '%s\n%s\n' "$2" "$1" | sort -t. -k1,1n -k2,2n -k3,3n | head -n 1)" = "$2" ]
}

# The path by which the system's linker knows a library, or nothing.
system_library() {
  { ldconfig -p 2>/dev/null || /sbin/ldconfig -p 2>/dev/null; } | sed -n "s|^[[:space:]]*$1 (.*x86-64.*) => ||p" | head -n 1
}

# Folders that the user names, one a line, and others that may hold CUDA's libraries: the toolkit's, and Python's wheels.
named_folders() { printf '%s\n' "${DTRAIN_CUDA_LIBRARIES:-}" "$asked_path" | tr : '\n'; }
other_folders() {
  for toolkit in "${CUDA_HOME:-}" "${CUDA_PATH:-}" /usr/local/cuda /usr/local/cuda-*; do
    [ -z "$toolkit" ] || printf '%s\n' "$toolkit/lib64" "$toolkit/lib" "$toolkit/targets/x86_64-linux/lib"
  done
  for python in "${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/python3}" "${CONDA_PREFIX:+$CONDA_PREFIX/bin/python3}" python3; do
    [ -n "$python" ] && command -v "$python" >/dev/null 2>&1 || continue
    "$python" -c 'import glob, site
for folder in site.getsitepackages() + [site.getusersitepackages()]:
    print("\n".join(sorted(glob.glob(folder + "/nvidia/*/lib"), reverse=True)))' 2>/dev/null
  done
}
# first_with LIBRARY <FOLDERS: its path in the first of them that has it.
first_with() {
  while IFS= read -r folder; do
    if [ -n "$folder" ] && [ -f "$folder/$1" ]; then
      printf '%s\n' "$folder/$1"
      break
    fi
  done
}

# Sets `found` (lines "library path"), `missing`, and `cuda_path`: folders that the linker does not know by itself.
find_cuda() {
  found='' missing='' cuda_path=''
  [ -n "$needs_cuda" ] || return 0
  others=$(other_folders)
  for library in $needs_cuda $wants_cuda; do
    known=no
    at=$(named_folders | first_with "$library")
    [ -n "$at" ] || { at=$(system_library "$library") && [ -f "$at" ] && known=yes; } || at=$(printf '%s\n' "$others" | first_with "$library")
    if [ -z "$at" ]; then
      case " $needs_cuda " in *" $library "*) missing="${missing:+$missing }$library" ;; esac
      continue
    fi
    found="$found$library $at
"
    case "$known:$cuda_path:" in
      yes:* | *":${at%/*}:"*) ;;
      *) cuda_path=${cuda_path:+$cuda_path:}${at%/*} ;;
    esac
  done
}

. "$here/lib/needs.sh"  # needs_glibc, needs_glibcxx, needs_cuda, wants_cuda, mpi_folder, pmix_folder

if [ "${DTRAIN_BUNDLE:-}" != "$here" ]; then
  [ "$(uname -m)" = x86_64 ] || fail "this bundle is for x86-64, and this machine is $(uname -m)"
  glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/^glibc //')
  [ -n "$glibc" ] || fail "this bundle needs the GNU C library $needs_glibc or newer, and this system has none"
  at_least "$glibc" "$needs_glibc" ||
    fail "this bundle needs the GNU C library $needs_glibc or newer, and this system has $glibc; make the bundle on a system that is as old"
  ! [ -r /proc/cpuinfo ] || grep -qw sse4_2 /proc/cpuinfo || fail "this bundle needs a processor of x86-64-v2 (SSE 4.2) or newer"

  asked_path=${LD_LIBRARY_PATH:-}
  find_cuda
  # The compiler's libraries: the system's where they are new enough, since CUDA's may need newer ones than the bundle's.
  compiler=$(system_library 'libstdc++\.so\.6')
  compiler_path=
  [ -n "$compiler" ] && LC_ALL=C grep -q "GLIBCXX_$needs_glibcxx" "$compiler" || compiler_path=:$here/lib/compiler
  LD_LIBRARY_PATH=$here/lib$compiler_path${cuda_path:+:$cuda_path}${asked_path:+:$asked_path}
  program=$here/bin/dtrain
  if [ -n "$needs_cuda" ] && { [ -n "$missing" ] || [ -n "${DTRAIN_WITHOUT_CUDA:-}" ]; }; then
    program=$here/bin/dtrain_without_cuda
    [ -x "$program" ] || fail "this bundle has no program without CUDA, and ${missing:-nothing} is missing here; name folders in DTRAIN_CUDA_LIBRARIES=FOLDER:..."
    asked=no
    ! [ -e /proc/driver/nvidia/version ] || asked=yes
    for word in "$@"; do [ "$word" != device=cuda ] || asked=yes; done
    if [ "$asked" = yes ] && [ -z "${DTRAIN_WITHOUT_CUDA:-}" ] && speaks; then
      printf 'note: without %s this runs on the CPU alone; %s\n' "$(echo "$missing" | sed 's/ /, /g')" \
        "install CUDA's libraries, or name their folders in DTRAIN_CUDA_LIBRARIES=FOLDER:..." >&2
    fi
  fi
  DTRAIN_BUNDLE=$here DTRAIN_BUNDLE_PROGRAM=$program
  PATH=$here:${PATH:-/usr/bin:/bin}  # so that `dtrain bench scaling` starts the bundle's mpirun
  OPAL_PREFIX=$here/mpi OPAL_SYSCONFDIR=$here/mpi/etc OMPI_MCA_mca_base_component_path=$here/$mpi_folder
  PMIX_INSTALL_PREFIX=$here/mpi PMIX_MCA_mca_base_component_path=$here/$pmix_folder
  export LD_LIBRARY_PATH PATH DTRAIN_BUNDLE DTRAIN_BUNDLE_PROGRAM OPAL_PREFIX OPAL_SYSCONFDIR
  export OMPI_MCA_mca_base_component_path PMIX_INSTALL_PREFIX PMIX_MCA_mca_base_component_path
fi
