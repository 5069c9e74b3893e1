// No damaged checkpoint is ever accepted: flipped bits, cut files, swapped shards, mixed steps, hostile manifests.
#include <cstring>
#include <limits>

#include <nlohmann/json.hpp>
#include <sys/stat.h>

#include "io/checkpoint/checkpoint_digest.hpp"
#include "io/checkpoint/checkpoint_manifest.hpp"
#include "tests/io/checkpoint/checkpoint_support.hpp"

namespace dtrain::test {
namespace {

using Kind = CheckpointError::Kind;
using Json = nlohmann::json;

/// Two checkpoints of two ranks; the newer one gets damaged.
class Damage : public testing::Test {
 protected:
  void SetUp() override { write_steps(directory, {100, 200}, 2); }
  std::string file(const std::string& name) const { return newer + "/" + name; }
  /// The newest valid one is the older one, and the newer one is named with a reason of this kind.
  void expect_refused(const std::string& what, std::initializer_list<Kind> kinds) {
    try {
      io::verify_checkpoint(io::posix_file_system(), newer);
      ADD_FAILURE() << what << " was accepted";
      return;
    } catch (const CheckpointError& e) {
      EXPECT_TRUE(std::find(kinds.begin(), kinds.end(), e.kind()) != kinds.end()) << what << ": " << e.what();
      EXPECT_EQ(std::string(e.what()).find("checkpoint " + newer + " is "), 0u) << what << ": " << e.what();
    }
    const auto found = io::find_latest_valid(directory);
    ASSERT_TRUE(found) << what;
    EXPECT_EQ(found->state.step, 100u) << what;
    ASSERT_EQ(found->skipped.size(), 1u) << what;
    EXPECT_NE(found->skipped[0].find("step-000000200"), std::string::npos) << what;
  }
  Scratch scratch;
  std::string directory = scratch / "c", newer = directory + "/step-000000200";
};

TEST_F(Damage, AThousandBitFlips) {
  const std::vector<std::string> names{"MANIFEST.json", "shard-00000.bin", "shard-00001.bin"};
  const auto key = random_key(1, Purpose::test);
  for (std::uint64_t i = 0; i < 1000; ++i) {
    const auto draw = draw4(key, i, 0, 0);
    const auto& name = names[i % names.size()];
    const auto good = read_file(file(name));
    auto bad = good;
    const auto bit = draw.v[0] % (good.size() * 8);
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    write_file(file(name), bad);
    expect_refused(fmt::format("bit {} of {}", bit, name), {Kind::corrupt});
    write_file(file(name), good);
    if (HasFailure()) return;
  }
  EXPECT_EQ(io::find_latest_valid(directory)->state.step, 200u);
}

TEST_F(Damage, EveryBitOfTheManifestsLastLines) {
  const auto good = read_file(file("MANIFEST.json"));
  for (std::size_t bit = (good.size() - 100) * 8; bit < good.size() * 8; ++bit) {
    auto bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    write_file(file("MANIFEST.json"), bad);
    EXPECT_THROW(io::verify_checkpoint(io::posix_file_system(), newer), CheckpointError) << bit;
  }
}

TEST_F(Damage, CutAtEvery4KiB) {
  for (const auto& name : {"MANIFEST.json", "shard-00000.bin", "shard-00001.bin"}) {
    const auto good = read_file(file(name));
    for (std::size_t bytes = 0; bytes < good.size(); bytes += 4096) {
      write_file(file(name), good.substr(0, bytes));
      expect_refused(fmt::format("{} cut to {} bytes", name, bytes), {Kind::incomplete, Kind::corrupt});
    }
    write_file(file(name), good.substr(0, good.size() - 1));
    expect_refused(fmt::format("{} without its last byte", name), {Kind::incomplete, Kind::corrupt});
    write_file(file(name), good + '\0');
    expect_refused(fmt::format("{} with a byte more", name), {Kind::corrupt});
    fs::remove(file(name));
    expect_refused(fmt::format("{} removed", name), {Kind::incomplete});
    write_file(file(name), good);
  }
}

TEST_F(Damage, ZerosOfTheSameLength) {
  const auto good = read_file(file("shard-00001.bin"));
  write_file(file("shard-00001.bin"), std::string(good.size(), '\0'));
  expect_refused("a shard of zeros", {Kind::corrupt});
}

TEST_F(Damage, SwappedShards) {
  fs::rename(file("shard-00000.bin"), file("x"));
  fs::rename(file("shard-00001.bin"), file("shard-00000.bin"));
  fs::rename(file("x"), file("shard-00001.bin"));
  expect_refused("swapped shards", {Kind::corrupt, Kind::incomplete});
}

TEST_F(Damage, MixedSteps) {
  const auto older = directory + "/step-000000100/";
  for (const auto& name : {"shard-00000.bin", "shard-00001.bin", "MANIFEST.json"}) {
    const auto good = read_file(file(name));
    write_file(file(name), read_file(older + name));
    expect_refused(fmt::format("{} of another step", name), {Kind::corrupt});
    write_file(file(name), good);
  }
  // All files of the other step: valid in themselves, but not what the directory's name says.
  for (const auto& name : {"shard-00000.bin", "shard-00001.bin", "MANIFEST.json"}) {
    write_file(file(name), read_file(older + name));
  }
  expect_refused("another step under this name", {Kind::corrupt});
}

TEST_F(Damage, LinksAndFifosAreNotFollowed) {
  fs::rename(file("shard-00000.bin"), scratch / "elsewhere");
  fs::create_symlink(scratch / "elsewhere", file("shard-00000.bin"));
  expect_refused("a link", {Kind::corrupt});
  fs::remove(file("shard-00000.bin"));
  ASSERT_EQ(::mkfifo(file("shard-00000.bin").c_str(), 0600), 0);
  expect_refused("a fifo", {Kind::corrupt});
}

TEST_F(Damage, EachReasonHasItsOwnText) {
  const auto text_of = [&] {
    try {
      io::verify_checkpoint(io::posix_file_system(), newer);
    } catch (const CheckpointError& e) {
      return std::string(e.what()).substr(("checkpoint " + newer).size());
    }
    return std::string("accepted");
  };
  auto shard = read_file(file("shard-00001.bin"));
  write_file(file("shard-00001.bin"), shard.substr(0, 4096));
  EXPECT_EQ(text_of(), fmt::format(" is incomplete: shard-00001.bin has 4096 of {} bytes", shard.size()));
  fs::remove(file("shard-00001.bin"));
  EXPECT_EQ(text_of(), " is incomplete: shard-00001.bin is missing");
  auto bad = shard;
  bad[7] ^= 4;
  write_file(file("shard-00001.bin"), bad);
  EXPECT_NE(text_of().find(" is corrupt: tensor "), std::string::npos) << text_of();
  bad = shard;
  bad.back() ^= 4;  // padding behind the last tensor
  write_file(file("shard-00001.bin"), bad);
  EXPECT_EQ(text_of(), " is corrupt: shard-00001.bin does not match its SHA-256");
  write_file(file("shard-00001.bin"), shard);
  write_file(file("MANIFEST.json"), "{}");
  EXPECT_EQ(text_of(), " is corrupt: MANIFEST.json ends early");
}

// ---- manifests that somebody made up, with a right digest ----------------------------------------------------------

std::string sign(const std::string& text_without_end) {
  return text_without_end + ",\n \"sha256\": \"" + io::sha256_hex(std::as_bytes(std::span(text_without_end))) +
         "\"\n}\n";
}
std::string sign(const Json& json) {
  auto text = json.dump(1);
  text.resize(text.size() - 2);
  return sign(text);
}

class Hostile : public Damage {
 protected:
  void SetUp() override {
    Damage::SetUp();
    good = Json::parse(read_file(file("MANIFEST.json")));
    good.erase("sha256");
    ASSERT_EQ(sign(good), read_file(file("MANIFEST.json"))) << "the test signs as the writer does";
  }
  void expect(const std::string& text, const std::string& reason) {
    write_file(file("MANIFEST.json"), text);
    try {
      io::verify_checkpoint(io::posix_file_system(), newer);
      ADD_FAILURE() << "accepted, expected: " << reason;
    } catch (const CheckpointError& e) {
      EXPECT_NE(std::string(e.what()).find(reason), std::string::npos) << e.what();
      EXPECT_LT(std::string(e.what()).size(), 2000u);
    }
  }
  void expect(const std::function<void(Json&)>& change, const std::string& reason) {
    Json json = good;
    change(json);
    expect(sign(json), reason);
  }
  Json good;
};

TEST_F(Hostile, ShardNamesCannotPointElsewhere) {
  for (const auto* name : {"../step-000000100/shard-00000.bin", "/etc/passwd", "shard-00001.bin", "", "shard-0.bin"}) {
    expect([&](Json& j) { j["shards"][0]["name"] = name; }, "shard 0: name is not shard-00000.bin");
  }
}

TEST_F(Hostile, SizesThatCannotBe) {
  const auto huge = std::uint64_t{1} << 62;
  expect([&](Json& j) { j["tensors"][0]["shape"] = {huge, huge}; }, "tensor 0: shape");
  expect([&](Json& j) { j["tensors"][0]["shape"] = {1 << 30, 1 << 30}; }, "tensor 0: shape");
  expect([&](Json& j) { j["tensors"][0]["shape"] = {-1, 3}; }, "tensor 0: shape");
  expect([&](Json& j) { j["tensors"][0]["shape"] = {33, 61.5}; }, "tensor 0: shape");
  expect([&](Json& j) { j["tensors"][0]["shape"] = {1, 1, 1, 1, 1, 1, 1, 1}; }, "tensor 0: shape");
  expect([&](Json& j) { j["tensors"][0]["bytes"] = huge; }, "tensor 0: bytes");
  expect([&](Json& j) { j["tensors"][0]["bytes"] = 4; }, "tensor 0: bytes");
  expect([&](Json& j) { j["tensors"][1]["offset"] = 0; }, "does not start where it must");
  expect([&](Json& j) { j["tensors"][1]["offset"] = huge; }, "tensor 1: offset");
  expect([&](Json& j) { j["total_bytes"] = huge; }, "total_bytes");
  expect([&](Json& j) { j["total_bytes"] = 64; }, "total_bytes is not the sum");
  expect([&](Json& j) { j["shards"][1]["end"] = huge; }, "shard 1: end");
  expect([&](Json& j) { j["shards"][1]["end"] = j["shards"][1]["end"].get<int>() - 64; }, "do not hold all tensors");
  expect([&](Json& j) { j["shards"][1]["begin"] = 0; }, "does not follow");
  expect([&](Json& j) { j["shards"][0]["end"] = 65; }, "does not follow");
  expect([&](Json& j) { j["shards"].clear(); }, "there is no shard");
  expect([&](Json& j) { j["world_size"] = -2; }, "world_size");
}

TEST_F(Hostile, KeysTypesAndDuplicates) {
  for (const auto& [key, value] : good.items()) {
    expect([&, k = key](Json& j) { j.erase(k); }, key);
    expect([&, k = key](Json& j) { j[k] = Json::array({Json::array()}); }, key == "tensors"  ? "tensor 0"
                                                                           : key == "shards" ? "shard 0"
                                                                                             : key);
  }
  expect([](Json& j) { j["surprise"] = 1; }, "a key that does not belong there");
  expect([](Json& j) { j["tensors"][0]["surprise"] = 1; }, "tensor 0 has a key that does not belong there");
  expect([](Json& j) { j["tensors"][0]["dtype"] = "float31"; }, "tensor 0: dtype");
  expect([](Json& j) { j["tensors"][0]["xxh3"] = "zz"; }, "tensor 0: xxh3");
  expect([](Json& j) { j["tensors"][0]["xxh3"] = "0000000000000000"; }, "does not match its checksum");
  expect([](Json& j) { j["tensors"][0]["name"] = ""; }, "tensor 0: name");
  expect([](Json& j) { j["tensors"][0]["name"] = std::string(100000, 'x'); }, "tensor 0: name");
  expect([](Json& j) { j["tensors"][0]["name"] = "a\nb"; }, "tensor 0: name");
  expect([](Json& j) { j["tensors"][1]["name"] = j["tensors"][0]["name"]; }, "is there twice");
  expect([](Json& j) { j["tensors"] = Json::object(); }, "tensors");
  expect([](Json& j) { j["format"] = 3; }, "it has format 3, and this program reads formats 1 to 2");
  expect([](Json& j) { j["format"] = 0; }, "it has format 0, and this program reads formats 1 to 2");
  expect([](Json& j) { j["format"] = 1; }, "a key that does not belong there");  // good_steps
  expect([](Json& j) { j["good_steps"] = std::uint64_t{1} << 32; }, "good_steps is not an integer in its range");
  auto twice = good.dump(1);
  twice.resize(twice.size() - 2);
  expect(sign(twice + ",\n \"step\": 200"), "the key step twice");
}

TEST_F(Hostile, FieldsThatContradictEachOther) {
  const auto largest = std::numeric_limits<std::uint64_t>::max();
  expect([&](Json& j) { j["step"] = largest; }, "no run has 18446744073709551615 steps");
  expect([](Json& j) { j["step"] = 201; }, "samples is 25600 after 201 steps of 128");
  expect([](Json& j) { j["samples"] = 25601; }, "samples is 25601 after 200 steps of 128");
  expect([](Json& j) { j["global_batch"] = 64; }, "samples is 25600 after 200 steps of 64");
  expect([](Json& j) { j["global_batch"] = 0; }, "samples is 25600 after 200 steps of 0");
  const auto with_warmup = [&](std::uint64_t samples, std::uint64_t batch, const std::string& says) {
    expect(
        [=](Json& j) {
          j["fields"].push_back({"batch.warmup.from", "8"});
          j["samples"] = samples;
          j["global_batch"] = batch;
        },
        says);
  };
  with_warmup(199, 128, "samples is 199 after 200 steps of 128");
  with_warmup(201 * 128, 128, "samples is 25728 after 200 steps of 128");
  with_warmup(25600, 0, "samples is 25600 after 200 steps of 0");
  expect([](Json& j) { j["applied_steps"] = 201; }, "applied_steps is 201 of 200 steps");
  expect([](Json& j) { j["epoch"] = -1; }, "epoch is -1");
  expect([](Json& j) { j["loss_scale"] = 0; }, "loss_scale is 0");
  expect([](Json& j) { j["configuration"] = "seed: 2\n"; }, "configuration_hash is not that of configuration");
  expect([](Json& j) { j["configuration_hash"] = "0123456789abcdef"; }, "configuration_hash is not that");
}

/// A weight that is no number, with checksums that somebody made for it.
TEST_F(Hostile, NumbersThatAreNotFinite) {
  std::string shard = read_file(file("shard-00000.bin"));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(shard.data() + 7 * sizeof nan, &nan, sizeof nan);
  write_file(file("shard-00000.bin"), shard);
  ASSERT_EQ(good["tensors"][1]["name"], "param/dense_1.bias") << "the first tensor ends in another shard";
  expect([](Json&) {}, "does not match its checksum");
  const std::string both = shard + read_file(file("shard-00001.bin"));
  io::Xxh3 hash;
  hash.add(std::as_bytes(std::span(both)).first(good["tensors"][0]["bytes"].get<std::size_t>()));
  const auto with_checksums = [&](Json& j) {
    j["tensors"][0]["xxh3"] = fmt::format("{:016x}", hash.value());
    j["shards"][0]["sha256"] = io::sha256_hex(std::as_bytes(std::span(shard)));
  };
  expect(with_checksums, "tensor param/dense_1.weight holds a NaN or an infinity");
}

TEST_F(Hostile, OlderFormatsAreRead) {
  EXPECT_EQ(io::verify_checkpoint(io::posix_file_system(), newer).state.good_steps, 77u);
  Json old = good;
  old["format"] = 1;
  old.erase("good_steps");
  write_file(file("MANIFEST.json"), sign(old));
  const auto state = io::verify_checkpoint(io::posix_file_system(), newer).state;
  EXPECT_FALSE(state.good_steps);
  EXPECT_EQ(state.loss_scale, 1024);
  old["good_steps"] = nullptr;  // where the scale is not dynamic
  old["format"] = 2;
  write_file(file("MANIFEST.json"), sign(old));
  EXPECT_FALSE(io::verify_checkpoint(io::posix_file_system(), newer).state.good_steps);
}

TEST_F(Hostile, TextThatIsNoManifest) {
  expect(std::string(), "MANIFEST.json is empty");
  expect(std::string(200, 'x'), "does not match its own SHA-256");
  expect(sign(std::string("{\"format\": 1, \"x\": ") + std::string(1000000, '[')), "nested too deeply");
  expect(sign(std::string("{\"format\": 1, \"x\"")), "not valid JSON");
  expect(sign(std::string("{\"format\": \xff\xfe")), "not valid JSON");
  expect(sign(std::string("[1")), "");
  expect(std::string(std::size_t{17} << 20, ' '), "MANIFEST.json is too long");
}

/// Random edits of a manifest, signed again: an error or the truth, never a crash.
TEST_F(Hostile, RandomEditsNeverCrash) {
  auto body = good.dump(1);
  body.resize(body.size() - 2);
  const auto key = random_key(2, Purpose::test);
  int accepted = 0;
  for (std::uint64_t i = 0; i < 3000; ++i) {
    auto text = body;
    const auto draw = draw4(key, i, 0, 0);
    for (std::uint32_t k = 0; k <= draw.v[3] % 3; ++k) {
      const auto d = draw4(key, i, 1, k);
      const auto at = d.v[0] % text.size();
      if (d.v[1] % 3 == 0) text[at] = static_cast<char>(d.v[2]);
      if (d.v[1] % 3 == 1) text.erase(at, 1 + d.v[2] % 40);
      if (d.v[1] % 3 == 2) text.insert(at, text.substr(d.v[2] % text.size(), 1 + d.v[3] % 80));
    }
    try {
      io::parse_manifest(sign(text));
      ++accepted;  // an edit of a free text, say
    } catch (const CheckpointError&) {
    }
  }
  EXPECT_LT(accepted, 1500);
}

}  // namespace
}  // namespace dtrain::test
