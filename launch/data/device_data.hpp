// DeviceData: data sets of bytes as a device reads them: the constants of their conversion and, where a set is small,
// all of it.
// Owns that device memory; used on the training thread, copies on the stream it is given.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "io/dataset/image_format.hpp"
#include "io/dataset/loader.hpp"
#include "launch/data/data.hpp"
#include "runtime/device/device.hpp"
#include "runtime/program/program.hpp"

namespace dtrain::launch {

/// A set, which outlives it, and how a loader reads it.
struct LoadedSet {
  const io::Dataset* data;
  io::LoaderOptions options;
  bool training = true;
};

/// How this rank's loaders read the set of training and, if there is one, that of evaluation, for a graph that was
/// built with those stored ports. An input that the device can make of the bytes of both travels as bytes, or, of a set
/// that is not larger than data.device_cache_mib, only as the numbers of its rows.
std::vector<LoadedSet> load_sets(const RunConfig&, const Graph&, const models::StoredPorts&, const io::Dataset& train,
                                 const io::Dataset* eval, int rank, int ranks, Device&);
/// For the program that they feed.
std::vector<BatchLayout> layouts_of(std::span<const LoadedSet>);

class DeviceData {
 public:
  /// Null where the loader's threads convert all samples. Blocks. Throws what reading the set throws, OutOfMemory.
  static std::unique_ptr<DeviceData> make(Device&, Stream&, const LoadedSet&);

  /// What was carried becomes the slot's inputs.
  void convert(const InputSlot&, Stream&) const;

 private:
  struct Port {
    std::size_t input = 0;  // of the graph
    io::Carry carry = io::Carry::bytes;
    io::RawLayout layout;
    std::size_t raw = 0;  // bytes into what is carried
    bool augmented = false;
    ImageFormat format;
    Buffer constants, set;
  };
  DeviceData(Device&, Stream&, const LoadedSet&);
  void put_constants(Port&, const io::HostImageFormat&, Stream&);
  void keep(Port&, const io::Dataset&, std::size_t source, Stream&);

  Device& device_;
  std::vector<Port> ports_;
};

}  // namespace dtrain::launch
