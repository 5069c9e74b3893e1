#include "io/dataset/channel_statistics.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "io/hdf5/stored.hpp"

namespace dtrain::io {

bool ChannelStatistics::last_by_shape(std::span<const std::uint64_t> sample) {
  const auto few = [](std::uint64_t n) { return n == 1 || n == 3 || n == 4; };
  return sample.size() == 3 && few(sample[2]) && !few(sample[0]);
}

ChannelStatistics::ChannelStatistics(StoredType type, std::span<const std::uint64_t> sample, bool channels_last)
    : type_(type) {
  std::uint64_t elements = 1;
  for (const auto e : sample) elements *= e;
  if (sample.size() == 3) {
    channels_ = sample[channels_last ? 2 : 0];
    channels_last_ = channels_last;
  } else if (sample.size() == 1 && elements <= max_features) {
    channels_ = elements;
  }
  channels_ = std::max<std::size_t>(1, channels_);
  pixels_ = elements / channels_;
  sum_.resize(channels_);
  squares_.resize(channels_);
  bytes_.resize(channels_);
  bytes2_.resize(channels_);
}

void ChannelStatistics::add(const std::byte* rows, std::uint64_t count) {
  const std::size_t step = channels_last_ ? channels_ : 1, channel = channels_last_ ? 1 : pixels_;
  count_ += count * pixels_;
  with_stored_type(type_, [&](auto tag) {
    using T = decltype(tag);
    for (std::uint64_t row = 0; row < count; ++row) {
      for (std::size_t c = 0; c < channels_; ++c) {
        const std::byte* at = rows + (row * channels_ * pixels_ + c * channel) * sizeof(T);
        if constexpr (sizeof(T) == 1 && std::is_unsigned_v<T>) {
          std::uint64_t sum = 0, squares = 0;
          for (std::size_t p = 0; p < pixels_; ++p) {
            const auto v = static_cast<std::uint32_t>(at[p * step]);
            sum += v;
            squares += std::uint64_t{v * v};
          }
          bytes_[c] += sum;
          bytes2_[c] += squares;
        } else {
          for (std::size_t p = 0; p < pixels_; ++p) {
            T value;
            std::memcpy(&value, at + p * step * sizeof(T), sizeof(T));
            const auto v = static_cast<double>(value);
            sum_[c] += v;
            squares_[c] += v * v;
          }
        }
      }
    }
  });
}

void ChannelStatistics::merge(const ChannelStatistics& other) {
  count_ += other.count_;
  for (std::size_t c = 0; c < channels_; ++c) {
    sum_[c] += other.sum_[c];
    squares_[c] += other.squares_[c];
    bytes_[c] += other.bytes_[c];
    bytes2_[c] += other.bytes2_[c];
  }
}

std::vector<double> ChannelStatistics::mean() const {
  std::vector<double> result;
  for (std::size_t c = 0; c < channels_; ++c)
    result.push_back((sum_[c] + static_cast<double>(bytes_[c])) / static_cast<double>(count_) * scale());
  return result;
}

std::vector<double> ChannelStatistics::standard_deviation() const {
  const std::vector<double> means = mean();
  std::vector<double> result;
  for (std::size_t c = 0; c < channels_; ++c) {
    const double squares = (squares_[c] + static_cast<double>(bytes2_[c])) / static_cast<double>(count_);
    result.push_back(std::sqrt(std::max(0.0, squares * scale() * scale() - means[c] * means[c])));
  }
  return result;
}

std::string ChannelStatistics::normalize() const {
  if (count_ == 0) return {};
  const std::vector<double> means = mean(), standard_deviations = standard_deviation();
  for (std::size_t c = 0; c < channels_; ++c)
    if (!std::isfinite(means[c]) || !std::isfinite(standard_deviations[c])) return {};
  // A channel that never changes cannot be divided by its standard deviation.
  std::vector<std::string> m, d;
  for (std::size_t c = 0; c < channels_; ++c) {
    m.push_back(fmt::format("{:.4g}", means[c]));
    d.push_back(fmt::format("{:.4g}", standard_deviations[c] > 0 ? standard_deviations[c] : 1.0));
  }
  return fmt::format("{{scale: {}, mean: [{}], standard_deviation: [{}]}}", scale(), fmt::join(m, ", "),
                     fmt::join(d, ", "));
}

}  // namespace dtrain::io
