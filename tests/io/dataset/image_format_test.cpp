// What a device makes of stored bytes, against what the loader's threads make of them: the same bits, as the bodies are
// shared and no compiler may contract them.
#include "io/dataset/image_format.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "io/dataset/loader.hpp"
#include "runtime/device/device.hpp"
#include "runtime/ops/kernels.hpp"
#include "tests/io/dataset/short_form.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"

namespace dtrain::io {
namespace {

using testing::Folder;
using testing::ShortForm;
using testing::write_images;

struct Sets : ::testing::Test {
  Folder folder;
  Dataset open(const std::vector<hsize_t>& sample) {
    write_images(folder / "a.h5", 21, sample);
    return Dataset(std::vector<std::string>{folder / "a.h5"});
  }
};

ShortForm options(const Shape& input) {
  ShortForm o;
  o.input = input;
  o.normalize = {1.0 / 255, {0.5}, {0.25}};
  o.micro_batch = 4;
  o.global_batch = 8;
  o.seed = 5;
  return o;
}

/// Batches of both kinds side by side.
void compare(const Dataset& data, ShortForm o, bool training) {
  const auto host = image_format(data, 0, o.input, o.normalize);
  ASSERT_TRUE(host);
  ImageFormat format = host->format;
  format.table = host->table.data();
  format.scale = host->scale.data();
  format.offset = host->offset.data();
  std::vector<std::uint8_t> whole(data.count() * data.port(0).row_bytes);
  for (std::uint64_t i = 0; i < data.count(); ++i) {
    auto* const to = reinterpret_cast<std::byte*>(whole.data()) + i * data.port(0).row_bytes;
    const std::byte* const from = data.row(0, i, to).data;
    if (from != to) std::copy_n(from, data.port(0).row_bytes, to);
  }
  const auto device = make_cpu_device(2);
  const auto stream = device->make_stream(StreamUse::compute);
  const auto load = [&](const ShortForm& of) {
    return training ? testing::training(data, of) : testing::evaluation(data, of);
  };
  const auto floats = load(o);
  for (const Carry carry : {Carry::bytes, Carry::rows}) {
    o.carry = carry;
    const auto raw = load(o);
    const BatchLayout layout = testing::options_of(data, o, training).layout;
    const RawLayout at = raw_layout(carry, data.port(0).row_bytes, o.micro_batch, training && !o.augment.empty());
    floats->seek(0);
    for (int i = 0; i < 12; ++i) {
      const Batch &expected = floats->next(), &batch = raw->next();
      EXPECT_FALSE(batch.ports[0]) << "the device makes it";
      ASSERT_EQ(batch.valid, expected.valid);
      const auto elements = static_cast<std::size_t>(expected.ports[0].elements());
      std::vector<float> out(elements, -1e9f);
      const std::byte* const carried = layout.raw_in(0, batch.memory.data());
      ImageBatch b;
      b.rows = reinterpret_cast<const std::uint64_t*>(carried + at.rows);
      b.stored = carry == Carry::rows ? whole.data() : reinterpret_cast<const std::uint8_t*>(carried + at.stored);
      if (training && !o.augment.empty()) b.draws = reinterpret_cast<const ImageDraw*>(carried + at.draws);
      b.n = o.micro_batch;
      b.out = out.data();
      device->kernels().load_images(format, b, *stream);
      for (std::size_t e = 0; e < elements; ++e)
        ASSERT_EQ(out[e], expected.ports[0].as<float>()[e]) << "element " << e << " of batch " << i;
      EXPECT_TRUE(std::equal(batch.ports.back().as<float>(), batch.ports.back().as<float>() + 4,
                             expected.ports.back().as<float>()));
      floats->release();
      raw->release();
    }
  }
}

TEST_F(Sets, PlainSamplesAreTheSameInEitherOrder) {
  for (const auto& stored : {std::vector<hsize_t>{3, 6, 5}, std::vector<hsize_t>{6, 5, 3}}) {
    const Dataset data = open(stored);
    compare(data, options(Shape{3, 6, 5}), false);  // evaluation: a last batch with padding, too
    compare(data, options(Shape{3, 6, 5}), true);
  }
  const Dataset gray = open({1, 6, 5});
  compare(gray, options(Shape{30}), true);  // a model that takes values
}

TEST_F(Sets, WholePixelsAreTheSame) {
  const Dataset data = open({6, 5, 3});
  ShortForm o = options(Shape{3, 6, 5});
  o.normalize.mean = {0.4, 0.5, 0.6};
  o.augment = {RandomCrop{2}, Flip{0.5, 0.5}};
  compare(data, o, true);
}

TEST_F(Sets, InterpolatedAndRecoloredPixelsAreTheSame) {
  const Dataset data = open({6, 5, 3});
  ShortForm o = options(Shape{3, 6, 5});
  o.augment = {Rotation{30}, Scaling{}};
  compare(data, o, true);
  o.augment = {RandomResizedCrop{}, ColorJitter{0.4, 0.4, 0.4, 0.1}};
  compare(data, o, true);
}

TEST_F(Sets, OnlyTheHostConvertsWhatIsNoByteOrHasAScaleForEachFeature) {
  const Dataset data = open({30});
  EXPECT_TRUE(image_format(data, 0, Shape{30}, {}));
  EXPECT_FALSE(image_format(open({30}), 0, Shape{30}, {1, std::vector<double>(30, 0.5), {}}));
}

}  // namespace
}  // namespace dtrain::io
