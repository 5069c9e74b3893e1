#include "io/hdf5/libraries.hpp"

#include <archive.h>
#include <fmt/format.h>
#include <hdf5.h>
#include <libdeflate.h>
#include <openssl/crypto.h>
#include <png.h>
#include <zlib.h>
#include <zstd.h>

#include "io/hdf5/hdf5.hpp"

namespace dtrain::io {

std::vector<Library> io_libraries() {
  const h5::Lock lock;
  unsigned major = 0, minor = 0, release = 0;
  hbool_t threads = false;
  H5get_libversion(&major, &minor, &release);
  H5is_library_threadsafe(&threads);
  return {{"HDF5", fmt::format("{}.{}.{}", major, minor, release),
           threads ? "built for threads" : "not built for threads: dtrain calls it from one at a time"},
          {"zlib", zlibVersion(), ""},
          {"libdeflate", LIBDEFLATE_VERSION_STRING, ""},
          {"Zstandard", ZSTD_versionString(), ""},
          {"libpng", png_get_libpng_ver(nullptr), ""},
          {"libarchive", archive_version_details(), ""},
          {"OpenSSL", OpenSSL_version(OPENSSL_VERSION_STRING), ""}};
}

}  // namespace dtrain::io
