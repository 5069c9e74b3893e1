// What files say of their classes and columns, and how rows of one are read in the numbers of another.
#include "io/dataset/description.hpp"

#include <cstring>
#include <string>
#include <vector>

#include "io/dataset/dataset.hpp"
#include "io/dataset/loader.hpp"
#include "io/hdf5/names.hpp"
#include "io/import/repack.hpp"
#include "tests/io/dataset/port_files.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"

namespace dtrain::io {
namespace {

using testing::add;
using testing::Folder;
using testing::H5File;
using testing::message_of;

using Names = std::vector<std::string>;

/// As h5py writes a list of str (of variable length), or an array of bytes.
void add_names(H5File& file, const std::string& name, const Names& names, bool variable = false) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, variable ? H5T_VARIABLE : 5);
  const hsize_t count = names.size();
  const hid_t space = H5Screate_simple(1, &count, nullptr);
  const hid_t set = H5Dcreate2(file.id(), name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  std::vector<const char*> pointers;
  std::vector<char> fixed(5 * names.size(), '\0');
  for (const std::string& n : names) {
    n.copy(fixed.data() + 5 * pointers.size(), 5);
    pointers.push_back(n.c_str());
  }
  H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT,
           variable ? static_cast<const void*>(pointers.data()) : static_cast<const void*>(fixed.data()));
  H5Dclose(set);
  H5Sclose(space);
  H5Tclose(type);
}

void add_attribute(H5File& file, const std::string& set, const std::string& name, const std::string& text) {
  const hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
  H5Tset_size(type, text.size());
  const hid_t at = H5Dopen2(file.id(), set.c_str(), H5P_DEFAULT);
  const hid_t attribute = H5Acreate2(at, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT);
  H5Awrite(attribute, type, text.data());
  H5Aclose(attribute);
  H5Dclose(at);
  H5Sclose(space);
  H5Tclose(type);
}

class Descriptions : public ::testing::Test {
 protected:
  /// x f32 [n, columns], value 10 i + what its column is: 'a' 0, 'b' 1, ...; y u8 [n].
  void write(const std::string& name, const std::vector<std::uint8_t>& labels, const Names& classes,
             const std::string& columns = "ab", bool variable = false) {
    H5File file(folder_ / name);
    std::vector<float> x;
    for (std::size_t i = 0; i < labels.size(); ++i)
      for (const char c : columns) x.push_back(static_cast<float>(10 * i) + static_cast<float>(c - 'a'));
    add(file, "x", {labels.size(), columns.size()}, x);
    add(file, "y", {labels.size()}, labels);
    Names names;
    for (const char c : columns) names.emplace_back(1, c);
    add_names(file, "feature_names", names, variable);
    if (!classes.empty()) add_names(file, "class_names", classes, variable);
  }
  Dataset open(const Names& files, const std::vector<Description>& reference = {}, double cache_mib = 1) {
    Names paths;
    for (const std::string& f : files) paths.push_back(folder_ / f);
    DatasetOptions options;
    options.reference = reference;
    options.cache_mib = cache_mib;
    return Dataset(paths, options);
  }
  std::string refused(const Names& files, const std::vector<Description>& reference = {}) {
    return message_of([&] { open(files, reference); });
  }
  static std::vector<int> labels(const Dataset& set) {
    std::vector<int> all;
    for (std::uint64_t i = 0; i < set.count(); ++i) all.push_back(set.label(1, i));
    return all;
  }
  static std::vector<float> row(const Dataset& set, std::uint64_t i) {
    std::vector<float> values(static_cast<std::size_t>(set.port(0).row[0]));
    std::vector<std::byte> scratch(set.port(0).row_bytes);
    std::memcpy(values.data(), set.row(0, i, scratch.data()).data, set.port(0).row_bytes);
    return values;
  }
  Folder folder_;
};

TEST_F(Descriptions, ClassesOfEvaluationAreThoseOfTrainingByName) {
  write("train.h5", {0, 1, 2}, {"ant", "bee", "cat"});
  write("val.h5", {0, 1, 0}, {"bee", "cat"}, "ab", true);
  const Dataset train = open({"train.h5"});
  EXPECT_EQ(train.descriptions()[1].names, (Names{"ant", "bee", "cat"}));
  const Dataset val = open({"val.h5"}, train.descriptions());
  EXPECT_EQ(labels(val), (std::vector<int>{1, 2, 1}));
  EXPECT_EQ(val.port(1).class_count, 3);
  EXPECT_EQ(labels(open({"val.h5"})), (std::vector<int>{0, 1, 0})) << "alone it has its own numbers";
  // What says nothing is taken as it is.
  write("plain.h5", {0, 1, 2}, {});
  EXPECT_EQ(labels(open({"plain.h5"}, train.descriptions())), (std::vector<int>{0, 1, 2}));
  write("other.h5", {0, 1, 1}, {"bee", "dog"});
  const std::string text = refused({"other.h5"}, train.descriptions());
  EXPECT_HAS(text, "other.h5: /y has the classes bee, dog, but ");
  EXPECT_HAS(text, "train.h5: /y has ant, bee, cat: dog is not among the second");
  write("twice.h5", {0, 1, 1}, {"bee", "bee"});
  EXPECT_HAS(refused({"twice.h5"}, train.descriptions()), "bee stands in the first twice");
  write("unnamed.h5", {0, 2, 1}, {"bee", "cat"});
  EXPECT_HAS(refused({"unnamed.h5"}, train.descriptions()), "unnamed.h5: /y, row 1: the label is 2, for which");
}

TEST_F(Descriptions, ShardsAreReadInTheNumbersOfTheOneThatNamesAll) {
  write("a.h5", {0, 1}, {"bee", "cat"});
  write("b.h5", {2, 1, 0}, {"ant", "bee", "cat"});
  for (const double cache : {0., 1.}) {
    const Dataset set = open({"a.h5", "b.h5"}, {}, cache);
    EXPECT_EQ(labels(set), (std::vector<int>{1, 2, 2, 1, 0}));
    EXPECT_EQ(set.descriptions()[1].names, (Names{"ant", "bee", "cat"}));
  }
  write("c.h5", {0, 1}, {"ant", "dog"});
  EXPECT_HAS(refused({"a.h5", "c.h5"}), "c.h5: /y has the classes ant, dog, but ");
}

TEST_F(Descriptions, ColumnsAreMatchedByName) {
  write("train.h5", {0, 1}, {}, "abcd");
  write("test.h5", {0, 1, 1}, {}, "cdba", true);
  write("less.h5", {0, 1}, {}, "abc");
  write("other.h5", {0, 1}, {}, "abce");
  const Dataset train = open({"train.h5"});
  for (const double cache : {0., 1.}) {
    const Dataset test = open({"test.h5"}, train.descriptions(), cache);
    for (std::uint64_t i = 0; i < 3; ++i) {
      const auto first = static_cast<float>(10 * i);
      EXPECT_EQ(row(test, i), (std::vector<float>{first, first + 1, first + 2, first + 3})) << i << ", " << cache;
    }
    const Dataset both = open({"train.h5", "test.h5"}, {}, cache);
    EXPECT_EQ(row(both, 3), (std::vector<float>{10, 11, 12, 13}));
  }
  EXPECT_HAS(refused({"other.h5"}, train.descriptions()), "other.h5: /x has the columns a, b, c, e, but " +
                                                              (folder_ / "train.h5") +
                                                              ": /x has a, b, c, d: e is not among the second");
  EXPECT_HAS(refused({"less.h5"}, train.descriptions()), "has a, b, c, d: d is not among the first");
}

/// Label maps are read row by row; what is ignored stays.
TEST_F(Descriptions, LabelMapsHaveClassesToo) {
  const auto put = [&](const std::string& name, const Names& classes, const std::vector<std::uint8_t>& map) {
    H5File file(folder_ / name);
    add(file, "x", {1, 2, 2}, std::vector<float>(4, 1.f));
    add(file, "map", {1, 2, 2}, map);
    add_names(file, "class_names", classes);
  };
  put("train.h5", {"road", "sky", "tree"}, {0, 1, 2, 255});
  put("eval.h5", {"tree", "road"}, {0, 1, 0, 255});
  put("bad.h5", {"tree", "road"}, {0, 1, 2, 255});
  DatasetOptions options;
  options.ports = {{.name = "x"}, {.name = "map", .use = PortUse::target, .index = true, .ignore = 255}};
  options.reference = Dataset(Names{folder_ / "train.h5"}, options).descriptions();
  for (const double cache : {0., 1.}) {
    options.cache_mib = cache;
    const Dataset eval(Names{folder_ / "eval.h5"}, options);
    std::byte scratch[4];
    std::uint8_t read[4];
    std::memcpy(read, eval.row(1, 0, scratch).data, 4);
    EXPECT_EQ(std::vector<int>(read, read + 4), (std::vector<int>{2, 0, 2, 255}));
  }
  EXPECT_HAS(message_of([&] { Dataset(Names{folder_ / "bad.h5"}, options); }), "bad.h5: /map, row 0: it has a label");
}

TEST_F(Descriptions, RepackJoinsByName) {
  write("a.h5", {0, 1}, {"bee", "cat"}, "ba");
  write("b.h5", {2, 1, 0}, {"ant", "bee", "cat"});
  const Names files{folder_ / "a.h5", folder_ / "b.h5"};
  repack(files, folder_ / "all.h5", {});
  const Dataset set = open({"all.h5"});
  EXPECT_EQ(labels(set), (std::vector<int>{1, 2, 2, 1, 0}));
  EXPECT_EQ(set.descriptions()[1].names, (Names{"ant", "bee", "cat"}));
  EXPECT_EQ(set.descriptions()[0].names, (Names{"b", "a"}));
  EXPECT_EQ(row(set, 0), (std::vector<float>{1, 0}));
  EXPECT_EQ(row(set, 3), (std::vector<float>{11, 10}));
  write("c.h5", {0, 1}, {"ant", "dog"});
  const Names others{folder_ / "a.h5", folder_ / "c.h5"};
  EXPECT_HAS(message_of([&] { repack(others, folder_ / "x.h5", {}); }), "c.h5: /y has the classes ant, dog, but ");
}

TEST_F(Descriptions, LayoutsThatFilesSayMustAgree) {
  for (const auto& [name, layout] : {std::pair("a.h5", "NHWC"), {"b.h5", "channels_first"}, {"c.h5", ""}}) {
    H5File file(folder_ / name);
    add(file, "x", {1, 3, 3, 3}, std::vector<float>(27, 1.f));
    if (*layout != '\0') add_attribute(file, "x", "layout", layout);
  }
  EXPECT_EQ(open({"a.h5"}).port(0).layout, StoredLayout::channels_last);
  EXPECT_EQ(open({"b.h5"}).port(0).layout, StoredLayout::channels_first);
  EXPECT_EQ(fit_input(open({"a.h5"}), 0, Shape{3, 3, 3}), SampleOrder::channels_last);
  EXPECT_EQ(fit_input(open({"b.h5"}), 0, Shape{3, 3, 3}), SampleOrder::channels_first);
  EXPECT_EQ(fit_input(open({"b.h5"}), 0, Shape{3, 3, 3}, StoredLayout::channels_last), SampleOrder::channels_last);
  EXPECT_THROW(fit_input(open({"c.h5"}), 0, Shape{3, 3, 3}), ShapeError);
  EXPECT_EQ(open({"c.h5", "b.h5"}).port(0).layout, StoredLayout::channels_first);
  EXPECT_HAS(refused({"a.h5", "c.h5", "b.h5"}), "b.h5: /x is stored channels first, but ");
  const Names files{folder_ / "a.h5", folder_ / "b.h5"};
  EXPECT_HAS(message_of([&] { repack(files, folder_ / "x.h5", {}); }), "a.h5: /x channels last, as their attributes");
}

TEST_F(Descriptions, TravelAsText) {
  write("a.h5", {0, 1}, {"b\xc3\xa4r", "cat"});
  const Dataset set = open({"a.h5"});
  const auto back = descriptions_from(to_text(set.descriptions()), "checkpoint c");
  ASSERT_EQ(back.size(), 2u);
  const Description* const classes = find_description(back, PortUse::target, "target");
  ASSERT_NE(classes, nullptr);
  EXPECT_EQ(classes->names, set.descriptions()[1].names);
  EXPECT_TRUE(classes->classes);
  EXPECT_EQ(find_description(back, PortUse::target, "other"), nullptr);
  EXPECT_HAS(message_of([] { descriptions_from("[{}]", "checkpoint c"); }), "checkpoint c: what it says");
  EXPECT_TRUE(to_text({}).empty());
}

}  // namespace
}  // namespace dtrain::io
