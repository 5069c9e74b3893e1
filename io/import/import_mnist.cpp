#include "io/import/import_mnist.hpp"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "io/files/output.hpp"
#include "io/hdf5/hdf5_writer.hpp"
#include "io/import/idx.hpp"
#include "io/import/image_preprocessing.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {

std::string ImportReport::text() const {
  return fmt::format("wrote {}: {} images of 1x{}x{} (uint8), {} classes", path, samples, height, width, classes);
}

ImportReport import_mnist(const std::string& images, const std::string& labels, const std::string& out) {
  check_output(out, std::array{images, labels});
  IdxReader image_file(images, 3), label_file(labels, 1);
  const auto& dims = image_file.dims();
  const std::uint64_t count = dims[0];
  if (count != label_file.dims()[0]) {
    throw DataError(
        fmt::format("{} holds {} images, but {} holds {} labels", images, count, labels, label_file.dims()[0]));
  }
  if (count == 0) throw DataError(fmt::format("{}: holds no images", images));

  // Blocks, so that a header that lies costs no memory; the file is made only after the first block was there.
  const std::uint64_t block = std::clamp<std::uint64_t>((1 << 22) / image_file.row_bytes(), 1, count);
  std::vector<std::byte> pixels(block * image_file.row_bytes()), classes(block);
  image_file.read(pixels, 0);
  label_file.read(classes, 0);
  h5::Writer writer(out);
  const std::array<std::uint64_t, 4> image_dims{count, 1, dims[1], dims[2]};
  const std::array<std::uint64_t, 1> label_dims{count};
  const std::size_t image_set = writer.add("images", StoredType::u8, image_dims);
  const std::size_t label_set = writer.add("labels", StoredType::u8, label_dims);
  int largest = 0;
  for (std::uint64_t row = 0; row < count; row += block) {
    const std::uint64_t rows = std::min(block, count - row);
    if (row > 0) {
      image_file.read(std::span(pixels).first(rows * image_file.row_bytes()), row);
      label_file.read(std::span(classes).first(rows), row);
    }
    for (std::uint64_t i = 0; i < rows; ++i) largest = std::max(largest, static_cast<int>(classes[i]));
    writer.write(image_set, row, rows, pixels.data());
    writer.write(label_set, row, rows, classes.data());
  }
  image_file.finish();
  label_file.finish();
  writer.attribute(image_set, "layout", std::string("NCHW"));
  const ImageSize size{static_cast<std::int64_t>(dims[1]), static_cast<std::int64_t>(dims[2])};
  writer.attribute(image_set, preprocessing_attribute, to_text(ImagePreprocessing{size, 1}));
  const double class_count = largest + 1;
  writer.attribute(label_set, "classes", std::span(&class_count, 1));
  writer.commit();
  return {out, count, static_cast<std::int64_t>(dims[1]), static_cast<std::int64_t>(dims[2]), largest + 1};
}

}  // namespace dtrain::io
