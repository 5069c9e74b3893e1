#include "io/import/import_images.hpp"

#include <algorithm>
#include <array>
#include <exception>
#include <filesystem>
#include <iterator>
#include <mutex>
#include <optional>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "io/dataset/channel_statistics.hpp"
#include "io/dataset/description.hpp"
#include "io/files/output.hpp"
#include "io/hdf5/hdf5_writer.hpp"
#include "io/hdf5/names.hpp"
#include "io/import/archive_links.hpp"
#include "io/import/image_decoder.hpp"
#include "io/import/image_listing.hpp"
#include "io/import/job_queue.hpp"
#include "io/import/repack.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr std::size_t job_images = 64;
constexpr std::size_t job_bytes = std::size_t{4} << 20;    // of files
constexpr std::size_t job_pixels = std::size_t{16} << 20;  // of their images

/// Images that one thread decodes; of an archive with their bytes, of a folder without.
struct Job {
  static constexpr std::size_t too_large = ~std::size_t{0}, no_content = too_large - 1;  // in place of bytes
  struct Item {
    std::size_t entry = 0, offset = 0, bytes = 0;
  };
  std::vector<Item> items;
  std::vector<std::byte> bytes;
};

/// One pass over all images into one file.
class Pass {
 public:
  /// `bad`: images to leave out; those that turn out broken are added.
  Pass(const ImageListing& listing, const ImageImportOptions& options, const ImageSize& size, const std::string& out,
       std::vector<char>& bad)
      : listing_(listing),
        options_(options),
        size_(size),
        bad_(bad),
        row_bytes_(static_cast<std::size_t>(size.height * size.width * options.how.channels)),
        threads_(options.threads > 0 ? static_cast<std::size_t>(options.threads)
                                     : std::max(1u, std::thread::hardware_concurrency())),
        queue_(2 * threads_),
        writer_(out),
        statistics_(StoredType::u8, sample_dims(), true) {
    row_.resize(listing.entries.size());
    for (std::size_t i = 0; i < row_.size(); ++i) row_[i] = bad[i] ? ImageListing::no_row : rows_++;
  }

  void run();
  std::uint64_t rows() const noexcept { return rows_; }
  const Findings& broken() const noexcept { return found_.broken; }
  const Findings& other_sizes() const noexcept { return found_.sizes; }
  const Findings& with_frames() const noexcept { return found_.frames; }
  bool grey() const noexcept { return found_.grey; }
  std::string normalize() const { return statistics_.normalize(); }
  void commit() {
    write_about();
    if (options_.labels) write_labels();
    writer_.commit();
  }

 private:
  /// What the threads come upon.
  struct Found {
    Findings broken, sizes, frames;
    bool grey = true;
    void merge(const Found& other) {
      broken.merge(other.broken);
      sizes.merge(other.sizes);
      frames.merge(other.frames);
      grey = grey && other.grey;
    }
  };
  std::array<std::uint64_t, 3> sample_dims() const {
    return {static_cast<std::uint64_t>(size_.height), static_cast<std::uint64_t>(size_.width),
            static_cast<std::uint64_t>(options_.how.channels)};
  }
  void read_folder(std::uint32_t source);
  void read_archive(std::uint32_t source);
  bool add(std::size_t entry, std::size_t offset, std::size_t bytes);
  bool send();
  void decode();
  void write_about();
  void write_labels();

  const ImageListing& listing_;
  const ImageImportOptions& options_;
  const ImageSize size_;
  std::vector<char>& bad_;
  const std::size_t row_bytes_, threads_;
  std::vector<std::uint64_t> row_;
  std::uint64_t rows_ = 0;
  JobQueue<Job> queue_;
  Job job_;
  h5::Writer writer_;
  std::size_t images_ = 0;
  std::mutex mutex_;  // of what follows
  Found found_;
  ChannelStatistics statistics_;
};

bool Pass::send() {
  if (job_.items.empty()) return true;
  return queue_.push(std::exchange(job_, {}));
}

bool Pass::add(std::size_t entry, std::size_t offset, std::size_t bytes) {
  job_.items.push_back({entry, offset, bytes});
  const bool full =
      job_.items.size() == job_images || job_.bytes.size() >= job_bytes || job_.items.size() * row_bytes_ >= job_pixels;
  return !full || send();
}

void Pass::read_folder(std::uint32_t source) {
  for (std::size_t i = 0; i < listing_.entries.size(); ++i) {
    if (listing_.entries[i].source == source && row_[i] != ImageListing::no_row && !add(i, 0, 0)) return;
  }
}

void Pass::read_archive(std::uint32_t source) {
  const ImageListing::Source& from = listing_.sources[source];
  const auto changed = [&from] { throw DataError(from.path + ": was changed while it was read"); };
  ArchiveReader reader(from.path);
  ArchiveReader::Member member;
  auto next = from.reading_order.begin();
  const auto end = from.reading_order.end();
  const auto file_of = [&](auto at) { return listing_.entries[*at].file; };
  std::vector<std::byte> content;
  while (reader.next(member)) {
    if (member.kind != ArchiveReader::Member::Kind::file) continue;
    content.clear();
    // More than one where links lead to the member.
    for (; next != end && file_of(next) == member.file; ++next) {
      if (row_[*next] == ImageListing::no_row) continue;
      const bool large = member.bytes > max_image_bytes;
      if (!large && content.empty()) reader.read(content);
      const std::size_t offset = job_.bytes.size();
      job_.bytes.insert(job_.bytes.end(), content.begin(), content.end());
      if (!add(*next, offset, large ? Job::too_large : content.size())) return;
    }
  }
  for (; next != end && file_of(next) == ArchiveLinks::nowhere; ++next)
    if (row_[*next] != ImageListing::no_row && !add(*next, 0, Job::no_content)) return;
  if (next != end) changed();
}

void Pass::decode() {
  ImageDecoder decoder(options_.how.channels);
  Found found;
  ChannelStatistics statistics(StoredType::u8, sample_dims(), true);
  std::vector<std::uint8_t> pixels;
  std::vector<std::byte> content;
  while (const auto job = queue_.pop()) {
    pixels.resize(job->items.size() * row_bytes_);
    std::uint64_t first = 0, count = 0;  // rows that wait in `pixels`
    const auto flush = [&] {
      writer_.write(images_, first, count, pixels.data());
      statistics.add(reinterpret_cast<const std::byte*>(pixels.data()), count);
      count = 0;
    };
    for (const Job::Item& item : job->items) {
      const ImageListing::Entry& entry = listing_.entries[item.entry];
      std::span<const std::byte> file;
      std::string why;
      if (listing_.sources[entry.source].archive) {
        if (item.bytes == Job::too_large) {
          why = "is too large for an image";
        } else if (item.bytes == Job::no_content) {
          why = "is no regular file, or a link that leads nowhere in the archive";
        } else {
          file = std::span(job->bytes).subspan(item.offset, item.bytes);
        }
      } else {
        content.clear();
        why = append_file(listing_.where(entry), content);
        file = content;
      }
      if (why.empty()) why = decoder.decode(file);
      if (!why.empty()) {
        found.broken.add("broken file*", item.entry, listing_.where(entry), why);
        bad_[item.entry] = 1;
        continue;
      }
      if (!size_.resize && (decoder.height() != size_.height || decoder.width() != size_.width)) {
        found.sizes.add("image* of another size", item.entry,
                        fmt::format("{}: {} x {}", listing_.where(entry), decoder.height(), decoder.width()));
        continue;
      }
      if (decoder.frames() > 1)
        found.frames.add("image* with several", item.entry,
                         fmt::format("{}: {}", listing_.where(entry), decoder.frames()));
      found.grey = found.grey && decoder.grey();
      const std::uint64_t row = row_[item.entry];
      if (count > 0 && row != first + count) flush();
      if (count == 0) first = row;
      decoder.fit(size_, pixels.data() + count * row_bytes_);
      ++count;
    }
    flush();
  }
  const std::lock_guard lock(mutex_);
  found_.merge(found);
  statistics_.merge(statistics);
}

void Pass::run() {
  const std::array<std::uint64_t, 4> dims{rows_, sample_dims()[0], sample_dims()[1], sample_dims()[2]};
  images_ = writer_.add(options_.key, StoredType::u8, dims);
  std::vector<std::thread> threads;
  try {
    for (std::size_t i = 0; i < threads_; ++i) {
      threads.emplace_back([this] {
        try {
          decode();
        } catch (...) {
          queue_.fail(std::current_exception());
        }
      });
    }
    for (std::uint32_t source = 0; source < listing_.sources.size(); ++source) {
      if (listing_.sources[source].archive) {
        read_archive(source);
      } else {
        read_folder(source);
      }
    }
    send();
    queue_.close();
  } catch (const std::system_error& e) {
    queue_.fail(std::make_exception_ptr(DataError(
        fmt::format("cannot start {} threads that decode images: {}; lower --threads", threads_, e.code().message()))));
  } catch (...) {
    queue_.fail(std::current_exception());
  }
  for (auto& thread : threads) thread.join();
  queue_.rethrow();
}

/// Of the images: how they were made, and of which files.
void Pass::write_about() {
  writer_.attribute(images_, "layout", std::string("NHWC"));
  writer_.attribute(images_, preprocessing_attribute, to_text(ImagePreprocessing{size_, options_.how.channels}));
  std::vector<std::string> names;
  names.reserve(rows_);
  std::size_t longest = 1;
  for (std::size_t i = 0; i < row_.size(); ++i) {
    if (row_[i] == ImageListing::no_row) continue;
    const ImageListing::Entry& entry = listing_.entries[i];
    // Of one source CLASS/FILE, wherever the class folders lie in it: an archive of a folder gives the folder's names.
    const bool several = listing_.sources.size() > 1;
    names.push_back(several           ? listing_.where(entry)
                    : options_.labels ? listing_.classes[entry.label] + "/" + entry.name
                                      : entry.name);
    longest = std::max(longest, names.back().size());
  }
  if (names.size() <= h5::max_bytes_of_file_names / longest) writer_.add_names(file_names_set, names);
}

void Pass::write_labels() {
  const std::size_t classes = listing_.classes.size();
  const StoredType type = classes <= 256 ? StoredType::u8 : classes <= 65536 ? StoredType::u16 : StoredType::i32;
  const std::array<std::uint64_t, 1> dims{rows_};
  const std::size_t set = writer_.add("labels", type, dims);
  std::vector<std::byte> labels;
  labels.reserve(rows_ * size_of(type));
  for (std::size_t i = 0; i < row_.size(); ++i) {
    if (row_[i] == ImageListing::no_row) continue;
    const auto* bytes = reinterpret_cast<const std::byte*>(&listing_.entries[i].label);  // little-endian
    labels.insert(labels.end(), bytes, bytes + size_of(type));
  }
  writer_.write(set, 0, rows_, labels.data());
  const auto count = static_cast<double>(classes);
  writer_.attribute(set, "classes", std::span(&count, 1));
  writer_.add_names("class_names", listing_.classes);
}

ImageSize checked(ImageSize size) {
  if (size.shorter > 0 && size.height == 0) size.height = size.width = size.shorter;
  if (size.height < 0 || size.width < 0 || size.shorter < 0 || size.height > (1 << 16) || size.width > (1 << 16) ||
      size.shorter > (1 << 16))
    throw ConfigError(fmt::format("import images: sizes must lie in 1 to {}", 1 << 16));
  if (size.resize && size.height == 0)
    throw ConfigError("import images: --resize needs a size: --resize 256 --size 224, or --size 224 --resize");
  if (size.shorter > 0 && (size.height > size.shorter || size.width > size.shorter))
    throw ConfigError(fmt::format("import images: --size {} {} cannot be cropped from images whose shorter side is {}",
                                  size.height, size.width, size.shorter));
  return size;
}

std::string shown_sources(std::span<const std::string> sources) {
  constexpr std::size_t shown = 4;
  const auto first = sources.first(std::min(shown, sources.size()));
  return fmt::format("{}{}", fmt::join(first, ", "),
                     sources.size() > shown ? fmt::format(" and {} more", sources.size() - shown) : "");
}

}  // namespace

bool holds_images(const std::string& path) {
  constexpr std::string_view archives[] = {".tar",    ".tgz",     ".tbz2",   ".txz",    ".tzst",
                                           ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"};
  std::error_code none;
  return std::filesystem::is_directory(path, none) || is_image_name(path) ||
         std::any_of(std::begin(archives), std::end(archives),
                     [&](std::string_view end) { return path.ends_with(end); });
}

ImageImportReport import_images(std::span<const std::string> sources, const std::string& out,
                                const ImageImportOptions& options) {
  check_output(out, sources);
  if (!options.labels && !options.split.empty())
    throw ConfigError("import images: --split chooses class folders, and --no-labels reads none");
  ImageSize size = checked(options.how.size);
  ImageDecoder decoder;
  // Without a size the first image that can be read says it.
  const auto first = [&](std::span<const std::byte> content) {
    if (size.height > 0) return true;
    if (!decoder.decode(content).empty()) return false;
    size.height = decoder.height();
    size.width = decoder.width();
    return true;
  };
  const ImageListing listing = list_images(sources, {options.split, options.labels}, first);
  const std::string source = shown_sources(sources);
  ImageImportReport report;
  std::vector<char> bad(listing.entries.size(), 0);
  if (size.height == 0) {
    Pass pass(listing, options, {1, 1, true, 0}, out, bad);  // for the reasons
    pass.run();
    throw DataError(fmt::format("{}: none of the {} files is an image that can be read: {}", source,
                                listing.entries.size(), pass.broken().text()));
  }
  Findings broken;
  std::string frames, grey;
  // Broken files show only when they are decoded: where they are dropped, a second pass has the right number of rows.
  for (bool again = true; again;) {
    Pass pass(listing, options, size, out, bad);
    if (pass.rows() == 0) throw DataError(fmt::format("{}: no image is left: {}", source, broken.text()));
    pass.run();
    if (pass.other_sizes().count() > 0) {
      throw DataError(fmt::format("{}: {}; the {} {} x {}: {}", source, pass.other_sizes().text(),
                                  options.how.size.height > 0 ? "size is" : "first is", size.height, size.width,
                                  options.how.size.height > 0
                                      ? "scale all to it with --resize"
                                      : "give the size that all are to have: --size H W --resize"));
    }
    broken.merge(pass.broken());
    broken.settle(options.on_error, source);
    again = pass.broken().count() > 0;
    if (again) continue;
    pass.commit();
    report.images = pass.rows();
    report.normalize = pass.normalize();
    if (pass.with_frames().count() > 0) frames = fmt::format("took the first frame of {}\n", pass.with_frames().text());
    if (pass.grey() && options.how.channels == 3)
      grey = "every pixel of these images is grey: --channels 1 stores one channel of them in place of three\n";
  }
  if (options.storage.gzip > 0 || options.storage.chunk_rows > 0) {
    RepackOptions again;
    again.storage = options.storage;
    repack_file(out, out, again);
  }
  report.dropped = broken.count();
  report.ignored = listing.ignored.count();
  report.height = size.height;
  report.width = size.width;
  report.classes = listing.classes;
  constexpr std::size_t shown = 12;
  const std::span names(report.classes.data(), std::min(shown, report.classes.size()));
  report.text = fmt::format("wrote {}: {} image{} of {}x{}x{} (uint8)", out, report.images,
                            report.images == 1 ? "" : "s", report.height, report.width, options.how.channels);
  if (options.labels)
    report.text += fmt::format(", {} class{}: {}{}", report.classes.size(), report.classes.size() == 1 ? "" : "es",
                               fmt::join(names, ", "), names.size() < report.classes.size() ? ", ..." : "");
  report.text += '\n';
  if (report.dropped > 0) report.notes += fmt::format("dropped {}\n", broken.text());
  if (report.ignored > 0) report.notes += fmt::format("left out {}\n", listing.ignored.text());
  report.notes += frames;
  report.text += report.notes + grey;
  if (!report.normalize.empty()) report.text += fmt::format("normalize: {}\n", report.normalize);
  return report;
}

}  // namespace dtrain::io
