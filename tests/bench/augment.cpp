// What augmentation costs beside plain conversion: microseconds a sample on one thread, images of bytes to floats.
// Prints a table; the first line is the conversion that everything is compared with.
#include "io/dataset/augment.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "io/augment/mixer.hpp"
#include "io/dataset/convert.hpp"

namespace {

using namespace dtrain;

/// The fastest of many short rounds, in microseconds a sample.
template <class F>
double microseconds(std::uint64_t samples, F&& work) {
  double best = 1e30;
  for (int round = 0; round < 100; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    for (std::uint64_t i = 0; i < samples; ++i) work(i);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best * 1e6 / static_cast<double>(samples);
}

}  // namespace

// augment FILE: images [N, H, W, 3] of bytes
int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: augment FILE\n");
    return 2;
  }
  io::DatasetOptions in_memory;
  in_memory.cache_mib = 1e6;
  const io::Dataset set(std::vector<std::string>{argv[1]}, in_memory);
  const std::int64_t height = set.port(0).row[0], width = set.port(0).row[1];
  const auto n = std::min<std::uint64_t>(set.count(), 100);
  const Shape input{3, height, width};
  const io::Normalize normalize{1.0 / 255, {0.491, 0.482, 0.447}, {0.247, 0.243, 0.262}};
  std::vector<float> out(static_cast<std::size_t>(3 * height * width));
  const io::Converter convert(set, 0, input, normalize);
  const double plain = microseconds(n, [&](std::uint64_t i) { convert(set.row(0, i, nullptr).data, out.data()); });
  fmt::print("{} images of {}x{}x3 (uint8) to normalized float32, one thread\n", n, height, width);
  fmt::print("{:44} {:8.2f} us\n", "plain", plain);
  const auto row = [&](const std::string& name, const std::vector<io::Augmentation>& list) {
    const io::Augmenter augment(set, 0, input, normalize, io::StoredLayout::unknown, list, 1);
    std::uint64_t position = 0;
    const double time =
        microseconds(n, [&](std::uint64_t i) { augment(set.row(0, i, nullptr).data, position++, out.data()); });
    fmt::print("{:44} {:8.2f} us  {:6.2f} x plain\n", name, time, time / plain);
  };
  row("random_crop, flip", {io::RandomCrop{4}, io::Flip{}});
  row("random_resized_crop, flip", {io::RandomResizedCrop{}, io::Flip{}});
  row("random_crop, flip, rotation, scaling", {io::RandomCrop{4}, io::Flip{}, io::Rotation{}, io::Scaling{}});
  row("random_crop, flip, color_jitter", {io::RandomCrop{4}, io::Flip{}, io::ColorJitter{0.4, 0.4, 0.4, 0.1}});
  row("random_crop, flip, color_jitter in any order",
      {io::RandomCrop{4}, io::Flip{}, io::ColorJitter{0.4, 0.4, 0.4, 0.1, true}});
  row("random_crop, flip, rand_augment", {io::RandomCrop{4}, io::Flip{}, io::RandAugment{}});
  row("random_crop, flip, random_erasing", {io::RandomCrop{4}, io::Flip{}, io::RandomErasing{}});
  io::RandomErasing noise;
  noise.value = io::RandomErasing::random;
  row("random_crop, flip, random_erasing of noise", {io::RandomCrop{4}, io::Flip{}, noise});
  const std::vector<float> other(out.size(), 0.5f);
  for (const auto& [name, mix] : {std::pair("mixup", io::Mix{0.2, 0, 1, 0.5}), {"cutmix", io::Mix{0, 1, 1, 0.5}}}) {
    const io::Mixer mixer(mix, {DType::f32, Shape{1, height, width, 3}}, 1);
    const double time = microseconds(n, [&](std::uint64_t i) { mixer.mix(mixer.draw(i), other.data(), out.data()); });
    fmt::print("{:44} {:8.2f} us, beside all else\n", name, time);
  }
}
