#include "launch/cli/all_ranks.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include <fmt/format.h>

#include "launch/base/alone.hpp"
#include "launch/base/error_text.hpp"
#include "launch/base/progress.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

void print(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    throw DataError(fmt::format("cannot write to standard output: {}", std::strerror(errno)));
}

int on_all_ranks(const std::string& command, const std::function<std::string(comm::World&)>& work) {
  comm::World world(command);
  ExitCode code = ExitCode::ok;
  try {
    const std::string text = work(world);
    if (world.rank() == 0) print(text);
  } catch (const RankFailure& e) {
    print_error(error_text(e, code));
    world.abort(code);
  } catch (const std::exception& e) {
    const std::string text = error_text(e, code);
    if (world.rank() == 0) print_error(text);
  }
  return world.finish(code);
}

}  // namespace dtrain::launch
