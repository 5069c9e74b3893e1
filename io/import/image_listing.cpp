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
#include "io/import/archive_links.hpp"
#include "io/import/image_formats.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr int max_depth = 16;  // of folders
constexpr std::size_t max_classes = 1 << 24;

std::string_view file_name(std::string_view path) {
  return path.substr(path.rfind('/') + 1);
}

constexpr std::array<std::string_view, 8> unread_endings{".heic", ".heif", ".avif", ".jp2",
                                                         ".jxl",  ".ppm",  ".pgm",  ".svg"};

/// Of a file that is not hidden, in any case.
bool has_ending(std::string_view path, std::span<const std::string_view> endings) {
  const std::string_view name = file_name(path);
  if (name.starts_with('.')) return false;
  return std::any_of(endings.begin(), endings.end(), [name](std::string_view ending) {
    return name.size() > ending.size() &&
           std::equal(ending.begin(), ending.end(), name.end() - static_cast<std::ptrdiff_t>(ending.size()),
                      [](char a, char b) { return a == std::tolower(static_cast<unsigned char>(b)); });
  });
}

/// Collects the images of one source after the other.
class Lister {
 public:
  Lister(const ListingOptions& options, const FirstImage& first) : options_(options), first_(first) {}

  void add(const std::string& path) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0)
      throw DataError(fmt::format("{}: {}", path,
                                  errno == ENOENT || errno == ENOTDIR
                                      ? "no such file or folder"
                                      : fmt::format("cannot be read: {}", std::strerror(errno))));
    if (!options_.labels && !S_ISDIR(status.st_mode) && is_image_name(path)) return add_file(path);
    listing_.sources.push_back({path, !S_ISDIR(status.st_mode), {}, {}});
    prefixes_.clear();
    splits_.clear();
    folders_.clear();
    hidden_.clear();
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
  /// Takes a file; false where it is none of ours. `file`: of an archive, which member has its content.
  bool take(const std::string& inside, std::uint64_t file = 0);
  /// Whether a path lies in a hidden folder, which is counted once.
  bool in_hidden_folder(const std::string& inside);
  void note_folder(std::string_view inside);
  void ignore(const char* kind, const std::string& inside) {
    listing_.ignored.add(kind, listing_.ignored.count(), inside);
  }
  void probe(std::span<const std::byte> content) { probed_ = probed_ || first_(content); }
  void add_file(const std::string& path);
  void check(const std::string& path, std::size_t taken);
  void check_classes(const std::string& path) const;

  /// What lies in a folder itself.
  struct FolderContent {
    std::uint64_t images = 0, others = 0;
    bool folders = false;
    std::string other;  // the first of the others
  };

  const ListingOptions& options_;
  const FirstImage& first_;
  bool probed_ = false;
  ImageListing listing_;
  std::map<std::string, std::uint32_t> classes_;               // in the order in which they came
  std::set<std::string> prefixes_;                             // of this source
  std::set<std::string> splits_;                               // other ones that could have been chosen
  std::map<std::string, FolderContent, std::less<>> folders_;  // of this source
  std::set<std::string> hidden_;                               // folders of this source
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
      if (in_hidden_folder(path + "/")) continue;
      note_folder(path);
      walk_folder(root, path, depth + 1);
    } else if (take(path) && !probed_) {
      std::vector<std::byte> content;
      if (append_file(full, content).empty()) probe(content);
    }
  }
}

void Lister::walk_archive(const std::string& path) {
  using Kind = ArchiveReader::Member::Kind;
  ArchiveReader reader(path);
  ArchiveReader::Member member;
  std::vector<std::byte> content;
  bool links = false;
  while (reader.next(member)) {
    links = links || member.kind == Kind::link || member.kind == Kind::hard_link;
    if (member.kind == Kind::folder && !member.path.empty() && !in_hidden_folder(member.path + "/"))
      note_folder(member.path);
    if (member.kind == Kind::other) take(member.path, ArchiveLinks::nowhere);
    if (member.kind == Kind::file && take(member.path, member.file) && !probed_ && member.bytes <= max_image_bytes) {
      content.clear();
      reader.read(content);
      probe(content);
    }
  }
  if (!links) return;
  std::set<std::uint64_t> linked;
  ArchiveLinks(path).each([&](const std::string& inside, std::uint64_t file) {
    if (take(inside, file)) linked.insert(file);
  });
  ArchiveReader again(path);  // the only images may be links to files of other names
  while (!probed_ && again.next(member)) {
    if (member.kind != Kind::file || !linked.contains(member.file) || member.bytes > max_image_bytes) continue;
    content.clear();
    again.read(content);
    probe(content);
  }
}

bool Lister::in_hidden_folder(const std::string& inside) {
  for (std::size_t begin = 0, end; (end = inside.find('/', begin)) != inside.npos; begin = end + 1) {
    const std::string_view part = std::string_view(inside).substr(begin, end - begin);
    if (!part.starts_with('.') || part == "." || part == "..") continue;
    if (hidden_.insert(inside.substr(0, end)).second) ignore("hidden folder*", inside.substr(0, end));
    return true;
  }
  return false;
}

void Lister::note_folder(std::string_view inside) {
  while (inside.ends_with('/')) inside.remove_suffix(1);
  while (!inside.empty()) {
    if (folders_.contains(inside)) return;
    folders_.emplace(inside, FolderContent{});
    const auto slash = inside.rfind('/');
    if (slash == inside.npos) return;
    inside = inside.substr(0, slash);
    note_folder(inside);
    folders_.find(inside)->second.folders = true;
  }
}

bool Lister::take(const std::string& inside, std::uint64_t file) {
  const auto parent = [](std::string_view path) {
    const auto slash = path.rfind('/');
    return slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
  };
  if (in_hidden_folder(inside)) return false;
  const bool image = is_image_name(inside), hidden = file_name(inside).starts_with('.');
  if (const std::string_view in = parent(inside); !in.empty()) {
    note_folder(in);
    FolderContent& content = folders_.find(in)->second;
    if (image) ++content.images;
    if (!image && !hidden && content.others++ == 0) content.other = file_name(inside);
  }
  if (!image) {
    ignore(hidden                               ? "hidden file*"
           : has_ending(inside, unread_endings) ? "image* of a format that dtrain does not read"
                                                : "file* not named like an image",
           inside);
    return false;
  }
  ImageListing::Source& source = listing_.sources.back();
  if (!options_.labels) {
    listing_.entries.push_back({static_cast<std::uint32_t>(listing_.sources.size() - 1), 0, file, inside});
    return true;
  }
  const std::string name(file_name(inside));
  const std::string_view folder = parent(inside);
  if (folder.empty() || folder == "." || folder == "..")
    throw DataError(
        fmt::format("{}: {} lies in no class folder; expected CLASS/{} (--no-labels imports without classes)",
                    source.path, inside, name));
  const std::string_view above = parent(folder);
  if (!options_.split.empty() && file_name(above) != options_.split) {
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
  listing_.entries.push_back({static_cast<std::uint32_t>(listing_.sources.size() - 1), label->second, file, name});
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
  if (taken > 0 && !options_.labels) return;
  if (taken > 0) return check_classes(path);
  if (!options_.split.empty() && !splits_.empty())
    throw DataError(fmt::format("{}: no split {} in SPLIT/CLASS/FILE; there is {}", path, options_.split,
                                fmt::join(splits_, ", ")));
  throw DataError(fmt::format("{}: holds no images; expected {}{}FILE.jpg (or .png, .webp, .gif, .bmp, .tif)", path,
                              options_.split.empty() ? "" : options_.split + "/", options_.labels ? "CLASS/" : ""));
}

/// Each folder beside those of the classes is one of a class.
void Lister::check_classes(const std::string& path) const {
  const std::string& prefix = listing_.sources.back().prefix;
  std::vector<std::string> empty;
  std::string example;
  for (const auto& [folder, content] : folders_) {
    const bool beside =
        folder.size() > prefix.size() && folder.starts_with(prefix) && folder.find('/', prefix.size()) == folder.npos;
    if (!beside || content.images > 0 || (content.others == 0 && content.folders)) continue;
    empty.push_back(folder);
    if (example.empty() && content.others > 0)
      example = fmt::format(" ({}/{} is a file of another kind)", folder, content.other);
  }
  if (empty.empty()) return;
  constexpr std::size_t shown = 8;
  throw DataError(fmt::format(
      "{}: {} class folder{} no image that dtrain reads: {}{}{}; without {} the labels of other classes would change: "
      "convert "
      "the files to PNG, or take the folder{} away",
      path, empty.size(), empty.size() == 1 ? " holds" : "s hold",
      fmt::join(std::span(empty).first(std::min(shown, empty.size())), ", "), empty.size() > shown ? ", ..." : "",
      example, empty.size() == 1 ? "this class" : "these classes", empty.size() == 1 ? "" : "s"));
}

/// Of files that were named one by one.
void Lister::add_file(const std::string& path) {
  auto& sources = listing_.sources;
  auto at = std::find_if(sources.begin(), sources.end(), [](const auto& source) { return source.path.empty(); });
  if (at == sources.end()) at = sources.insert(at, {{}, false, {}, {}});
  listing_.entries.push_back({static_cast<std::uint32_t>(at - sources.begin()), 0, 0, path});
  if (probed_) return;
  std::vector<std::byte> content;
  if (append_file(path, content).empty()) probe(content);
}

ImageListing Lister::finish() {
  ImageListing& l = listing_;
  // Maps are sorted: labels follow the names.
  std::vector<std::uint32_t> label(classes_.size());
  for (const auto& [name, came] : classes_) {
    label[came] = static_cast<std::uint32_t>(l.classes.size());
    l.classes.push_back(name);
  }
  for (auto& entry : l.entries)
    if (options_.labels) entry.label = label[entry.label];
  std::sort(l.entries.begin(), l.entries.end(), [](const auto& a, const auto& b) {
    return std::tie(a.label, a.source, a.name) < std::tie(b.label, b.source, b.name);
  });
  for (std::size_t i = 0; i < l.entries.size(); ++i) {
    const auto& e = l.entries[i];
    if (i > 0 && std::tie(e.label, e.source, e.name) ==
                     std::tie(l.entries[i - 1].label, l.entries[i - 1].source, l.entries[i - 1].name))
      throw DataError(fmt::format("{}: is there twice", l.where(e)));
    l.sources[e.source].reading_order.push_back(i);
  }
  for (auto& source : l.sources)
    std::sort(source.reading_order.begin(), source.reading_order.end(), [&l](std::uint64_t a, std::uint64_t b) {
      return std::pair(l.entries[a].file, a) < std::pair(l.entries[b].file, b);
    });
  return std::move(listing_);
}

}  // namespace

std::string ImageListing::path_of(const Entry& entry) const {
  if (classes.empty()) return entry.name;
  return fmt::format("{}{}/{}", sources[entry.source].prefix, classes[entry.label], entry.name);
}
std::string ImageListing::where(const Entry& entry) const {
  const Source& source = sources[entry.source];
  return source.path.empty() ? entry.name : source.path + (source.archive ? ": " : "/") + path_of(entry);
}

bool is_image_name(std::string_view path) {
  return has_ending(path, read_image_endings());
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

ImageListing list_images(std::span<const std::string> sources, const ListingOptions& options, const FirstImage& first) {
  Lister lister(options, first);
  for (const std::string& source : sources) lister.add(source);
  return lister.finish();
}

}  // namespace dtrain::io
