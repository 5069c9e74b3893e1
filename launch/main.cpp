#include <string>
#include <vector>

#include "launch/cli/cli.hpp"

int main(int argc, char** argv) {
  return dtrain::launch::run_command_line(std::vector<std::string>(argv + 1, argv + argc));
}
