#include "io/import/archive_links.hpp"

#include <algorithm>
#include <string_view>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr int max_links = 40;         // on one way, as Linux has it
constexpr int max_linked_depth = 16;  // of folders of links

/// The parts of a path, without "." and empty ones.
std::vector<std::string> parts_of(std::string_view path) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (!part.empty() && part != ".") parts.emplace_back(part);
    begin = end + 1;
  }
  return parts;
}

std::string joined(const std::vector<std::string>& parts) {
  return fmt::format("{}", fmt::join(parts, "/"));
}

bool is_link(ArchiveReader::Member::Kind kind) {
  return kind == ArchiveReader::Member::Kind::link || kind == ArchiveReader::Member::Kind::hard_link;
}

}  // namespace

ArchiveLinks::ArchiveLinks(const std::string& path) : path_(path) {
  ArchiveReader reader(path);
  ArchiveReader::Member member;
  while (reader.next(member))
    nodes_.insert_or_assign(joined(parts_of(member.path)), Node{member.kind, member.target, member.file});
}

bool ArchiveLinks::resolve(std::string& path) const {
  std::vector<std::string> todo = parts_of(path), done;
  int links = 0;
  for (std::size_t i = 0; i < todo.size(); ++i) {
    if (todo[i] == "..") {
      if (done.empty()) return false;  // out of the archive
      done.pop_back();
      continue;
    }
    done.push_back(todo[i]);
    const auto at = nodes_.find(joined(done));
    if (at == nodes_.end() || !is_link(at->second.kind)) continue;
    const Node& link = at->second;
    if (++links > max_links || link.target.starts_with('/')) return false;
    done.pop_back();
    if (link.kind == ArchiveReader::Member::Kind::hard_link) done.clear();
    std::vector<std::string> next = parts_of(link.target);
    next.insert(next.end(), todo.begin() + static_cast<std::ptrdiff_t>(i) + 1, todo.end());
    todo = std::move(next);
    i = ~std::size_t{0};  // from its beginning
  }
  path = joined(done);
  return true;
}

void ArchiveLinks::expand(const std::string& path, const std::string& at, int depth,
                          const std::function<void(const std::string&, std::uint64_t)>& found) const {
  std::string real = at;
  if (depth > max_linked_depth)
    throw DataError(fmt::format("{}: {}: folders lie too deep, or in a circle of links", path_, path));
  if (!resolve(real)) return found(path, nowhere);
  if (const auto file = nodes_.find(real);
      file != nodes_.end() && file->second.kind == ArchiveReader::Member::Kind::file)
    return found(path, file->second.file);
  // A folder need not be a member.
  const std::string below = real.empty() ? "" : real + "/";
  auto member = nodes_.lower_bound(below);
  const bool folder = nodes_.contains(real) || (member != nodes_.end() && member->first.starts_with(below));
  if (!folder) return found(path, nowhere);
  for (; member != nodes_.end() && member->first.starts_with(below); ++member) {
    const std::string inside = path + "/" + member->first.substr(below.size());
    if (is_link(member->second.kind)) {
      expand(inside, member->first, depth + 1, found);
    } else if (member->second.kind == ArchiveReader::Member::Kind::file) {
      found(inside, member->second.file);
    }
  }
}

void ArchiveLinks::each(const std::function<void(const std::string&, std::uint64_t)>& found) const {
  for (const auto& [path, node] : nodes_)
    if (is_link(node.kind)) expand(path, path, 0, found);
}

}  // namespace dtrain::io
