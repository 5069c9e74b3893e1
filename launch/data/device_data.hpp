// DeviceData: a data set of bytes as a device reads it: the constants of its conversion, two micro batches of bytes on
// their way, and, where the set is small, all of it.
// Owns that device memory; used on the training thread, copies on the stream it is given.
#pragma once

#include <array>
#include <memory>

#include "io/dataset/image_format.hpp"
#include "io/dataset/loader.hpp"
#include "runtime/device/device.hpp"
#include "runtime/program/program.hpp"

namespace dtrain::launch {

class DeviceData {
 public:
  /// Null where the loader's threads convert samples: on a cpu, and where the set is none of bytes. `cache_mib`: a set
  /// that is not larger is kept on the device as a whole. Blocks. Throws what reading the set throws, OutOfMemory.
  static std::unique_ptr<DeviceData> make(Device&, Stream&, const io::Dataset&, const io::LoaderOptions&,
                                          double cache_mib, bool training);

  /// What a loader for this set is to be told.
  io::Carry carry() const noexcept { return carry_; }
  /// The batch's bytes on their way into the slot's memory.
  void copy(const io::Batch&, int slot, Stream&) const;
  /// They become the model's input.
  void convert(int slot, Tensor sample, Stream&) const;

 private:
  DeviceData(Device&, Stream&, const io::Dataset&, const io::HostImageFormat&, const io::LoaderOptions&, bool whole,
             bool augmented);
  void keep(const io::Dataset&, Stream&);

  Device& device_;
  const io::Carry carry_;
  const io::RawLayout layout_;
  const bool augmented_;
  ImageFormat format_;
  Buffer constants_, set_;
  std::array<Buffer, Program::slots> raw_;
};

}  // namespace dtrain::launch
