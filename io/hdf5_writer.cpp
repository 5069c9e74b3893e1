#include "io/hdf5_writer.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "runtime/error.hpp"

namespace dtrain::io::h5 {
namespace {

hid_t file_type(StoredType type) noexcept {
  switch (type) {
    case StoredType::u8:
      return H5T_STD_U8LE;
    case StoredType::i8:
      return H5T_STD_I8LE;
    case StoredType::u16:
      return H5T_STD_U16LE;
    case StoredType::i16:
      return H5T_STD_I16LE;
    case StoredType::i32:
      return H5T_STD_I32LE;
    case StoredType::i64:
      return H5T_STD_I64LE;
    case StoredType::f32:
      return H5T_IEEE_F32LE;
    case StoredType::f64:
      return H5T_IEEE_F64LE;
  }
  return H5I_INVALID_HID;
}

bool sync(const char* path, int flags) {
  const int fd = ::open(path, flags | O_CLOEXEC);
  if (fd < 0) return false;
  const bool done = ::fsync(fd) == 0;
  return ::close(fd) == 0 && done;
}

}  // namespace

void Writer::failed(const std::string& what) const {
  throw DataError(fmt::format("{}: {}", path_, what));
}

Writer::Writer(const std::string& path) : path_(path), temporary_(fmt::format("{}.tmp-{}", path, ::getpid())) {
  const auto folder = std::filesystem::path(path).parent_path();
  std::error_code error;
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  if (error) failed(fmt::format("the folder {} cannot be made: {}", folder.string(), error.message()));
  // HDF5 reports failures of the system poorly: try the name ourselves.
  const int fd = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) failed(fmt::format("cannot be written: {}", std::strerror(errno)));
  ::close(fd);
  const Lock lock;
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_file_locking(access.get(), false, true);
  H5Pset_alignment(access.get(), 4096, 4096);  // data starts at a page
  file_ = Handle(H5Fcreate(temporary_.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()), H5Fclose);
  if (!file_) {
    const std::string why = last_error();
    ::unlink(temporary_.c_str());
    failed(fmt::format("cannot be written: {}", why));
  }
}

Writer::~Writer() {
  datasets_.clear();
  file_ = {};
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

std::size_t Writer::add(const std::string& name, StoredType type, std::span<const std::uint64_t> dims) {
  const Lock lock;
  Dataset dataset{{}, type, {dims.begin(), dims.end()}};
  const Handle space(H5Screate_simple(static_cast<int>(dims.size()), dataset.dims.data(), nullptr), H5Sclose);
  const Handle plist(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_alloc_time(plist.get(), H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(plist.get(), H5D_FILL_TIME_NEVER);
  H5Pset_obj_track_times(plist.get(), false);  // the same data gives the same bytes
  dataset.handle =
      Handle(H5Dcreate2(file_.get(), name.c_str(), file_type(type), space.get(), H5P_DEFAULT, plist.get(), H5P_DEFAULT),
             H5Dclose);
  if (!dataset.handle) failed(fmt::format("{} cannot be made: {}", name, last_error()));
  datasets_.push_back(std::move(dataset));
  return datasets_.size() - 1;
}

void Writer::write(std::size_t index, std::uint64_t first, std::uint64_t rows, const void* bytes) {
  if (rows == 0) return;
  const Lock lock;
  const Dataset& dataset = datasets_[index];
  std::vector<hsize_t> start(dataset.dims.size(), 0), count = dataset.dims;
  start[0] = first;
  count[0] = rows;
  const Handle to(H5Dget_space(dataset.handle.get()), H5Sclose);
  const Handle from(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr), H5Sclose);
  if (H5Sselect_hyperslab(to.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr) < 0 ||
      H5Dwrite(dataset.handle.get(), native_type(dataset.type), from.get(), to.get(), H5P_DEFAULT, bytes) < 0) {
    failed(fmt::format("cannot be written (is the disk full?): {}", last_error()));
  }
}

void Writer::attribute(std::size_t dataset, const std::string& name, std::span<const double> values) {
  const Lock lock;
  const hsize_t n = values.size();
  const Handle space(n == 1 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &n, nullptr), H5Sclose);
  const Handle attribute(
      H5Acreate2(datasets_[dataset].handle.get(), name.c_str(), H5T_IEEE_F64LE, space.get(), H5P_DEFAULT, H5P_DEFAULT),
      H5Aclose);
  if (!attribute || H5Awrite(attribute.get(), H5T_NATIVE_DOUBLE, values.data()) < 0)
    failed("an attribute cannot be written");
}

void Writer::attribute(std::size_t dataset, const std::string& name, const std::string& text) {
  const Lock lock;
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.get(), std::max<std::size_t>(1, text.size()));
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  H5Tset_strpad(type.get(), H5T_STR_NULLPAD);
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Handle attribute(
      H5Acreate2(datasets_[dataset].handle.get(), name.c_str(), type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT),
      H5Aclose);
  if (!attribute || H5Awrite(attribute.get(), type.get(), text.data()) < 0) failed("an attribute cannot be written");
}

void Writer::commit() {
  {
    const Lock lock;
    datasets_.clear();
    if (H5Fflush(file_.get(), H5F_SCOPE_GLOBAL) < 0)
      failed(fmt::format("cannot be written (is the disk full?): {}", last_error()));
    file_ = {};
  }
  if (!sync(temporary_.c_str(), O_RDONLY))
    failed(fmt::format("cannot be written to the disk: {}", std::strerror(errno)));
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0)
    failed(fmt::format("cannot be renamed: {}", std::strerror(errno)));
  temporary_.clear();
  const auto folder = std::filesystem::path(path_).parent_path();
  sync(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY);  // best effort: the file itself is safe
}

}  // namespace dtrain::io::h5
