#include "launch/report/event_file.hpp"

#include <array>
#include <bit>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>

#include <fmt/format.h>
#include <unistd.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

namespace fs = std::filesystem;

namespace {

// TensorBoard asks for "tfevents" somewhere in the name. The last word says that the file is ours to cut.
constexpr std::string_view prefix = "events.out.tfevents.", suffix = ".dtrain";

constexpr std::array<std::uint32_t, 256> crc_table = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1) != 0 ? c >> 1 ^ 0x82f63b78u : c >> 1;
    table[i] = c;
  }
  return table;
}();

// ---- what there is of protocol buffers ---------------------------------------------------------------------------
// Event:   1 wall_time (double), 2 step (int64), 3 file_version (string), 5 summary
// Summary: 1 value, repeated.   Value: 1 tag (string), 2 simple_value (float)
enum Wire : unsigned { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

void put_varint(std::string& out, std::uint64_t v) {
  for (; v >= 0x80; v >>= 7) out += static_cast<char>(v | 0x80);
  out += static_cast<char>(v);
}

template <class T>
void put_little(std::string& out, T v) {
  for (std::size_t i = 0; i < sizeof v; ++i) out += static_cast<char>(v >> (8 * i) & 0xff);
}

void put_key(std::string& out, unsigned field, Wire wire) {
  put_varint(out, field << 3 | wire);
}

void put_bytes(std::string& out, unsigned field, std::string_view text) {
  put_key(out, field, bytes);
  put_varint(out, text.size());
  out += text;
}

std::string begin_event() {
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  std::string event;
  put_key(event, 1, fixed64);
  put_little(event, std::bit_cast<std::uint64_t>(now.count()));
  return event;
}

std::string record_of(std::string_view event) {
  std::string record;
  put_little(record, static_cast<std::uint64_t>(event.size()));
  put_little(record, masked_crc32c(record));
  record += event;
  put_little(record, masked_crc32c(event));
  return record;
}

// ---- reading back --------------------------------------------------------------------------------------------------

template <class T>
T little(std::string_view at) {
  T v = 0;
  for (std::size_t i = 0; i < sizeof v; ++i) v |= static_cast<T>(static_cast<unsigned char>(at[i])) << (8 * i);
  return v;
}

std::optional<std::uint64_t> take_varint(std::string_view& in) {
  std::uint64_t v = 0;
  for (unsigned shift = 0; shift < 64 && !in.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(in.front());
    in.remove_prefix(1);
    v |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return v;
  }
  return std::nullopt;
}

/// The step of an event, 0 where it has none; nothing where this is no Event.
std::optional<std::uint64_t> step_of(std::string_view event) {
  std::uint64_t step = 0;
  while (!event.empty()) {
    const auto key = take_varint(event);
    if (!key) return std::nullopt;
    std::size_t skip = 0;
    switch (*key & 7) {
      case varint: {
        const auto v = take_varint(event);
        if (!v) return std::nullopt;
        if (*key >> 3 == 2) step = *v;
        break;
      }
      case fixed64:
        skip = 8;
        break;
      case fixed32:
        skip = 4;
        break;
      case bytes: {
        const auto length = take_varint(event);
        if (!length) return std::nullopt;
        skip = *length;
        break;
      }
      default:
        return std::nullopt;
    }
    if (skip > event.size()) return std::nullopt;
    event.remove_prefix(skip);
  }
  return step;
}

struct Kept {
  std::size_t bytes = 0;
  int records = 0;
};

/// The leading whole records of steps up to `step`.
Kept kept_of(std::string_view text, std::uint64_t step) {
  Kept kept;
  constexpr std::size_t head = 12, tail = 4;
  for (std::string_view rest = text; rest.size() >= head + tail;) {
    const auto length = little<std::uint64_t>(rest);
    if (masked_crc32c(rest.substr(0, 8)) != little<std::uint32_t>(rest.substr(8))) break;
    if (length > rest.size() - head - tail) break;
    const std::string_view event = rest.substr(head, length);
    if (masked_crc32c(event) != little<std::uint32_t>(rest.substr(head + length))) break;
    const auto at = step_of(event);
    if (!at || *at > step) break;
    rest.remove_prefix(head + length + tail);
    kept = {text.size() - rest.size(), kept.records + 1};
  }
  return kept;
}

void cut_older_files(const std::string& directory, std::int64_t step) {
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(directory, failed)) {
    const std::string name = entry.path().filename().string();
    if (!is_event_file(name) || !entry.is_regular_file()) continue;
    std::ifstream in(entry.path(), std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    const Kept kept = kept_of(text, static_cast<std::uint64_t>(step));
    if (kept.records <= 1) {  // the version alone
      fs::remove(entry.path(), failed);
    } else if (kept.bytes < text.size()) {
      fs::resize_file(entry.path(), kept.bytes, failed);
    }
    if (failed) break;
  }
  if (failed) throw DataError(fmt::format("{}: cannot cut older event files: {}", directory, failed.message()));
}

AppendFile begin(const std::string& directory, std::int64_t step) {
  cut_older_files(directory, step);
  char host[256] = {};
  if (gethostname(host, sizeof host - 1) != 0) host[0] = '\0';
  const auto seconds =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch());
  // Readers take the files of a directory in the order of their names. Two of one second: the number tells them apart.
  fs::path path;
  for (int number = 0; path.empty() || fs::exists(path); ++number)
    path = fs::path(directory) / fmt::format("{}{:010}.{}.{:02}{}", prefix, seconds.count(), host, number, suffix);
  AppendFile file(path.string(), "events", true);
  std::string event = begin_event();
  put_bytes(event, 3, "brain.Event:2");
  file.append(record_of(event));
  return file;
}

}  // namespace

bool is_event_file(const std::string& name) noexcept {
  return name.starts_with(prefix) && name.ends_with(suffix);
}

std::uint32_t crc32c(std::string_view text) noexcept {
  std::uint32_t c = ~0u;
  for (const char byte : text) c = crc_table[(c ^ static_cast<unsigned char>(byte)) & 0xff] ^ c >> 8;
  return ~c;
}

std::uint32_t masked_crc32c(std::string_view text) noexcept {
  // Rotated and shifted, since a CRC over data that hold CRCs is weak.
  return std::rotr(crc32c(text), 15) + 0xa282ead8u;
}

EventFile::EventFile(const std::string& directory, std::int64_t step) : file_(begin(directory, step)) {}

void EventFile::write(std::int64_t step, std::span<const Scalar> scalars) {
  std::string summary;
  for (const Scalar& scalar : scalars) {
    std::string value;
    put_bytes(value, 1, scalar.tag);
    put_key(value, 2, fixed32);
    put_little(value, std::bit_cast<std::uint32_t>(static_cast<float>(scalar.value)));
    put_bytes(summary, 1, value);
  }
  std::string event = begin_event();
  put_key(event, 2, varint);
  put_varint(event, static_cast<std::uint64_t>(step));
  put_bytes(event, 5, summary);
  file_.append(record_of(event));
}

}  // namespace dtrain::launch
