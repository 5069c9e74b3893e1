#include "io/hdf5/hdf5.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <optional>
#include <string_view>
#include <type_traits>

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <hdf5.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/hdf5/describe.hpp"
#include "runtime/config/document.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io::h5 {

static_assert(std::is_same_v<Id, hid_t> && std::is_same_v<Handle::Close, herr_t (*)(hid_t)>);

namespace {

std::recursive_mutex& library_mutex() {
  static std::recursive_mutex mutex;  // the library's own state is global, so is its lock
  return mutex;
}

/// The version of the superblock; nothing where this is no HDF5 file. The signature is at 0, 512, 1024, 2048, ... (a
/// user block may come before).
std::optional<unsigned> superblock_of(int fd, std::uint64_t bytes) {
  static constexpr std::array<unsigned char, 8> signature{0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
  std::array<unsigned char, 9> found{};
  for (std::uint64_t at = 0; at + signature.size() <= bytes; at = at == 0 ? 512 : at * 2) {
    if (::pread(fd, found.data(), found.size(), static_cast<off_t>(at)) >= 8 &&
        std::equal(signature.begin(), signature.end(), found.begin()))
      return found[8];
  }
  return std::nullopt;
}

/// Why something is not opened: what is wrong with it, or what the library said.
struct Unopened {
  std::string text;
  bool by_library = false;
};
constexpr std::string_view is_missing = "does not exist", is_group = "is a group, not a data set";

Handle open_path(hid_t from, std::string_view path, int& links, Unopened& why);

Handle failed(Unopened& why) {
  why = {last_error(), true};
  return {};
}

/// Opens one component, of this file. `links`: so many soft ones may be followed. `link`: where a soft one leads, or
/// null.
Handle open_component(hid_t group, const std::string& name, int& links, std::string* link, Unopened& why) {
  H5L_info_t info{};
  if (H5Lget_info(group, name.c_str(), &info, H5P_DEFAULT) < 0) {
    why = {std::string(is_missing)};
    return {};
  }
  if (info.type == H5L_TYPE_SOFT) {
    constexpr std::size_t longest = 4096;
    std::string target(std::min(info.u.val_size, longest), '\0');
    if (H5Lget_val(group, name.c_str(), target.data(), target.size(), H5P_DEFAULT) < 0) return failed(why);
    target.resize(::strnlen(target.data(), target.size()));
    if (link != nullptr) *link = target;
    Handle object;
    why = {"leads to ever more links"};
    if (links-- > 0) object = open_path(group, target, links, why);
    if (!object && !why.by_library) why.text = fmt::format("is a soft link to {}, which {}", target, why.text);
    return object;
  }
  if (info.type != H5L_TYPE_HARD) {
    why = {fmt::format("is {}, which dtrain does not follow; name the file that holds the data",
                       info.type == H5L_TYPE_EXTERNAL ? "an external link" : "a user-defined link")};
    return {};
  }
  Handle object(H5Oopen(group, name.c_str(), H5P_DEFAULT), H5Oclose);
  return object ? std::move(object) : failed(why);
}

Handle open_path(hid_t from, std::string_view path, int& links, Unopened& why) {
  Handle at(H5Gopen2(from, path.starts_with('/') ? "/" : ".", H5P_DEFAULT), H5Gclose);
  if (!at) return failed(why);
  int depth = 0;
  while (at && !path.empty()) {
    const std::string name(path.substr(0, path.find('/')));
    path.remove_prefix(std::min(path.size(), name.size() + 1));
    if (name.empty() || name == ".") continue;
    if (++depth > max_depth || H5Iget_type(at.get()) != H5I_GROUP) {
      why = {std::string(is_missing)};
      return {};
    }
    at = open_component(at.get(), name, links, nullptr, why);
  }
  return at;
}

/// A data set by its path.
Handle open_dataset(hid_t file, const std::string& path, Unopened& why) {
  int links = max_links;
  Handle found = open_path(file, "/" + path, links, why);
  if (!found || H5Iget_type(found.get()) == H5I_DATASET) return found;
  why = {std::string(is_group)};
  return {};
}

}  // namespace

Lock::Lock() : lock_(library_mutex()) {
  // At exit the library would close once more, and fall over, what a full disk kept it from closing. Files are closed
  // here.
  static const bool without_exit = H5dont_atexit() >= 0;
  (void)without_exit;
  H5PLset_loading_state(0);                     // a file must not choose code to load
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // our errors carry what is worth saying
}

Handle::~Handle() {
  if (id_ < 0 || close_ == nullptr) return;
  const Lock lock;
  close_(id_);
}

std::string last_error() {
  std::string text;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned n, const H5E_error2_t* error, void* out) -> herr_t {
        if (n == 0 && error->desc != nullptr) *static_cast<std::string*>(out) = error->desc;
        return 0;
      },
      &text);
  return text;
}

std::uint64_t DatasetInfo::row_bytes() const noexcept {
  std::uint64_t bytes = type ? size_of(*type) : 0;
  for (std::size_t i = 1; i < dims.size(); ++i) bytes *= dims[i];
  return bytes;
}

std::string DatasetInfo::text() const {
  if (dims.empty()) return fmt::format("{} ({})", path, type_text);
  return fmt::format("{} {} [{}]", path, type_text, fmt::join(dims, ", "));
}

std::string DatasetInfo::storage_text() const {
  std::string text;
  switch (storage) {
    case Storage::contiguous:
      text = "contiguous";
      break;
    case Storage::compact:
      text = "compact";
      break;
    case Storage::chunked:
      text = fmt::format("chunked [{}]", fmt::join(chunk, ", "));
      break;
    case Storage::other:
      text = dims.empty() ? "" : "virtual";
      break;
  }
  for (const Filter& f : filters) text += ", " + f.text;
  return text;
}

std::string File::Listing::text() const {
  constexpr std::size_t shown = 12;
  std::string text;
  for (std::size_t i = 0; i < std::min(shown, datasets.size()); ++i) {
    text += (i ? ", " : "") + datasets[i].text();
  }
  if (datasets.size() > shown) text += fmt::format(" and {} more", datasets.size() - shown);
  if (text.empty()) text = "no data sets";
  for (std::size_t i = 0; i < std::min<std::size_t>(4, notes.size()); ++i) text += "; " + notes[i];
  return text;
}

File::File(const std::string& path) : path_(path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    throw DataError(errno == ENOENT || errno == ENOTDIR
                        ? fmt::format("{}: no such file; data paths start at the working directory", path)
                        : fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
  }
  if (S_ISDIR(status.st_mode))
    throw DataError(fmt::format("{}: is a directory; name an HDF5 file, or a glob like {}/*.h5", path, path));
  if (!S_ISREG(status.st_mode)) throw DataError(fmt::format("{}: is not a regular file", path));
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw DataError(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
  bytes_ = static_cast<std::uint64_t>(status.st_size);
  const std::optional<unsigned> superblock = superblock_of(fd, bytes_);
  ::close(fd);
  if (bytes_ == 0) throw DataError(fmt::format("{}: is empty", path));
  if (!superblock) throw DataError(fmt::format("{}: is not an HDF5 file; `dtrain data import` makes one", path));

  const Lock lock;
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  // Reading needs no lock, and locks fail on many network file systems.
  H5Pset_file_locking(access.get(), false, true);
  H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG);
  file_ = Handle(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose);
  if (!file_) {
    const std::string why = last_error();
    if (why.find("truncated") != std::string::npos) {
      throw DataError(
          fmt::format("{}: is truncated: {} bytes are there; copy or make it again ({})", path, bytes_, why));
    }
    throw DataError(fmt::format("{}: {}", path, why_unopened(why)));
  }
  checksums_ = *superblock >= 2;
}

std::string File::why_unopened(const std::string& why) const {
  if (why.find("version") == std::string::npos)
    return fmt::format("is damaged or truncated; copy or make it again ({})", why);
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return fmt::format(
      "is {} a newer format than this dtrain reads with HDF5 {}.{}.{} ({}; HDF5 2.0 writes such files for "
      "libver='latest'); an h5py that reads it can {}",
      checksums_ ? "written in" : "damaged, or written in", major, minor, release, why, rewrite_advice(path_, false));
}

File::Listing File::list() const {
  const Lock lock;
  Listing listing;
  std::size_t seen = 0;
  const std::function<void(hid_t, const std::string&, int)> walk = [&](hid_t group, const std::string& prefix,
                                                                       int depth) {
    H5G_info_t group_info{};
    if (H5Gget_info(group, &group_info) < 0) {
      listing.notes.push_back(fmt::format("{} cannot be read: the file is damaged", prefix.empty() ? "/" : prefix));
      return;
    }
    for (hsize_t i = 0; i < group_info.nlinks; ++i) {
      if (++seen > max_objects) {
        if (seen == max_objects + 1)
          listing.notes.push_back(fmt::format("only the first {} objects were looked at", max_objects));
        return;
      }
      const auto length = H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, nullptr, 0, H5P_DEFAULT);
      if (length <= 0 || length > 1024) continue;
      std::string name(static_cast<std::size_t>(length), '\0');
      H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, name.data(), name.size() + 1, H5P_DEFAULT);
      const std::string full = prefix + "/" + name;
      Unopened why;
      std::string link;
      int links = max_links;
      const Handle object = open_component(group, name, links, &link, why);
      if (!object) {
        DatasetInfo& found = listing.datasets.emplace_back();
        found.path = full;
        found.refused = why.by_library ? why_unopened(why.text) : why.text;
        found.type_text = link.empty() ? "cannot be opened" : "a soft link to nothing";
        continue;
      }
      const H5I_type_t kind = H5Iget_type(object.get());
      if (kind == H5I_DATASET) {
        listing.datasets.push_back(describe(object.get(), full, path_, bytes_));
        if (!link.empty()) listing.datasets.back().link = link.starts_with('/') ? link : prefix + "/" + link;
      }
      // What a soft link leads to is found by itself.
      if (kind == H5I_GROUP && link.empty() && depth < max_depth) walk(object.get(), full, depth + 1);
    }
  };
  const Handle root(H5Gopen2(file_.get(), "/", H5P_DEFAULT), H5Gclose);
  if (!root) throw DataError(fmt::format("{}: is damaged: its root group cannot be read", path_));
  walk(root.get(), "", 0);
  return listing;
}

DatasetInfo File::info(const std::string& dataset) const {
  const Lock lock;
  Unopened why;
  const Handle found = open_dataset(file_.get(), dataset, why);
  if (found) return describe(found.get(), dataset.starts_with('/') ? dataset : "/" + dataset, path_, bytes_);
  if (why.by_library) throw DataError(fmt::format("{}: {} {}", path_, dataset, why_unopened(why.text)));
  const Listing held = list();
  std::vector<std::string> names;
  for (const DatasetInfo& d : held.datasets) names.push_back(d.path);
  const std::string near = nearest_name(dataset.starts_with('/') ? dataset : "/" + dataset, names);
  throw DataError(fmt::format("{}: {} {}; the file holds {}{}", path_, dataset, why.text, held.text(),
                              near.empty() ? "" : fmt::format("; did you mean {}?", near)));
}

Handle File::open(const DatasetInfo& info) const {
  if (!info.refused.empty()) throw DataError(fmt::format("{}: {} {}", path_, info.path, info.refused));
  const Lock lock;
  Unopened why;
  Handle found = open_dataset(file_.get(), info.path, why);
  if (!found)
    throw DataError(fmt::format("{}: {} {}", path_, info.path, why.by_library ? why_unopened(why.text) : why.text));
  return found;
}

Handle File::find(const std::string& path) const {
  const Lock lock;
  Unopened why;
  return open_dataset(file_.get(), path, why);
}

}  // namespace dtrain::io::h5
