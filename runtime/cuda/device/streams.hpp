// Streams, events and recorded work of the CUDA device, without CUDA's own types.
// Each owns its vendor handle; a stream is used by one thread at a time.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "runtime/device/device.hpp"

namespace dtrain::cuda {

std::unique_ptr<Stream> make_cuda_stream(StreamUse);
/// `timed`: knows when it was reached; the others are cheaper.
std::unique_ptr<Event> make_cuda_event(bool timed);
/// Device::record: a CUDA graph. Null where something in `work` cannot be captured.
std::unique_ptr<Replay> record_cuda_work(Stream&, const std::function<void()>& work, std::string& why_not);

}  // namespace dtrain::cuda
