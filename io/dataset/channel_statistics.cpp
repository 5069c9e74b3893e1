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
  mean_.resize(channels_);
  around_.resize(channels_);
}

ChannelStatistics::ChannelStatistics(StoredType type, std::size_t channels, std::size_t pixels, bool channels_last)
    : type_(type),
      channels_(channels),
      pixels_(pixels),
      channels_last_(channels_last),
      mean_(channels),
      around_(channels) {}

/// Row by row: the mean of a row's channel, the squares around that, and then with those of the rows before. Sums of a
/// row's bytes are exact.
void ChannelStatistics::add(const std::byte* rows, std::uint64_t count) {
  if (pixels_ == 0) return;
  const std::size_t step = channels_last_ ? channels_ : 1, channel = channels_last_ ? 1 : pixels_;
  const auto n = static_cast<double>(pixels_);
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
          const double mean = static_cast<double>(sum) / n;
          merge(n, c, mean, std::max(0.0, static_cast<double>(squares) - mean * static_cast<double>(sum)));
        } else {
          const auto value = [&](std::size_t p) {
            T stored;
            std::memcpy(&stored, at + p * step * sizeof(T), sizeof(T));
            return static_cast<double>(stored);
          };
          double sum = 0, around = 0;
          for (std::size_t p = 0; p < pixels_; ++p) sum += value(p);
          const double mean = sum / n;
          for (std::size_t p = 0; p < pixels_; ++p) around += (value(p) - mean) * (value(p) - mean);
          merge(n, c, mean, around);
        }
      }
      count_ += n;
    }
  });
}

/// Chan, Golub and LeVeque's formula; `count_` is still that before.
void ChannelStatistics::merge(double count, std::size_t channel, double mean, double around) {
  const double all = count_ + count, apart = mean - mean_[channel];
  around_[channel] += around + apart * apart * count_ * count / all;
  mean_[channel] += apart * count / all;
}

void ChannelStatistics::merge(const ChannelStatistics& other) {
  merge(other.moments());
}

std::vector<double> ChannelStatistics::moments() const {
  std::vector<double> out{count_};
  out.insert(out.end(), mean_.begin(), mean_.end());
  out.insert(out.end(), around_.begin(), around_.end());
  return out;
}

void ChannelStatistics::merge(std::span<const double> moments) {
  const double count = moments[0];
  if (count == 0) return;
  for (std::size_t c = 0; c < channels_; ++c) merge(count, c, moments[1 + c], moments[1 + channels_ + c]);
  count_ += count;
}

std::vector<double> ChannelStatistics::mean() const {
  std::vector<double> result;
  for (const double mean : mean_) result.push_back(mean * scale());
  return result;
}

std::vector<double> ChannelStatistics::standard_deviation() const {
  std::vector<double> result;
  for (const double around : around_) result.push_back(std::sqrt(around / count_) * scale());
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
