#include "io/import/import_images.hpp"

#include <algorithm>
#include <filesystem>

#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>

#include "io/dataset/dataset.hpp"
#include "io/dataset/inspect.hpp"
#include "io/import/repack.hpp"
#include "tests/io/import/image_files.hpp"

namespace dtrain::io {
namespace {

using testing::bytes_of;
using testing::file_of;
using testing::Folder;
using testing::goldens;
using testing::largest_difference;
using testing::message_of;
using testing::put;

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
  EXPECT_HAS(report.text, "left out 1 file not named like an image (README.txt), 1 hidden file (Cat/.hidden.jpg)\n");
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
  put(folder / "set/a/4.heic", png);
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
  EXPECT_HAS(left_out(of_folder.text), "), 1 image of a format that dtrain does not read (a/4.heic)\n");
  EXPECT_HAS(left_out(of_tar.text), "left out 3 hidden folders (");
  EXPECT_HAS(left_out(of_tar.text), "1 image of a format that dtrain does not read (a/4.heic)");

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
  for (const char* name : {"set/ant/1.heic", "set/bee/1.png", "set/cat/1.png"}) put(folder / name, file_of("png"));
  std::filesystem::create_directories(folder / "set/dog");
  put(folder / "split/train/notes/xml/1.xml", {'x'});
  put(folder / "split/train/a/1.png", file_of("png"));
  put(folder / "split/test/b/1.txt", file_of("png"));
  tar_tree(folder / "set", folder / "set.tar");
  tar_tree(folder / "split", folder / "split.tar");
  for (const char* source : {"set", "set.tar"}) {
    const std::string text = refused(folder / source, folder / "x.h5");
    EXPECT_HAS(text,
               "2 class folders hold no image that dtrain reads: ant, dog (ant/1.heic is a file of another kind)");
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
  // By reason, and the first of each in order, whatever the threads.
  EXPECT_HAS(text, "set/c0/057.jpg: is truncated, and 5 more like it; ");
  EXPECT_HAS(text, "set/c1/empty.png: is empty)");
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
  write_tar(folder / "more.tar", {{"a/big.jpg", file_of("jpeg")}}, false);
  ImageImportOptions options;
  options.how.size.height = options.how.size.width = 16;
  EXPECT_HAS(refused(folder / "set", folder / "x.h5", options), "2 images of another size (");
  EXPECT_HAS(refused(folder / "set", folder / "x.h5", options), "set/a/1.png: 18 x 25; ");
  EXPECT_HAS(refused(folder / "set", folder / "x.h5", options), "--resize");
  options.how.size.resize = true;
  const auto report = import(folder / "set", folder / "r.h5", options);
  EXPECT_EQ(report.height, 16);
  options.how.size.shorter = 8;
  EXPECT_THROW(import(folder / "set", folder / "x.h5", options), ConfigError);
  options.how.size = {0, 0, true, 0};
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

/// Each reason is counted, with one file that shows it.
TEST(ImportImages, WhyNoFileCanBeRead) {
  const Folder folder;
  const auto jpeg = file_of("jpeg");
  put(folder / "set/a/0.jpg", {'<', 'h', 't', 'm', 'l', '>'});
  for (int i = 1; i < 4; ++i) put(folder / fmt::format("set/a/{}.png", i), {});
  for (int i = 4; i < 6; ++i) put(folder / fmt::format("set/b/{}.jpg", i), {jpeg.begin(), jpeg.end() - 100});
  const std::string reasons =
      "a/0.jpg: is no JPEG, PNG, WebP, GIF, BMP or TIFF file; {0}a/1.png: is empty, and 2 more like it; "
      "{0}b/4.jpg: is truncated, and 1 more like it)";
  tar_tree(folder / "set", folder / "set.tar");
  for (const std::string source : {"set", "set.tar"}) {
    const std::string at = folder / source, sep = source == "set" ? "/" : ": ";
    EXPECT_HAS(refused(at, folder / "x.h5"),
               at + ": none of the 6 files is an image that can be read: 6 broken files (" + at + sep +
                   fmt::format(fmt::runtime(reasons), at + sep));
    ImageImportOptions options;
    options.how.size = {8, 8, true, 0};
    options.on_error = OnError::drop;
    EXPECT_HAS(refused(at, folder / "x.h5", options), "no image is left: 6 broken files (" + at + sep + "a/0.jpg: ");
  }
}

/// A reason with numbers is the same reason with other ones; kinds have their plural.
TEST(ImportFindings, AreCountedByReasonWhateverTheThreads) {
  Findings whole, halves[2];
  for (std::uint64_t i = 0; i < 200; ++i) {
    const std::string where = fmt::format("f{}", i),
                      why = i % 2 == 0 ? fmt::format("byte {} of {} is bad", i, 7 * i) : "is empty";
    for (Findings* findings : {&whole, &halves[i % 3 == 0 ? 1 : 0]}) findings->add("broken file*", i, where, why);
  }
  halves[0].merge(halves[1]);
  EXPECT_EQ(whole.text(),
            "200 broken files (f0: byte 0 of 0 is bad, and 99 more like it; f1: is empty, and 99 more like it)");
  EXPECT_EQ(halves[0].text(), whole.text());
  Findings one;
  one.add("broken file*", 3, "f", "is empty");
  one.add("hidden folder*", 1, ".git");
  EXPECT_EQ(one.text(), "1 broken file (f: is empty), 1 hidden folder (.git)");
  Findings many;  // of files that were made to have as many reasons
  for (std::uint64_t i = 0; i < 5000; ++i) many.add("broken file*", i, "f", std::string(i + 1, 'x'));
  EXPECT_HAS(many.text(), "5000 broken files (f");
  EXPECT_HAS(many.text(), "; and ");
  EXPECT_EQ(many.count(), 5000u);
}

/// The same pictures in every format, and grey where that is asked for.
TEST(ImportImages, FormatsChannelsAndFrames) {
  const Folder folder;
  const char* const names[] = {"webp.webp",     "gif.GIF",        "bmp.bmp",        "tiff.tif",
                               "tiff_lzw.tiff", "gif_frames.gif", "tiff_frames.tif"};
  for (const std::string name : names) put(folder / ("set/a/" + name), file_of(name.substr(0, name.find('.'))));
  put(folder / "set/b/a.jpg", file_of("bmp"));  // another name than its format
  tar_tree(folder / "set", folder / "set.tar");
  ImageImportOptions options;
  for (const int channels : {3, 1}) {
    options.how.channels = channels;
    const auto report = import(folder / "set", folder / "f.h5", options);
    EXPECT_HAS(report.text,
               fmt::format("8 images of 10x11x{} (uint8), 2 classes: a, b\ntook the first frame of 2 images with "
                           "several (",
                           channels));
    EXPECT_HAS(report.text, "set/a/gif_frames.gif: 3; ");
    EXPECT_EQ(report.text.find("grey"), std::string::npos);
    import(folder / "set.tar", folder / "t.h5", options);
    EXPECT_TRUE(testing::slurp(folder / "f.h5") == testing::slurp(folder / "t.h5"));
    const Dataset set(std::vector<std::string>{folder / "f.h5"});
    EXPECT_EQ(set.port(0).row, (Shape{10, 11, channels}));
    EXPECT_EQ(set.descriptions()[0].preprocessing, fmt::format("--size 10 11 --channels {}", channels));
    ASSERT_EQ(set.file_names().size(), 8u);
    EXPECT_EQ(set.file_names()[0], "a/bmp.bmp");
    EXPECT_EQ(set.file_names()[7], "b/a.jpg");
    const auto* bmp = reinterpret_cast<const std::uint8_t*>(set.row(0, 0, nullptr).data);
    const auto* tiff = reinterpret_cast<const std::uint8_t*>(set.row(0, 3, nullptr).data);
    EXPECT_TRUE(std::equal(bmp, bmp + 110 * channels, tiff));
  }
  put(folder / "grey/a/1.png", file_of("png_gray"));
  put(folder / "grey/a/2.png", file_of("png_bits"));
  options.how.channels = 3;
  const auto grey = import(folder / "grey", folder / "g.h5", options);
  EXPECT_HAS(grey.text,
             "2 images of 18x25x3 (uint8), 1 class: a\nevery pixel of these images is grey: --channels 1 stores");
}

/// Through shuffling, sharding and joining, and into a checkpoint.
TEST(ImportImages, NamesOfFilesFollowTheirRows) {
  const Folder folder;
  for (int i = 0; i < 24; ++i) put(folder / fmt::format("set/{}/{}.png", "abc"[i % 3], i), file_of("png_gray"));
  import(folder / "set", folder / "f.h5");
  RepackOptions cut, joined;
  cut.shards = 5;
  cut.shuffle = 1;
  repack(std::vector<std::string>{folder / "f.h5"}, folder / "s.h5", cut);
  joined.shuffle = 2;
  repack(std::vector<std::string>{folder / "s-*.h5"}, folder / "j.h5", joined);
  for (const char* files : {"s-*.h5", "j.h5"}) {
    const Dataset set(std::vector<std::string>{folder / files});
    const auto names = set.file_names();
    ASSERT_EQ(names.size(), 24u);
    EXPECT_FALSE(std::is_sorted(names.begin(), names.end()));
    for (std::uint64_t i = 0; i < 24; ++i) EXPECT_EQ(names[i][0], "abc"[set.label(1, i)]) << i;
    const auto back = descriptions_from(to_text(set.descriptions()), "checkpoint c");
    ASSERT_NE(find_description(back, PortUse::input, "input"), nullptr);
    EXPECT_EQ(find_description(back, PortUse::input, "input")->preprocessing, "--size 18 25 --channels 3");
  }
  testing::write_images(folder / "plain.h5", 3);
  EXPECT_TRUE(Dataset(std::vector<std::string>{folder / "plain.h5"}).file_names().empty());
}

/// Images without classes, at any depth, and named one by one.
TEST(ImportImages, WithoutLabels) {
  const Folder folder;
  for (const char* name : {"set/2.png", "set/deep/er/1.png", "set/.hidden/3.png", "set/notes.txt"})
    put(folder / name, file_of("png"));
  tar_tree(folder / "set", folder / "set.tar");
  ImageImportOptions options;
  options.labels = false;
  const auto report = import(folder / "set", folder / "f.h5", options);
  EXPECT_HAS(report.text,
             "f.h5: 2 images of 18x25x3 (uint8)\nleft out 1 file not named like an image (notes.txt), 1 hidden folder");
  import(folder / "set.tar", folder / "t.h5", options);
  EXPECT_TRUE(testing::slurp(folder / "f.h5") == testing::slurp(folder / "t.h5"));
  const Dataset set(std::vector<std::string>{folder / "f.h5"});
  EXPECT_EQ(set.ports().size(), 1u);
  EXPECT_EQ(set.file_names(), (std::vector<std::string>{"2.png", "deep/er/1.png"}));
  // Several sources: names say of which.
  const std::vector<std::string> sources{folder / "set.tar", folder / "set/deep/er/1.png", folder / "set/2.png"};
  options.key = "photo";
  import_images(sources, folder / "s.h5", options);
  EXPECT_EQ(
      Dataset(std::vector<std::string>{folder / "s.h5"}, {.ports = {{.name = "photo"}}}).file_names(),
      (std::vector<std::string>{folder / "set.tar: 2.png", folder / "set.tar: deep/er/1.png", sources[2], sources[1]}));
  options.split = "train";
  EXPECT_THROW(import(folder / "set", folder / "x.h5", options), ConfigError);
  options.split.clear();
  EXPECT_HAS(refused(folder / "set/.hidden/3.txt", folder / "x.h5", options), "no such file");
  std::filesystem::create_directories(folder / "empty");
  EXPECT_HAS(refused(folder / "empty", folder / "x.h5", options), "holds no images; expected FILE.jpg");
  for (const char* images : {"a.png", "a.b.TIFF", "x.tar.gz", "x.tgz"}) EXPECT_TRUE(holds_images(images));
  EXPECT_TRUE(holds_images(folder / "set"));
  for (const char* other : {"a.h5", "png", ".png", "x.gz"}) EXPECT_FALSE(holds_images(other));
}

TEST(ImportImages, PreprocessingIsKeptAsText) {
  const ImagePreprocessing all[] = {{{224, 200, true, 256}, 3}, {{32, 32, true, 0}, 1}, {{28, 28, false, 0}, 1}};
  const char* const texts[] = {"--size 224 200 --resize 256 --channels 3", "--size 32 32 --resize --channels 1",
                               "--size 28 28 --channels 1"};
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(to_text(all[i]), texts[i]);
    const auto read = preprocessing_in(texts[i]);
    ASSERT_TRUE(read);
    EXPECT_EQ(to_text(*read), texts[i]);
    EXPECT_EQ(read->size.shorter, all[i].size.shorter);
  }
  for (const char* text : {"", "--size 8", "--size 8 8", "--size 8 8 --channels 2", "--size 0 8 --channels 1",
                           "--size 99999999 8 --channels 1", "--size 8 8 --resize 4 --channels 3",
                           "--size 8 8 --crop 3 --channels 3", "resized"})
    EXPECT_FALSE(preprocessing_in(text)) << text;
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
