#include "io/checkpoint/checkpoint_snapshot.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <new>

#include <fmt/format.h>

#include "io/checkpoint/checkpoint_digest.hpp"

namespace dtrain::io {
namespace {

// Small enough to stay in the cache between the look, the hash and the copy.
constexpr std::size_t block_bytes = std::size_t{128} << 10;

std::uint64_t layout_hash(const Manifest& manifest) {
  Xxh3 hash;
  for (const auto& t : manifest.tensors) {
    const auto text = fmt::format("{}\n{}\n{}\n", t.name, name_of(t.dtype), t.shape.str());
    hash.add(std::as_bytes(std::span(text)));
  }
  return hash.value();
}

struct Header {
  std::uint64_t step = 0, layout = 0;
  std::int64_t nonfinite = -1;
  std::uint64_t out_of_memory = 0;  // bytes asked for
};

/// Which ranks hold another value than most; all of them where there is no majority.
std::vector<int> divergent(const std::vector<std::uint64_t>& values) {
  std::map<std::uint64_t, std::size_t> counts;
  for (const auto value : values) ++counts[value];
  const auto most =
      std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  std::vector<int> ranks;
  for (std::size_t rank = 0; rank < values.size(); ++rank) {
    if (2 * most->second <= values.size() || values[rank] != most->first) ranks.push_back(static_cast<int>(rank));
  }
  return ranks;
}

}  // namespace

void Snapshot::Free::operator()(std::byte* p) const noexcept {
  ::operator delete[](p, std::align_val_t{4096});
}

void Snapshot::take(std::span<const StateTensor> tensors, Manifest& manifest, std::uint64_t begin, std::uint64_t end) {
  size_ = end - begin;
  if (capacity_ < size_) {
    buffer_.reset();  // not both at once
    buffer_.reset(static_cast<std::byte*>(::operator new[](size_, std::align_val_t{4096}, std::nothrow)));
    capacity_ = buffer_ ? size_ : 0;
  }
  failed_ = capacity_ < size_;
  if (failed_) return;
  nonfinite_ = -1;
  Xxh3 hash;
  std::uint64_t zeroed = begin;  // up to here the buffer is filled
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    auto& entry = manifest.tensors[i];
    const auto* data = static_cast<const std::byte*>(tensors[i].data);
    hash.reset();
    for (std::uint64_t at = 0; at < entry.bytes; at += block_bytes) {
      const auto bytes = std::min<std::uint64_t>(block_bytes, entry.bytes - at);
      if (nonfinite_ < 0 && holds_nonfinite(entry.dtype, {data + at, bytes})) nonfinite_ = static_cast<std::int64_t>(i);
      hash.add({data + at, bytes});
      const auto from = std::max(begin, entry.offset + at), to = std::min(end, entry.offset + at + bytes);
      if (from >= to) continue;
      std::memset(buffer_.get() + (zeroed - begin), 0, from - zeroed);  // the gap behind the tensor before
      std::memcpy(buffer_.get() + (from - begin), data + (from - entry.offset), to - from);
      zeroed = to;
    }
    entry.xxh3 = hash.value();
  }
  if (end > zeroed) std::memset(buffer_.get() + (zeroed - begin), 0, end - zeroed);
}

void compare_state(Group& group, std::uint64_t step, std::span<const StateTensor> tensors) {
  Manifest manifest = lay_out(tensors);
  Snapshot nothing;  // is copied
  nothing.take(tensors, manifest, 0, 0);
  compare_ranks(group, step, manifest, nothing, "");
}

std::string compare_ranks(Group& group, std::uint64_t step, const Manifest& manifest, const Snapshot& snapshot,
                          const std::string& word) {
  const Header header{step, layout_hash(manifest), snapshot.nonfinite(),
                      snapshot.failed() ? snapshot.bytes().size() : 0};
  std::string message(sizeof header, '\0');
  std::memcpy(message.data(), &header, sizeof header);
  for (const auto& tensor : manifest.tensors) {
    message.append(reinterpret_cast<const char*>(&tensor.xxh3), sizeof tensor.xxh3);
  }
  message += word;
  const auto messages = group.all_gather(message);

  std::vector<Header> headers(messages.size());
  for (std::size_t rank = 0; rank < messages.size(); ++rank) {
    std::memcpy(&headers[rank], messages[rank].data(), sizeof(Header));
    if (headers[rank].step != headers[0].step || headers[rank].layout != headers[0].layout) {
      throw BugError(fmt::format("rank {} saves step {}, rank 0 step {}, or they hold other tensors", rank,
                                 headers[rank].step, headers[0].step));
    }
  }
  for (std::size_t rank = 0; rank < messages.size(); ++rank) {
    if (headers[rank].out_of_memory > 0) {
      throw OutOfMemory(fmt::format("rank {} has no {} bytes of host memory for its part of the checkpoint of step {}",
                                    rank, headers[rank].out_of_memory, step));
    }
    if (headers[rank].nonfinite < 0) continue;
    const auto& tensor = manifest.tensors[static_cast<std::size_t>(headers[rank].nonfinite)];
    throw NumericError(fmt::format("{} holds a NaN or an infinity on rank {} at step {}; no checkpoint of it is kept",
                                   tensor.name, rank, step));
  }
  std::vector<std::uint64_t> values(messages.size());
  for (std::size_t i = 0; i < manifest.tensors.size(); ++i) {
    for (std::size_t rank = 0; rank < messages.size(); ++rank) {
      std::memcpy(&values[rank], messages[rank].data() + sizeof(Header) + i * sizeof values[rank], sizeof values[rank]);
    }
    if (std::all_of(values.begin(), values.end(), [&](auto v) { return v == values[0]; })) continue;
    throw NumericError(fmt::format("{} differs between ranks at step {}: {} diverged; no checkpoint of it is kept",
                                   manifest.tensors[i].name, step, ranks_text(divergent(values))));
  }
  return messages[0].substr(sizeof(Header) + manifest.tensors.size() * sizeof(std::uint64_t));
}

}  // namespace dtrain::io
