// What oneDNN says of itself. The names of instruction sets are those of ONEDNN_MAX_CPU_ISA.
#include "runtime/device/libraries.hpp"

#include <fmt/format.h>
#include <oneapi/dnnl/dnnl.h>

namespace dtrain {

namespace {

// From the largest set to the smallest: a set's bits hold those of the sets that it extends.
constexpr struct {
  unsigned bits;
  const char* name;
} instruction_sets[] = {
    {0x3e7, "AVX512_CORE_AMX"},
    {0xe7, "AVX512_CORE_BF16"},
    {0x67, "AVX512_CORE_VNNI"},
    {0x27, "AVX512_CORE"},
    {0x407, "AVX2_VNNI"},
    {0x7, "AVX2"},
    {0x3, "AVX"},
    {0x1, "SSE41"},
};

std::string instructions() {
  const auto used = static_cast<unsigned>(dnnl_get_effective_cpu_isa());
  for (const auto& set : instruction_sets)
    if ((used & set.bits) == set.bits) return set.name;
  return "no vector instructions";
}

}  // namespace

std::vector<Library> runtime_libraries() {
  const dnnl_version_t* v = dnnl_version();
  std::vector<Library> out{{"oneDNN", fmt::format("{}.{}.{}", v->major, v->minor, v->patch), "uses " + instructions()}};
  for (Library& library : cuda_libraries()) out.push_back(std::move(library));
  return out;
}

}  // namespace dtrain
