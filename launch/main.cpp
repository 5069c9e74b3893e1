#include <string>
#include <vector>

#include "launch/bench/commands.hpp"
#include "launch/cli/cli.hpp"

int main(int argc, char** argv) {
  using namespace dtrain::launch;
  const AddCommands more[] = {add_bench_commands};
  return run_command_line(std::vector<std::string>(argv + 1, argv + argc), more);
}
