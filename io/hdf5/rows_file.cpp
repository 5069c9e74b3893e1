#include "io/hdf5/rows_file.hpp"

#include <cerrno>
#include <cstring>
#include <functional>
#include <numeric>
#include <optional>

#include <fcntl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "io/hdf5/hdf5_writer.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {

struct RowsFile::State {
  State(Group& g, std::string p, std::vector<RowsColumn> c) : group(g), path(std::move(p)), columns(std::move(c)) {}
  ~State() {
    if (descriptor >= 0) ::close(descriptor);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  Group& group;
  std::string path;
  std::vector<RowsColumn> columns;
  std::vector<std::uint64_t> offsets, row_bytes;  // by column
  std::optional<h5::Writer> writer;               // rank 0
  int descriptor = -1;
};

RowsFile::RowsFile(Group& group, const std::string& path, std::uint64_t rows, std::vector<RowsColumn> columns,
                   const std::vector<std::pair<std::string, std::string>>& attributes, const Texts& texts)
    : state_(std::make_unique<State>(group, path, std::move(columns))) {
  State& s = *state_;
  for (const RowsColumn& c : s.columns)
    s.row_bytes.push_back(
        std::accumulate(c.row.begin(), c.row.end(), std::uint64_t{size_of(c.type)}, std::multiplies<>()));
  std::string plan;
  group.agree([&] {
    if (group.rank() != 0) return;
    s.writer.emplace(path);
    for (const RowsColumn& c : s.columns) {
      std::vector<std::uint64_t> dims{rows};
      dims.insert(dims.end(), c.row.begin(), c.row.end());
      s.writer->add(c.name, c.type, dims);
    }
    for (const auto& [name, text] : attributes) s.writer->file_attribute(name, text);
    for (const auto& [name, values] : texts)
      if (!values.empty()) s.writer->add_names(name, values);
    const auto [temporary, offsets] = s.writer->hand_over();
    plan = nlohmann::json{{"path", temporary}, {"offsets", offsets}}.dump();
  });
  const auto known = nlohmann::json::parse(group.all_gather(plan)[0]);
  s.offsets = known["offsets"].get<std::vector<std::uint64_t>>();
  group.agree([&] {
    const auto temporary = known["path"].get<std::string>();
    s.descriptor = ::open(temporary.c_str(), O_WRONLY | O_CLOEXEC);
    if (s.descriptor < 0) {
      throw DataError(fmt::format("{}: cannot be opened: {}; it must lie on a file system that all ranks share",
                                  temporary, std::strerror(errno)));
    }
  });
}

RowsFile::~RowsFile() = default;

void RowsFile::write(std::size_t column, std::uint64_t first, std::uint64_t count, const void* bytes) {
  const State& s = *state_;
  const std::uint64_t size = count * s.row_bytes[column], at = s.offsets[column] + first * s.row_bytes[column];
  for (std::uint64_t done = 0; done < size;) {
    const auto n =
        ::pwrite(s.descriptor, static_cast<const std::byte*>(bytes) + done, size - done, static_cast<off_t>(at + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      throw DataError(fmt::format("{}: cannot write {} ({} of {} bytes): {}", s.path, s.columns[column].name, done,
                                  size, std::strerror(n < 0 ? errno : ENOSPC)));
    }
    done += static_cast<std::uint64_t>(n);
  }
}

void RowsFile::commit() {
  State& s = *state_;
  s.group.agree([&] {
    if (::fsync(s.descriptor) != 0)
      throw DataError(fmt::format("{}: cannot be written to the disk: {}", s.path, std::strerror(errno)));
  });
  s.group.agree([&] {
    if (s.writer) s.writer->commit();
  });
}

}  // namespace dtrain::io
