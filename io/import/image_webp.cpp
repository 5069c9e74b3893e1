#include <algorithm>
#include <memory>

#include <webp/decode.h>
#include <webp/demux.h>

#include "io/import/image_formats.hpp"

namespace dtrain::io {
namespace {

struct Frame {
  WebPIterator at{};
  bool found = false;
  explicit Frame(const WebPDemuxer* of) : found(WebPDemuxGetFrame(of, 1, &at) != 0) {}
  ~Frame() { WebPDemuxReleaseIterator(&at); }
  Frame(const Frame&) = delete;
  Frame& operator=(const Frame&) = delete;
};

}  // namespace

std::string read_webp(ImageFile file, Image& image) {
  const WebPData data{file.data(), file.size()};
  const std::unique_ptr<WebPDemuxer, decltype(&WebPDemuxDelete)> demuxer(WebPDemux(&data), WebPDemuxDelete);
  if (demuxer == nullptr) return "is truncated or damaged";
  const std::uint64_t width = WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_WIDTH),
                      height = WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_HEIGHT);
  image.frames = WebPDemuxGetI(demuxer.get(), WEBP_FF_FRAME_COUNT);
  const Frame first(demuxer.get());
  if (!first.found) return "holds no image";
  // Room for what the first frame really has, before it is believed what the canvas has.
  WebPBitstreamFeatures features{};
  const WebPData& bytes = first.at.fragment;
  if (WebPGetFeatures(bytes.bytes, bytes.size, &features) != VP8_STATUS_OK || features.width != first.at.width ||
      features.height != first.at.height)
    return "is truncated or damaged";
  if (std::string why = image.set_size(height, width); !why.empty()) return why;
  const auto top = static_cast<std::uint64_t>(first.at.y_offset), left = static_cast<std::uint64_t>(first.at.x_offset);
  const std::uint64_t frame_height = static_cast<std::uint64_t>(features.height),
                      frame_width = static_cast<std::uint64_t>(features.width);
  if (top + frame_height > height || left + frame_width > width) return "is damaged: a frame lies outside of the image";
  if (frame_height < height || frame_width < width)
    std::fill(image.pixels.begin(), image.pixels.end(), std::uint8_t{0});
  const std::uint64_t begin = (top * width + left) * 3;
  const bool read = WebPDecodeRGBInto(bytes.bytes, bytes.size, image.pixels.data() + begin, image.pixels.size() - begin,
                                      static_cast<int>(width * 3)) != nullptr;
  return read ? "" : "is truncated or damaged";
}

}  // namespace dtrain::io
