// Starts the kernel that loads images.
#include "runtime/cuda/update/images.hpp"

namespace dtrain::cuda {

void load_images(const Launch& where, Element element, const ImageFormat& format, const ImageBatch& batch) {
  constexpr std::int64_t most_slices = 4, least_pixels = 2048;
  const std::int64_t pixels = static_cast<std::int64_t>(format.height) * format.width;
  std::int64_t slices = divide_up(pixels, least_pixels);
  if (slices > most_slices) slices = most_slices;
  const std::int64_t slice = divide_up(pixels, slices);
  with_element(element, [&](auto tag) {
    launch(where, batch.n * slices, LoadImagesBody<decltype(tag)>{format, batch, slices, slice, typed(batch.out)});
  });
}

}  // namespace dtrain::cuda
