// Tokenizer speed on one thread: bench_tokenize TOKENIZER FILE [ROUNDS] [IDS]. It checks that byte-level ids give the
// text again, prints one JSON object with the megabytes per second of processor time of the best and the middle round,
// and writes the ids (uint32) to IDS. TOKENIZER is what `data import text --tokenizer` takes. Each round is what a
// fresh encoder needs.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "io/text/tokenizer_files.hpp"
#include "runtime/tensor/error.hpp"

int main(int argc, char** argv) {
  using namespace dtrain;
  if (argc < 3) {
    fmt::print(stderr, "usage: bench_tokenize TOKENIZER FILE [ROUNDS] [IDS]\n");
    return static_cast<int>(ExitCode::usage);
  }
  try {
    const auto tokenizer = io::open_tokenizer(argv[1]);
    std::ifstream file(argv[2], std::ios::binary);
    if (!file) throw DataError(fmt::format("{}: cannot be read", argv[2]));
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const int rounds = argc > 3 ? std::max(1, std::atoi(argv[3])) : 5;
    std::vector<io::TokenId> ids;
    std::vector<double> seconds;
    for (int i = 0; i < rounds; ++i) {
      ids.clear();
      const auto encoder = tokenizer->encoder();
      const std::clock_t begin = std::clock();  // of the processor: other work on the machine does not count
      encoder->encode(text, ids);
      seconds.push_back(static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
    }
    const bool byte_level = !tokenizer->name().starts_with("wordpiece");
    if (byte_level && tokenizer->decode(ids) != text) throw BugError("the ids do not give the text again");
    std::sort(seconds.begin(), seconds.end());
    const double megabytes = static_cast<double>(text.size()) / 1e6;
    fmt::print(
        "{{\"tokenizer\": \"{}\", \"hash\": \"{}\", \"bytes\": {}, \"tokens\": {}, \"best\": {:.1f}, \"middle\": "
        "{:.1f}}}\n",
        tokenizer->name(), tokenizer->hash(), text.size(), ids.size(), megabytes / seconds.front(),
        megabytes / seconds[seconds.size() / 2]);
    if (argc > 4) {
      std::ofstream out(argv[4], std::ios::binary);
      out.write(reinterpret_cast<const char*>(ids.data()), static_cast<std::streamsize>(ids.size() * sizeof ids[0]));
      if (!out.flush()) throw DataError(fmt::format("{}: cannot be written", argv[4]));
    }
  } catch (const Error& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return static_cast<int>(e.code());
  }
  return 0;
}
