#pragma once

// What most sources read of the standard library, fmt and nlohmann-json, precompiled once for all floors. No header of
// ours: a change must not compile everything again. Each source still includes what it uses: tests/campaign tidy reads
// it so.

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

// Compiled in precompiled.cpp alone; each source that uses JSON would take some seconds for its own copy.
extern template class nlohmann::basic_json<>;
