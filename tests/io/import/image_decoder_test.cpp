#include "io/import/image_decoder.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "tests/io/import/image_files.hpp"

namespace dtrain::io {
namespace {

using testing::Bytes;
using testing::bytes_of;
using testing::decode;
using testing::file_of;
using testing::goldens;
using testing::largest_difference;

/// Versions of libjpeg-turbo may round a cosine differently, and libwebp's YUV; the others know no rounding.
int rounding_of(const std::string& name) {
  return name.find("jpeg") != name.npos || name == "webp_lossy" ? 1 : 0;
}

TEST(ImageDecoder, GivesPillowsPixels) {
  ImageDecoder decoder, greys(1);
  for (const auto& [name, golden] : goldens().items()) {
    SCOPED_TRACE(name);
    ASSERT_EQ(decode(decoder, bytes_of(golden.at("file"))), "");
    ASSERT_EQ(decoder.height(), golden.at("height").get<int>());
    ASSERT_EQ(decoder.width(), golden.at("width").get<int>());
    EXPECT_EQ(decoder.frames(), golden.value("frames", 1u));
    EXPECT_LE(largest_difference(decoder.pixels(), bytes_of(golden.at("rgb"))), rounding_of(name));
    EXPECT_EQ(decoder.grey(), name.ends_with("gray") || name.ends_with("bits") || name.ends_with("fax"));
    if (!golden.contains("grey")) continue;
    ASSERT_EQ(decode(greys, bytes_of(golden.at("file"))), "");
    EXPECT_LE(largest_difference(greys.pixels(), bytes_of(golden.at("grey"))), rounding_of(name));
    for (const auto& resized : golden.at("resized")) {
      const ImageSize size{resized.at("height"), resized.at("width"), true, resized.at("shorter")};
      std::vector<std::uint8_t> out(static_cast<std::size_t>(size.height * size.width) * 3);
      decoder.fit(size, out.data());
      EXPECT_LE(largest_difference(out.data(), bytes_of(resized.at("rgb"))), rounding_of(name));
      greys.fit(size, out.data());
      EXPECT_LE(largest_difference(out.data(), bytes_of(resized.at("grey"))), rounding_of(name));
    }
  }
}

Bytes inserted(Bytes file, std::size_t at, std::string_view what) {
  file.insert(file.begin() + static_cast<std::ptrdiff_t>(at), what.begin(), what.end());
  return file;
}
std::size_t place_of(const Bytes& file, std::string_view what) {
  return static_cast<std::size_t>(std::search(file.begin(), file.end(), what.begin(), what.end()) - file.begin());
}

/// What cameras, editors and downloads leave in files, and Pillow reads; the pixels are those of the file without it.
TEST(ImageDecoder, OddButHarmlessHeadersOfJpegsAreRead) {
  using std::string_view_literals::operator""sv;
  const Bytes whole = file_of("jpeg");
  const std::size_t scan = place_of(whole, "\xff\xda"sv), jfif = place_of(whole, "JFIF"sv), end = whole.size() - 2;
  Bytes major = whole, scan_limits = whole, no_jfif = whole;
  major[jfif + 5] = 9;
  scan_limits[scan + 13 - 1] = 1;  // of a progressive file; here they mean nothing
  no_jfif.erase(no_jfif.begin() + 2, no_jfif.begin() + 20);
  const auto adobe = [](char transform) {
    return std::string(
               "\xff\xee\0\x0e"
               "Adobe\0\x64\0\0\0\0",
               15) +
           transform;
  };
  std::string exif(
      "\xff\xe1\xff\xff"
      "Exif\0\0",
      10);
  exif.resize(65535 + 2, 'x');
  const std::pair<const char*, Bytes> odd[] = {
      {"fill bytes before a marker", inserted(whole, 2, "\xff\xff\xff\xff")},
      {"bytes between segments", inserted(whole, scan, "\0\1\2"sv)},
      {"zeros before the end", inserted(whole, end, std::string(20, '\0'))},
      {"zeros behind the end", inserted(whole, whole.size(), std::string(50, '\0'))},
      {"no marker of the end", {whole.begin(), whole.end() - 2}},
      {"half a marker of the end", {whole.begin(), whole.end() - 1}},
      {"an unknown version of JFIF", major},
      {"limits of a scan that no baseline file has", scan_limits},
      {"no JFIF", no_jfif},
      {"an Adobe transform beside JFIF", inserted(whole, 20, adobe(0))},
      {"an Adobe transform in place of JFIF", inserted(no_jfif, 2, adobe(1))},
      {"an unknown Adobe transform", inserted(no_jfif, 2, adobe(7))},
      {"large EXIF", inserted(inserted(whole, 2, exif), 2, exif)},
      {"a damaged colour profile", inserted(whole, 20, "\xff\xe2\0\x14ICC_PROFILE\0\5\1abcd"sv)},
  };
  ImageDecoder decoder;
  for (const auto& [what, file] : odd) {
    ASSERT_EQ(decode(decoder, file), "") << what;
    EXPECT_LE(largest_difference(decoder.pixels(), bytes_of(goldens().at("jpeg").at("rgb"))), 1) << what;
  }
  // The end may be missing only where nothing else can be.
  const Bytes scans = file_of("jpeg_progressive");
  EXPECT_EQ(decode(decoder, {scans.begin(), scans.end() - 2}), "is truncated");
  EXPECT_EQ(decode(decoder, {whole.begin(), whole.end() - 20}), "is truncated");
  EXPECT_EQ(decode(decoder, inserted(whole, 2, "\xff\xd8")), "Invalid JPEG file structure: two SOI markers");
  EXPECT_EQ(decode(decoder, inserted(whole, scan + 40, "\xff\xd3")), "is damaged: some of its pixels cannot be read");
}

TEST(ImageDecoder, CoversASizeOfAnyShape) {
  ImageDecoder decoder;
  ASSERT_EQ(decode(decoder, file_of("png")), "");
  for (const auto& [h, w] : {std::pair{5, 31}, {31, 5}, {18, 25}, {25, 18}, {1, 1}, {18, 24}, {17, 25}}) {
    std::vector<std::uint8_t> out(static_cast<std::size_t>(h * w) * 3 + 1, 77);
    decoder.fit({h, w, true, 0}, out.data());
    EXPECT_EQ(out.back(), 77);
    if (h == 18 && w == 25) EXPECT_EQ(largest_difference(out.data(), bytes_of(goldens().at("png").at("rgb"))), 0);
  }
}

TEST(ImageDecoder, NamesWhatIsBroken) {
  ImageDecoder decoder;
  EXPECT_EQ(decode(decoder, {}), "is empty");
  EXPECT_EQ(decode(decoder, {'G', 'I', 'F', '8', '8', 'a'}), "is no JPEG, PNG, WebP, GIF, BMP or TIFF file");
  for (const std::string name : {"jpeg", "jpeg_progressive", "png", "png_palette", "webp", "webp_lossy", "webp_frames",
                                 "gif", "bmp", "bmp_palette", "tiff", "tiff_lzw", "tiff_fax"}) {
    const auto whole = file_of(name);
    // The last bytes of a PNG, a chunk without content, may lack its checksum; a JPEG and a GIF its end marker.
    for (std::size_t keep = 2; keep + 2 < whole.size(); keep += 1 + keep / 8) {
      EXPECT_NE(decode(decoder, {whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(keep)}), "")
          << name << keep;
    }
    ASSERT_EQ(decode(decoder, whole), "") << "a broken file must not spoil the next";
  }
  auto png = file_of("png");
  png[png.size() / 2] ^= 1;
  EXPECT_NE(decode(decoder, png), "");
  auto huge = file_of("png");  // claims 1 Mi x 1 Mi pixels; its checksum is right
  const unsigned char header[] = {0, 16, 0, 0, 0, 16, 0, 0, 8, 2, 0, 0, 0, 0xc4, 0x4a, 0x37, 0x92};
  std::copy(std::begin(header), std::end(header), huge.begin() + 16);
  EXPECT_HAS(decode(decoder, huge), "too large");
  auto wide = file_of("jpeg");  // 65,500 x 65,500
  for (std::size_t i = 0; i + 9 < wide.size(); ++i) {
    if (static_cast<std::uint8_t>(wide[i]) == 0xff && static_cast<std::uint8_t>(wide[i + 1]) == 0xc0) {
      for (const std::size_t at : {5, 7}) {
        wide[i + at] = static_cast<char>(0xff);
        wide[i + at + 1] = static_cast<char>(0xdc);
      }
      break;
    }
  }
  EXPECT_HAS(decode(decoder, wide), "too large");
  // Sizes that the files cannot hold cost no memory.
  const auto with = [](const char* name, std::size_t at, std::initializer_list<int> bytes) {
    auto file = file_of(name);
    for (const int b : bytes) file[at++] = static_cast<char>(b);
    return file;
  };
  EXPECT_HAS(decode(decoder, with("bmp", 18, {0, 0, 0, 64, 0, 0, 0, 64})), "too large");
  EXPECT_EQ(decode(decoder, with("bmp", 18, {0, 64, 0, 0, 0, 32, 0, 0})), "is truncated");
  EXPECT_EQ(decode(decoder, with("bmp", 18, {0, 0, 0, 0})), "has no pixels");
  EXPECT_HAS(decode(decoder, with("bmp", 28, {77})), "a number of bits, that is not read");
  EXPECT_HAS(decode(decoder, with("gif", 6, {255, 255, 255, 255})), "too large");
  EXPECT_NE(decode(decoder, with("webp", 20, {0xff, 0xff, 0xff})), "");
}

std::string le(std::uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> 8 * i);
  return text;
}
/// 4 x 3 pixels of these bits, with two colours.
Bytes bmp_of(std::uint32_t bits, std::uint32_t compression, const std::string& masks, const std::string& data,
             std::int32_t height = 3) {
  const std::string palette = bits > 8 ? "" : std::string("\1\2\3\0\x10\x20\x30\0", 8);
  const std::size_t begin = 14 + 40 + masks.size() + palette.size();
  const std::string text = "BM" + le(begin + data.size(), 4) + le(0, 4) + le(begin, 4) + le(40, 4) + le(4, 4) +
                           le(static_cast<std::uint32_t>(height), 4) + le(1, 2) + le(bits, 2) + le(compression, 4) +
                           le(data.size(), 4) + le(0, 8) + le(palette.size() / 4, 4) + le(0, 4) + masks + palette +
                           data;
  return {text.begin(), text.end()};
}

/// What Pillow does not write, but others do.
TEST(ImageDecoder, RunsMasksAndRowsFromTheTopOfABmp) {
  ImageDecoder decoder;
  const auto indices = [&] {  // of the palette, the top row first
    std::string rows;
    for (int i = 0; i < 12; ++i)
      rows += decoder.pixels()[3 * i] == 3 ? '.' : decoder.pixels()[3 * i] == 0x30 ? '#' : '?';
    return rows;
  };
  using std::string_literals::operator""s;
  // A run, pixels one by one, the end of a row, a step that leaves pixels out, the end.
  ASSERT_EQ(decode(decoder, bmp_of(8, 1, "", "\3\1\1\0\0\0\0\3\0\1\1\0\0\0\0\2\2\0\1\1\0\1"s)), "");
  EXPECT_EQ(indices(), "..#..##.###.");
  ASSERT_EQ(decode(decoder, bmp_of(4, 2, "", "\4\x10\0\0\0\4\1\1\0\0\4\x11\0\1"s)), "");
  EXPECT_EQ(indices(), "####.#.##.#.");
  EXPECT_EQ(decode(decoder, bmp_of(8, 1, "", "\4\1\0\0\4\1"s)), "is truncated");
  ASSERT_EQ(decode(decoder, bmp_of(1, 0, "", "\x10\0\0\0\x20\0\0\0\x40\0\0\0"s, -3)), "");
  EXPECT_EQ(indices(), "...#..#..#..");
  const std::string pixel = le(0xf81f, 2) + le(0x07e0, 2) + le(0x0010, 2) + le(0, 2);
  ASSERT_EQ(decode(decoder, bmp_of(16, 3, le(0xf800, 4) + le(0x7e0, 4) + le(0x1f, 4), pixel + pixel + pixel)), "");
  const std::vector<int> first(decoder.pixels(), decoder.pixels() + 9);
  EXPECT_EQ(first, (std::vector<int>{255, 0, 255, 0, 255, 0, 0, 0, 131}));
}

}  // namespace
}  // namespace dtrain::io
