#include "io/import/image_listing.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/files/file.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr int max_depth = 16;  // of folders
constexpr std::size_t max_classes = 1 << 24;

std::string_view file_name(std::string_view path) {
  return path.substr(path.rfind('/') + 1);
}

/// Collects the images of one source after the other.
class Lister {
 public:
  Lister(std::string split, const std::function<bool(std::span<const std::byte>)>& first)
      : split_(std::move(split)), first_(first) {}

  void add(const std::string& path) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0)
      throw DataError(fmt::format("{}: {}", path,
                                  errno == ENOENT || errno == ENOTDIR
                                      ? "no such file or folder"
                                      : fmt::format("cannot be read: {}", std::strerror(errno))));
    listing_.sources.push_back({path, !S_ISDIR(status.st_mode), {}, {}});
    prefixes_.clear();
    splits_.clear();
    const std::size_t before = listing_.entries.size();
    if (listing_.sources.back().archive) {
      walk_archive(path);
    } else {
      walk_folder(path, "", 0);
    }
    check(path, listing_.entries.size() - before);
  }

  ImageListing finish();

 private:
  void walk_folder(const std::string& root, const std::string& inside, int depth);
  void walk_archive(const std::string& path);
  /// Takes a file; false where it is none of ours.
  bool take(const std::string& inside);
  void ignore(const std::string& inside) {
    constexpr std::size_t named = 3;
    if (listing_.ignored.size() < named) listing_.ignored.push_back(inside);
    ++listing_.ignored_count;
  }
  void probe(std::span<const std::byte> content) { probed_ = probed_ || first_(content); }
  void check(const std::string& path, std::size_t taken);

  const std::string split_;
  const std::function<bool(std::span<const std::byte>)>& first_;
  bool probed_ = false;
  ImageListing listing_;
  std::map<std::string, std::uint32_t> classes_;  // in the order in which they came
  std::set<std::string> prefixes_;                // of this source
  std::set<std::string> splits_;                  // other ones that could have been chosen
};

void Lister::walk_folder(const std::string& root, const std::string& inside, int depth) {
  if (depth > max_depth)
    throw DataError(fmt::format("{}: {}: folders lie too deep, or in a circle of links", root, inside));
  std::vector<std::string> names;
  const std::string folder = inside.empty() ? root : join_path(root, inside);
  if (const int rc = posix_file_system().list(folder, names); rc < 0)
    throw DataError(fmt::format("{}: cannot be read: {}", folder, std::strerror(-rc)));
  for (const std::string& name : names) {
    const std::string path = inside.empty() ? name : inside + "/" + name;
    const std::string full = join_path(root, path);
    struct stat status {};
    const bool known = ::stat(full.c_str(), &status) == 0;
    if (known && S_ISDIR(status.st_mode)) {
      if (!name.starts_with('.')) walk_folder(root, path, depth + 1);
    } else if (take(path) && !probed_) {
      std::vector<std::byte> content;
      if (append_file(full, content).empty()) probe(content);
    }
  }
}

void Lister::walk_archive(const std::string& path) {
  ArchiveReader reader(path);
  ArchiveReader::Member member;
  std::vector<std::byte> content;
  while (reader.next(member)) {
    if (!member.regular) continue;
    if (take(member.path) && !probed_ && member.bytes <= max_image_bytes) {
      content.clear();
      reader.read(content);
      probe(content);
    }
  }
}

bool Lister::take(const std::string& inside) {
  if (!is_image_name(inside)) {
    ignore(inside);
    return false;
  }
  ImageListing::Source& source = listing_.sources.back();
  const std::string name(file_name(inside));
  const auto parent = [](std::string_view path) {
    const auto slash = path.rfind('/');
    return slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
  };
  const std::string_view folder = parent(inside);
  if (folder.empty() || folder == "." || folder == "..")
    throw DataError(fmt::format("{}: {} lies in no class folder; expected CLASS/{}", source.path, inside, name));
  const std::string_view above = parent(folder);
  if (!split_.empty() && file_name(above) != split_) {
    constexpr std::size_t most = 8;
    if (splits_.size() < most) splits_.emplace(file_name(above));
    return false;
  }
  constexpr std::size_t shown = 4;
  if (prefixes_.size() < shown) prefixes_.emplace(above);
  if (classes_.size() >= max_classes) throw DataError(fmt::format("{}: has too many class folders", source.path));
  const auto [label, made] =
      classes_.try_emplace(std::string(file_name(folder)), static_cast<std::uint32_t>(classes_.size()));
  source.prefix = above.empty() ? "" : std::string(above) + "/";
  listing_.entries.push_back(
      {static_cast<std::uint32_t>(listing_.sources.size() - 1), label->second, source.entry_of_sequence.size(), name});
  source.entry_of_sequence.push_back(0);
  return true;
}

void Lister::check(const std::string& path, std::size_t taken) {
  if (prefixes_.size() > 1) {
    std::vector<std::string> names;
    for (const auto& p : prefixes_) names.push_back(p.empty() ? "the top" : p);
    throw DataError(
        fmt::format("{}: class folders lie in several places ({}); choose one with --split, as SPLIT/CLASS/FILE", path,
                    fmt::join(names, ", ")));
  }
  if (taken > 0) return;
  if (!split_.empty() && !splits_.empty())
    throw DataError(
        fmt::format("{}: no split {} in SPLIT/CLASS/FILE; there is {}", path, split_, fmt::join(splits_, ", ")));
  throw DataError(fmt::format("{}: holds no images; expected {}CLASS/FILE.jpg (or .jpeg, .png)", path,
                              split_.empty() ? "" : split_ + "/"));
}

ImageListing Lister::finish() {
  ImageListing& l = listing_;
  // Maps are sorted: labels follow the names.
  std::vector<std::uint32_t> label(classes_.size());
  for (const auto& [name, came] : classes_) {
    label[came] = static_cast<std::uint32_t>(l.classes.size());
    l.classes.push_back(name);
  }
  for (auto& entry : l.entries) entry.label = label[entry.label];
  std::sort(l.entries.begin(), l.entries.end(), [](const auto& a, const auto& b) {
    return std::tie(a.label, a.source, a.name) < std::tie(b.label, b.source, b.name);
  });
  for (std::size_t i = 0; i < l.entries.size(); ++i) {
    const auto& e = l.entries[i];
    if (i > 0 && std::tie(e.label, e.source, e.name) ==
                     std::tie(l.entries[i - 1].label, l.entries[i - 1].source, l.entries[i - 1].name))
      throw DataError(fmt::format("{}: is there twice", l.where(e)));
    l.sources[e.source].entry_of_sequence[e.sequence] = i;
  }
  return std::move(listing_);
}

}  // namespace

std::string ImageListing::path_of(const Entry& entry) const {
  return fmt::format("{}{}/{}", sources[entry.source].prefix, classes[entry.label], entry.name);
}
std::string ImageListing::where(const Entry& entry) const {
  return sources[entry.source].path + (sources[entry.source].archive ? ": " : "/") + path_of(entry);
}

bool is_image_name(std::string_view path) {
  const std::string_view name = file_name(path);
  if (name.starts_with('.')) return false;
  for (const std::string_view ending : {".jpg", ".jpeg", ".png"}) {
    if (name.size() > ending.size() &&
        std::equal(ending.begin(), ending.end(), name.end() - static_cast<std::ptrdiff_t>(ending.size()),
                   [](char a, char b) { return a == std::tolower(static_cast<unsigned char>(b)); }))
      return true;
  }
  return false;
}

std::string append_file(const std::string& path, std::vector<std::byte>& to) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not block
  if (fd < 0) return fmt::format("cannot be read: {}", std::strerror(errno));
  std::string why;
  struct stat status {};
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    why = "is no regular file";
  } else if (static_cast<std::uint64_t>(status.st_size) > max_image_bytes) {
    why = "is too large for an image";
  } else {
    const std::size_t before = to.size(), bytes = static_cast<std::size_t>(status.st_size);
    to.resize(before + bytes);
    std::size_t done = 0;
    while (done < bytes) {
      const ssize_t got = ::read(fd, to.data() + before + done, bytes - done);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) {
        why = got < 0 ? fmt::format("cannot be read: {}", std::strerror(errno)) : "was cut short while it was read";
        break;
      }
      done += static_cast<std::size_t>(got);
    }
    if (!why.empty()) to.resize(before);
  }
  ::close(fd);
  return why;
}

ImageListing list_images(std::span<const std::string> sources, const std::string& split,
                         const std::function<bool(std::span<const std::byte>)>& first) {
  Lister lister(split, first);
  for (const std::string& source : sources) lister.add(source);
  return lister.finish();
}

}  // namespace dtrain::io
