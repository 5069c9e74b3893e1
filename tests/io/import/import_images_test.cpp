#include "io/import/import_images.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "io/dataset/dataset.hpp"
#include "io/dataset/inspect.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"

namespace dtrain::io {
namespace {

using testing::Folder;
using testing::message_of;
using Json = nlohmann::json;

const Json& goldens() {
  static const Json json = Json::parse(std::ifstream("tests/golden/images.json"));
  return json;
}

std::vector<char> bytes_of(const Json& hex) {
  const auto& text = hex.get_ref<const std::string&>();
  std::vector<char> bytes;
  for (std::size_t i = 0; i < text.size(); i += 2)
    bytes.push_back(static_cast<char>(std::strtol(text.substr(i, 2).c_str(), nullptr, 16)));
  return bytes;
}
std::vector<char> file_of(const std::string& name) {
  return bytes_of(goldens().at(name).at("file"));
}

int largest_difference(const std::uint8_t* a, const std::vector<char>& b) {
  int worst = 0;
  for (std::size_t i = 0; i < b.size(); ++i) worst = std::max(worst, std::abs(a[i] - static_cast<std::uint8_t>(b[i])));
  return worst;
}

std::string decode(ImageDecoder& decoder, const std::vector<char>& file) {
  return decoder.decode(std::as_bytes(std::span(file)));
}

void put(const std::string& path, const std::vector<char>& bytes) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  testing::spill(path, bytes);
}

/// A tar of these members, in this order.
void write_tar(const std::string& path, const std::vector<std::pair<std::string, std::vector<char>>>& members,
               bool gzip) {
  archive* a = archive_write_new();
  archive_write_set_format_pax_restricted(a);
  if (gzip) archive_write_add_filter_gzip(a);
  ASSERT_EQ(archive_write_open_filename(a, path.c_str()), ARCHIVE_OK);
  for (const auto& [name, bytes] : members) {
    archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, name.c_str());
    archive_entry_set_size(entry, static_cast<la_int64_t>(bytes.size()));
    archive_entry_set_filetype(entry, name.ends_with('/') ? AE_IFDIR : AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_write_header(a, entry);
    archive_write_data(a, bytes.data(), bytes.size());
    archive_entry_free(entry);
  }
  archive_write_close(a);
  archive_write_free(a);
}

ImageImportReport import(const std::string& source, const std::string& out, const ImageImportOptions& options = {}) {
  return import_images(std::span(&source, 1), out, options);
}
std::string refused(const std::string& source, const std::string& out, const ImageImportOptions& options = {}) {
  const std::string text = message_of([&] { import(source, out, options); });
  EXPECT_FALSE(std::filesystem::exists(out));
  return text;
}

TEST(ImageDecoder, GivesPillowsPixels) {
  ImageDecoder decoder;
  for (const auto& [name, golden] : goldens().items()) {
    SCOPED_TRACE(name);
    ASSERT_EQ(decode(decoder, bytes_of(golden.at("file"))), "");
    ASSERT_EQ(decoder.height(), golden.at("height").get<int>());
    ASSERT_EQ(decoder.width(), golden.at("width").get<int>());
    // Versions of libjpeg-turbo may round a cosine differently; PNG knows no rounding.
    EXPECT_LE(largest_difference(decoder.pixels(), bytes_of(golden.at("rgb"))), name.starts_with("jpeg") ? 1 : 0);
    for (const auto& resized : golden.at("resized")) {
      ImageSize size{resized.at("height"), resized.at("width"), true, resized.at("shorter")};
      std::vector<std::uint8_t> out(static_cast<std::size_t>(size.height * size.width) * 3);
      decoder.fit(size, out.data());
      EXPECT_LE(largest_difference(out.data(), bytes_of(resized.at("rgb"))), name.starts_with("jpeg") ? 1 : 0);
    }
  }
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
  EXPECT_EQ(decode(decoder, {'G', 'I', 'F', '8', '9', 'a'}), "is neither JPEG nor PNG");
  for (const std::string name : {"jpeg", "jpeg_progressive", "png", "png_palette"}) {
    const auto whole = file_of(name);
    // The last bytes of a PNG, a chunk without content, may lack its checksum; a JPEG its end marker.
    for (std::size_t keep = 3; keep + 2 < whole.size(); keep += 1 + keep / 8) {
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
}

TEST(ImportImages, FolderAndArchivesGiveTheSameBytesWithAnyThreads) {
  const Folder folder;
  std::vector<std::pair<std::string, std::vector<char>>> members{{"./", {}}, {"./README.txt", {'h', 'i'}}};
  // Archive order is not the order of names.
  for (const char* name : {"zebra/b.png", "zebra/a.JPG", "ape/2.jpeg", "ape/10.jpg", "Cat/x.png", "Cat/.hidden.jpg"}) {
    members.emplace_back(std::string("./") + name,
                         file_of(std::string(name).find("png") != std::string::npos ? "png" : "jpeg"));
  }
  for (const auto& [name, bytes] : members) {
    if (!name.ends_with('/')) put(folder / ("set/" + name), bytes);
  }
  write_tar(folder / "set.tar", members, false);
  write_tar(folder / "set.tgz", members, true);
  ImageImportOptions options;
  options.threads = 1;
  const auto report = import(folder / "set", folder / "folder.h5", options);
  EXPECT_EQ(report.classes, (std::vector<std::string>{"Cat", "ape", "zebra"}));
  EXPECT_EQ(report.images, 5u);
  EXPECT_EQ(report.ignored, 2u);
  EXPECT_HAS(report.text, "5 images of 18x25x3 (uint8), 3 classes: Cat, ape, zebra");
  EXPECT_HAS(report.text,
             "left out 1 files that are not named like images (README.txt), 1 hidden files (Cat/.hidden.jpg)\n");
  const auto expected = testing::slurp(folder / "folder.h5");
  for (const int threads : {1, 2, 5}) {
    options.threads = threads;
    for (const char* source : {"set", "set.tar", "set.tgz"}) {
      import(folder / source, folder / "again.h5", options);
      EXPECT_EQ(testing::slurp(folder / "again.h5"), expected) << source << " by " << threads;
    }
  }
  const Dataset set(std::vector<std::string>{folder / "folder.h5"});
  EXPECT_EQ(set.port(0).row, (Shape{18, 25, 3}));
  const std::vector<int> labels{0, 1, 1, 2, 2};
  for (std::uint64_t i = 0; i < 5; ++i) EXPECT_EQ(set.label(1, i), labels[i]);
  const auto* first = reinterpret_cast<const std::uint8_t*>(set.row(0, 0, nullptr).data);
  EXPECT_EQ(largest_difference(first, bytes_of(goldens().at("png").at("rgb"))), 0);
  const auto* fourth = reinterpret_cast<const std::uint8_t*>(set.row(0, 3, nullptr).data);
  EXPECT_LE(largest_difference(fourth, bytes_of(goldens().at("jpeg").at("rgb"))), 1);
}

/// The tree as tar would store it: links as links, and a second name of a file as a hard link.
void tar_tree(const std::string& root, const std::string& path) {
  namespace fs = std::filesystem;
  archive* a = archive_write_new();
  archive_write_set_format_pax_restricted(a);
  ASSERT_EQ(archive_write_open_filename(a, path.c_str()), ARCHIVE_OK);
  std::vector<std::pair<std::string, std::string>> first_names;  // of files with several
  std::vector<fs::path> members{fs::recursive_directory_iterator(root), {}};
  std::sort(members.begin(), members.end());
  for (const fs::path& member : members) {
    archive_entry* entry = archive_entry_new();
    const std::string name = fs::relative(member.parent_path(), root) / member.filename();
    archive_entry_set_pathname(entry, ("./" + name).c_str());
    archive_entry_set_perm(entry, 0644);
    std::vector<char> bytes;
    if (fs::is_symlink(member)) {
      archive_entry_set_filetype(entry, AE_IFLNK);
      archive_entry_set_symlink(entry, fs::read_symlink(member).c_str());
    } else if (fs::is_directory(member)) {
      archive_entry_set_filetype(entry, AE_IFDIR);
    } else {
      archive_entry_set_filetype(entry, AE_IFREG);
      bytes = testing::slurp(member);
      for (const auto& [before, stored] : first_names)
        if (fs::equivalent(before, member)) archive_entry_set_hardlink(entry, stored.c_str());
      first_names.emplace_back(member, "./" + name);
      if (archive_entry_hardlink(entry) != nullptr) bytes.clear();
      archive_entry_set_size(entry, static_cast<la_int64_t>(bytes.size()));
    }
    ASSERT_EQ(archive_write_header(a, entry), ARCHIVE_OK) << name;
    archive_write_data(a, bytes.data(), bytes.size());
    archive_entry_free(entry);
  }
  archive_write_close(a);
  archive_write_free(a);
}

/// One rule for a folder and an archive of it: links are followed, what is hidden is left out.
TEST(ImportImages, LinksAndHiddenFoldersAreTheSameInAnArchive) {
  namespace fs = std::filesystem;
  const Folder folder;
  const auto png = file_of("png"), jpeg = file_of("jpeg");
  for (int i = 0; i < 3; ++i) put(folder / fmt::format("set/a/{}.png", i), png);
  put(folder / "set/a/3.jpg", jpeg);
  put(folder / "set/.ipynb_checkpoints/0.png", png);
  put(folder / "set/a/.cache/deep/0.png", png);
  put(folder / "set/a/4.webp", png);
  put(folder / "set/.store/blob", jpeg);
  fs::create_directories(folder / "set/b");
  fs::create_directories(folder / "set/c");
  for (int i = 0; i < 4; ++i) {
    const std::string name = i == 3 ? "3.jpg" : fmt::format("{}.png", i);
    fs::create_hard_link(folder / ("set/a/" + name), folder / ("set/b/h" + name));
    fs::create_symlink("../a/" + name, folder / ("set/c/s" + name));
  }
  fs::create_symlink("../c/s3.jpg", folder / "set/b/twice.jpg");
  fs::create_symlink("../.store/blob", folder / "set/c/blob.jpg");
  fs::create_directory_symlink("b", folder / "set/d");
  tar_tree(folder / "set", folder / "set.tar");
  const auto of_folder = import(folder / "set", folder / "folder.h5"),
             of_tar = import(folder / "set.tar", folder / "tar.h5");
  EXPECT_EQ(of_folder.classes, (std::vector<std::string>{"a", "b", "c", "d"}));
  EXPECT_EQ(of_folder.images, 4u + 5 + 5 + 5);
  EXPECT_EQ(of_tar.images, of_folder.images);
  EXPECT_TRUE(testing::slurp(folder / "folder.h5") == testing::slurp(folder / "tar.h5"));
  const auto left_out = [](const std::string& text) { return text.substr(text.find("left out")); };
  EXPECT_HAS(left_out(of_folder.text), "left out 3 hidden folders (");
  EXPECT_HAS(left_out(of_folder.text), "), 1 images of formats that dtrain does not read (a/4.webp)\n");
  EXPECT_HAS(left_out(of_tar.text), "left out 3 hidden folders (");
  EXPECT_HAS(left_out(of_tar.text), "1 images of formats that dtrain does not read (a/4.webp)");

  // Links that lead nowhere are broken files in both, and circles end.
  fs::create_symlink("../nowhere.png", folder / "set/c/z.png");
  fs::create_symlink("/etc/absent.png", folder / "set/c/y.png");
  tar_tree(folder / "set", folder / "set.tar");
  for (const char* source : {"set", "set.tar"}) {
    EXPECT_HAS(refused(folder / source, folder / "x.h5"), "2 broken files (");
    EXPECT_HAS(refused(folder / source, folder / "x.h5"), "c/y.png: ");
    ImageImportOptions options;
    options.on_error = OnError::drop;
    EXPECT_EQ(import(folder / source, folder / "dropped.h5", options).images, of_folder.images);
  }
  fs::create_directory_symlink("..", folder / "set/c/up");
  tar_tree(folder / "set", folder / "set.tar");
  for (const char* source : {"set", "set.tar"})
    EXPECT_HAS(refused(folder / source, folder / "x.h5"), "folders lie too deep, or in a circle of links");
}

/// A class folder without an image that can be read would move the labels of the others.
TEST(ImportImages, AClassThatWouldVanishIsAnError) {
  const Folder folder;
  for (const char* name : {"set/ant/1.webp", "set/bee/1.png", "set/cat/1.png"}) put(folder / name, file_of("png"));
  std::filesystem::create_directories(folder / "set/dog");
  put(folder / "split/train/notes/xml/1.xml", {'x'});
  put(folder / "split/train/a/1.png", file_of("png"));
  put(folder / "split/test/b/1.txt", file_of("png"));
  tar_tree(folder / "set", folder / "set.tar");
  tar_tree(folder / "split", folder / "split.tar");
  for (const char* source : {"set", "set.tar"}) {
    const std::string text = refused(folder / source, folder / "x.h5");
    EXPECT_HAS(text, "2 class folders hold no JPEG or PNG file: ant, dog (ant/1.webp is a file of another kind)");
  }
  ImageImportOptions options;
  options.split = "train";
  for (const char* source : {"split", "split.tar"})
    EXPECT_EQ(import(folder / source, folder / "y.h5", options).classes, std::vector<std::string>{"a"});
}

TEST(ImportImages, TakesOneSplitOfSeveral) {
  const Folder folder;
  const auto jpeg = file_of("jpeg");
  write_tar(folder / "s.tar",
            {{"top/train/a/1.jpg", jpeg},
             {"top/test/a/1.jpg", jpeg},
             {"top/train/b/1.jpg", jpeg},
             {"top/test/b/2.jpg", jpeg},
             {"top/test/b/3.jpg", jpeg}},
            true);
  ImageImportOptions options;
  options.split = "test";
  EXPECT_EQ(import(folder / "s.tar", folder / "t.h5", options).images, 3u);
  EXPECT_HAS(refused(folder / "s.tar", folder / "x.h5"),
             "several places (top/test, top/train); choose one with --split");
  options.split = "val";
  EXPECT_HAS(refused(folder / "s.tar", folder / "x.h5", options),
             "no split val in SPLIT/CLASS/FILE; there is test, train");
}

TEST(ImportImages, BrokenFilesAreCountedNamedRefusedOrDropped) {
  const Folder folder;
  const auto jpeg = file_of("jpeg");
  const std::vector<char> cut(jpeg.begin(), jpeg.end() - 200);
  for (int i = 0; i < 150; ++i) put(folder / fmt::format("set/c{}/{:03}.jpg", i % 3, i), i % 25 == 7 ? cut : jpeg);
  put(folder / "set/c1/empty.png", {});
  ImageImportOptions options;
  options.threads = 3;
  const std::string text = refused(folder / "set", folder / "x.h5", options);
  EXPECT_HAS(text, "7 broken files (");
  EXPECT_HAS(text, "set/c0/057.jpg: ");  // the first in order, whatever the threads
  EXPECT_HAS(text, "and 4 more)");
  EXPECT_HAS(text, "--on-error drop");
  options.on_error = OnError::drop;
  const auto report = import(folder / "set", folder / "d.h5", options);
  EXPECT_EQ(report.images, 144u);
  EXPECT_EQ(report.dropped, 7u);
  EXPECT_HAS(report.text, "dropped 7 broken files");
  const Dataset set(std::vector<std::string>{folder / "d.h5"});
  ASSERT_EQ(set.count(), 144u);
  for (std::uint64_t i = 0; i < 144; ++i) {
    const auto* pixels = reinterpret_cast<const std::uint8_t*>(set.row(0, i, nullptr).data);
    ASSERT_LE(largest_difference(pixels, bytes_of(goldens().at("jpeg").at("rgb"))), 1);
  }
  for (const auto& entry : std::filesystem::directory_iterator(folder / ""))
    EXPECT_EQ(entry.path().string().find(".tmp"), std::string::npos) << entry.path();
}

TEST(ImportImages, OtherSizesNeedResize) {
  const Folder folder;
  put(folder / "set/a/1.png", file_of("png"));
  put(folder / "set/a/2.png", file_of("png"));
  const Folder other;
  ImageDecoder decoder;
  write_tar(folder / "more.tar", {{"a/big.jpg", file_of("jpeg")}}, false);
  ImageImportOptions options;
  options.size.height = options.size.width = 16;
  EXPECT_HAS(refused(folder / "set", folder / "x.h5", options), "2 images of another size (");
  EXPECT_HAS(refused(folder / "set", folder / "x.h5", options), "set/a/1.png: 18 x 25; ");
  EXPECT_HAS(refused(folder / "set", folder / "x.h5", options), "--resize");
  options.size.resize = true;
  const auto report = import(folder / "set", folder / "r.h5", options);
  EXPECT_EQ(report.height, 16);
  options.size.shorter = 8;
  EXPECT_THROW(import(folder / "set", folder / "x.h5", options), ConfigError);
  options.size = {0, 0, true, 0};
  EXPECT_THROW(import(folder / "set", folder / "x.h5", options), ConfigError);
}

TEST(ImportImages, DamagedAndHostileArchives) {
  const Folder folder;
  const auto jpeg = file_of("jpeg");
  write_tar(folder / "a.tgz", {{"a/1.jpg", jpeg}, {"b/2.jpg", jpeg}, {"b/3.jpg", jpeg}}, true);
  const auto whole = testing::slurp(folder / "a.tgz");
  for (const std::size_t keep : {whole.size() - 9, whole.size() / 2, std::size_t{20}, std::size_t{0}}) {
    testing::spill(folder / "cut.tgz", {whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(keep)});
    EXPECT_HAS(refused(folder / "cut.tgz", folder / "x.h5"), "cut.tgz: ");
  }
  testing::spill(folder / "text.tar", std::vector<char>(3000, 'x'));
  EXPECT_HAS(refused(folder / "text.tar", folder / "x.h5"), "tar archive");
  write_tar(folder / "twice.tar", {{"a/1.jpg", jpeg}, {"a/1.jpg", jpeg}}, false);
  EXPECT_HAS(refused(folder / "twice.tar", folder / "x.h5"), "twice.tar: a/1.jpg: is there twice");
  write_tar(folder / "flat.tar", {{"1.jpg", jpeg}}, false);
  EXPECT_HAS(refused(folder / "flat.tar", folder / "x.h5"), "1.jpg lies in no class folder");
  write_tar(folder / "none.tar", {{"a/1.txt", jpeg}}, false);
  EXPECT_HAS(refused(folder / "none.tar", folder / "x.h5"), "holds no images");
  write_tar(folder / "up.tar", {{"../../a/1.jpg", jpeg}}, false);
  EXPECT_EQ(import(folder / "up.tar", folder / "up.h5").images, 1u);  // a name, and nothing is written there
  EXPECT_HAS(refused(folder / "absent", folder / "x.h5"), "no such file or folder");
  put(folder / "bad/a/1.jpg", {'x'});
  EXPECT_HAS(refused(folder / "bad", folder / "x.h5"), "none of the 1 files is an image that can be read");
}

TEST(ImportImages, CompressedWhereAsked) {
  const Folder folder;
  for (int i = 0; i < 20; ++i) put(folder / fmt::format("set/a/{}.png", i), file_of("png"));
  ImageImportOptions options;
  options.storage = {8, 3};
  import(folder / "set", folder / "c.h5", options);
  EXPECT_HAS(inspect(folder / "c.h5").text, "/images uint8 [20, 18, 25, 3]  chunked [8, 18, 25, 3], gzip");
  EXPECT_HAS(inspect(folder / "c.h5").text, "/class_names string [1]");
}

}  // namespace
}  // namespace dtrain::io
