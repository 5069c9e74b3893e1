#include "io/weights/safetensors.hpp"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <fmt/format.h>

#include "runtime/random/rng.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"

namespace dtrain::io {
namespace {

using testing::Folder;
using testing::message_of;

constexpr const char* golden = "tests/golden/small.safetensors";

std::string read_all(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void write_all(const std::string& path, const std::string& bytes) {
  std::filesystem::remove(path);  // a file that is cut and written again is flushed to the disk by some file systems
  std::ofstream(path, std::ios::binary) << bytes;
}
std::string file_of(const std::string& header, std::size_t data_bytes) {
  std::string length(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(header.size() >> (8 * i) & 0xff);
  return length + header + std::string(data_bytes, '\0');
}
std::vector<float> floats(SafeTensorsFile& file, const std::string& name) {
  const auto* tensor = file.find(name);
  return tensor ? file.read_floats(*tensor) : std::vector<float>{};
}

TEST(SafeTensors, WhatTheirOwnLibraryWritesIsRead) {
  SafeTensorsFile file(golden);
  EXPECT_EQ(file.metadata(), (SafeTensorsMetadata{{"format", "pt"}, {"who", "golden"}}));
  EXPECT_EQ(file.tensors().size(), 15u);
  const std::vector<float> values{0, 1, 2, 100, 127};
  for (const char* type : {"float64", "float32", "float16", "bfloat16"})
    EXPECT_EQ(floats(file, fmt::format("of.{}", type)), values) << type;
  for (const auto& [type, word, bytes] : {std::tuple("int64", "I64", 8),
                                          {"int32", "I32", 4},
                                          {"int16", "I16", 2},
                                          {"int8", "I8", 1},
                                          {"uint8", "U8", 1},
                                          {"bool", "BOOL", 1}}) {
    const auto* tensor = file.find(fmt::format("of.{}", type));
    ASSERT_TRUE(tensor) << type;
    EXPECT_EQ(tensor->type, word);
    EXPECT_EQ(file.read(*tensor).size(), values.size() * static_cast<std::size_t>(bytes));
  }
  EXPECT_EQ(floats(file, "matrix"), (std::vector<float>{1.5F, -2.25F, 3e-5F, 65504, -0.0F, 1e9F}));
  EXPECT_TRUE(std::signbit(floats(file, "matrix")[4]));
  EXPECT_EQ(file.find("matrix")->shape, (std::vector<std::uint64_t>{2, 3}));
  EXPECT_EQ(floats(file, "halves"), (std::vector<float>{0x1p-24F, 65504, -1.0009765625F}));
  EXPECT_EQ(floats(file, "scalar"), std::vector<float>{7.5F});
  EXPECT_TRUE(file.find("scalar")->shape.empty());
  EXPECT_EQ(file.find("empty")->shape, (std::vector<std::uint64_t>{0, 4}));
  EXPECT_TRUE(floats(file, "empty").empty());
  EXPECT_EQ(floats(file, "a \"name\" of others: ü"), std::vector<float>{1});
  EXPECT_EQ(file.find("absent"), nullptr);
  const auto text = message_of<DataError>([&] { floats(file, "of.int32"); });
  EXPECT_HAS(text, "tensor \"of.int32\" is of type I32");
}

TEST(SafeTensors, WhatIsWrittenIsReadAgain) {
  Folder folder;
  const auto path = folder / "new/a.safetensors";
  const std::vector<float> weight{1, 2, 3, 4, 5, 6};
  const std::vector<std::uint8_t> mask{1, 0, 1};
  {
    SafeTensorsWriter writer(path, {{"weight", "F32", {2, 3}}, {"none", "I64", {0}}, {"mask", "U8", {3}}},
                             {{"configuration", "a: \"b\"\n"}});
    const auto bytes = std::as_bytes(std::span(weight));
    writer.write(bytes.first(7));
    writer.write(bytes.subspan(7));
    writer.write(std::as_bytes(std::span(mask)));
    writer.commit();
  }
  SafeTensorsFile file(path);
  EXPECT_EQ(floats(file, "weight"), weight);
  EXPECT_EQ(file.find("none")->begin, 24u);
  EXPECT_EQ(std::to_integer<int>(file.read(*file.find("mask"))[2]), 1);
  EXPECT_EQ(file.metadata().at("configuration"), "a: \"b\"\n");
  std::uint64_t header = 0;
  std::memcpy(&header, read_all(path).data(), sizeof header);
  EXPECT_EQ(header % 8, 0u) << "tensors lie at multiples of 8 bytes";
}

TEST(SafeTensors, WhatWasNotFinishedLeavesNoFile) {
  Folder folder;
  const auto path = folder / "a.safetensors";
  write_all(path, "older");
  const std::byte some[4] = {};
  {
    SafeTensorsWriter writer(path, {{"weight", "F32", {2}}}, {});
    writer.write(some);
    EXPECT_THROW(writer.commit(), BugError);
  }
  EXPECT_EQ(read_all(path), "older");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder / ""), {}), 1);
  write_all(folder / "file", "x");
  const auto text = message_of<DataError>([&] { SafeTensorsWriter(folder / "file/a", {}, {}); });
  EXPECT_HAS(text, "a file is in its place");
}

TEST(SafeTensors, FaultsOfAHeaderAreNamed) {
  const std::string good = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  const struct {
    std::string header;
    std::size_t data;
    const char* says;
  } cases[] = {
      {"{" + good + "}", 7, "its tensors have 8 bytes, the file has 7 for them: it was cut"},
      {"{" + good + "}", 9, "the others belong to no tensor"},
      {"{" + good + "," + good + "}", 8, "the name \"a\" twice"},
      {R"({"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8, "dtype twice, at \"a\""},
      {R"({"a":{"dtype":"F32","shape":[2]}})", 8, "no data_offsets"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":"b"}})", 8, "a text where none was expected, at"},
      {R"({"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}})", 8, "the unknown type \"F31\""},
      {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8, "shape [3] cannot have 8 bytes"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}})", 0, "cannot have 0 bytes"},
      {R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8, "a number below 0"},
      {R"({"a":{"dtype":"F32","shape":[2.5],"data_offsets":[0,8]}})", 8, "a number that is no integer"},
      {R"({"a":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}})", 8, "a list where a value was expected"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", 8, "data_offsets without two numbers"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}})", 8, "a number where none was expected"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8, "lies at bytes 8 to 0"},
      {"{" + good + R"(,"b":{"dtype":"U8","shape":[8],"data_offsets":[4,12]}})", 12, "\"b\" lies at bytes 4 to 12"},
      {"{" + good + R"(,"b":{"dtype":"U8","shape":[1],"data_offsets":[9,10]}})", 10, "it would begin at 8"},
      {R"({"a":[1]})", 0, "a list where a value was expected"},
      {R"({"a":1})", 0, "a number where none was expected"},
      {R"({"__metadata__":{"a":1}})", 0, "a number where none was expected"},
      {R"({"__metadata__":{"a":{"b":"c"}}})", 0, "an object where a value was expected"},
      {"{" + good, 8, "its header is no JSON: the fault is at byte"},
      {"{" + good + "}x", 8, "its header is no JSON"},
      {" {}", 0, "does not begin with {"},
      {"", 0, "does not begin with {"},
      {"{\"a\":" + std::string(100000, '['), 0, "a list where a value was expected"},
  };
  Folder folder;
  const auto path = folder / "a.safetensors";
  write_all(path, file_of("{" + good + "}   ", 8));
  EXPECT_EQ(SafeTensorsFile(path).tensors().size(), 1u) << "spaces may follow";
  for (const auto& c : cases) {
    write_all(path, file_of(c.header, c.data));
    const auto text = message_of<DataError>([&] { SafeTensorsFile{path}; });
    EXPECT_HAS(text, path + ": cannot be read as safetensors: ");
    EXPECT_HAS(text, c.says);
  }
  write_all(path, "abc");
  EXPECT_HAS(message_of<DataError>([&] { SafeTensorsFile{path}; }), "it has 3 bytes");
  write_all(path, std::string(8, '\x7f'));
  EXPECT_HAS(message_of<DataError>([&] { SafeTensorsFile{path}; }), "longer than the format allows");
  EXPECT_HAS(message_of<DataError>([&] { SafeTensorsFile{folder / "absent"}; }), "No such file");
}

TEST(SafeTensors, TenThousandMutatedHeadersNeverCrash) {
  const std::string good = read_all(golden);
  std::uint64_t header = 0;
  std::memcpy(&header, good.data(), sizeof header);
  Folder folder;
  const auto path = folder / "a.safetensors";
  const auto key = random_key(7, Purpose::test);
  int refused = 0;
  for (std::uint64_t i = 0; i < 10000; ++i) {
    std::string bad = good;
    const auto draw = draw4(key, i, 0, 0);
    const auto place = draw.v[0] % (8 + header);
    switch (draw.v[1] % 4) {
      case 0:
        bad[place] = static_cast<char>(draw.v[2]);
        break;
      case 1:
        bad.erase(place, 1 + draw.v[2] % 20);
        break;
      case 2:
        bad.insert(place, bad, draw.v[2] % header, 1 + draw.v[3] % 20);
        break;
      default:
        bad.resize(place);
    }
    write_all(path, bad);
    try {
      SafeTensorsFile file(path);
      for (const auto& tensor : file.tensors()) file.read(tensor);
    } catch (const DataError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 8000);
}

}  // namespace
}  // namespace dtrain::io
