#include "launch/base/progress.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace dtrain::launch {

std::string format_duration(double seconds) {
  const auto s = static_cast<std::int64_t>(std::max(0.0, std::round(seconds)));
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

namespace {

/// A run does not end because nobody reads what it says.
void put(std::FILE* to, const std::string& text, const char* end) noexcept {
  const bool failed_before = std::ferror(to) != 0;
  errno = 0;
  (void)std::fwrite(text.data(), 1, text.size(), to);
  (void)std::fputs(end, to);
  (void)std::fflush(to);
  if (failed_before || std::ferror(to) == 0 || to != stdout) return;
  (void)std::fprintf(stderr,
                     "warning: cannot write to standard output: %s; the run goes on, and its log files have all\n",
                     std::strerror(errno));
}

}  // namespace

void print_text(std::FILE* to, const std::string& text) noexcept {
  put(to, text, "");
}

void print_error(const std::string& text) noexcept {
  print_text(stdout, "");
  print_text(stderr, text);
}

void print_line(std::FILE* to, const std::string& text) noexcept {
  put(to, text, "\n");
}

bool output_is_terminal() {
  if (!isatty(STDOUT_FILENO)) return false;
  if (!std::getenv("OMPI_COMM_WORLD_RANK")) return true;
  std::error_code failed;
  const std::string parent = fmt::format("/proc/{}", getppid());
  const std::string target = std::filesystem::read_symlink(parent + "/fd/1", failed).string();
  return !failed && (target.starts_with("/dev/pts/") || target.starts_with("/dev/tty"));
}

ByteProgress::ByteProgress() : terminal_(output_is_terminal()), start_(std::chrono::steady_clock::now()) {}

ByteProgress::~ByteProgress() {
  if (drawn_) print_text(stdout, "\r\033[K");
}

void ByteProgress::show(std::uint64_t done, std::uint64_t all) {
  if (!terminal_ || all == 0) return;
  constexpr double mega = 1e6;
  const double spent = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const auto part = static_cast<double>(done), whole = static_cast<double>(all);
  const double left = done > 0 ? spent / part * (whole - part) : 0;
  print_text(stdout,
             fmt::format("\r\033[K{:.0f} of {:.0f} MB ({:.0f} %)  {:.1f} MB/s  {} left", part / mega, whole / mega,
                         100 * part / whole, part / mega / std::max(spent, 1e-3), format_duration(left)));
  drawn_ = true;
}

Progress::Progress(std::int64_t first_step, std::int64_t total_steps, bool quiet)
    : first_(first_step),
      total_(total_steps),
      quiet_(quiet),
      terminal_(!quiet && output_is_terminal()),
      start_(std::chrono::steady_clock::now()),
      last_(start_ - std::chrono::hours(1)) {}

void Progress::clear() {
  if (drawn_) print_text(stdout, "\r\033[K");
  drawn_ = false;
}

void Progress::line(const std::string& text) {
  if (quiet_) return;
  clear();
  print_line(stdout, text);
}

std::string Progress::describe(const Now& now) const {
  const double spent = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const double left =
      now.step > first_ ? spent / static_cast<double>(now.step - first_) * static_cast<double>(total_ - now.step) : 0;
  std::string of_tokens;
  if (now.tokens_per_second) of_tokens += fmt::format("  {:.0f} tokens/s", *now.tokens_per_second);
  if (now.mfu) of_tokens += fmt::format("  MFU {:.1f} %", 100 * *now.mfu);
  return fmt::format("step {}/{}  epoch {:.2f}  loss {:.4f}  {:.0f} samples/s{}  {} left  waiting for data {:.1f} %",
                     now.step, total_, now.epoch, now.loss, now.samples_per_second, of_tokens, format_duration(left),
                     100 * now.waiting);
}

void Progress::show(const Now& now) {
  if (!terminal_) return;
  const auto t = std::chrono::steady_clock::now();
  if (t - last_ < std::chrono::milliseconds(100) && now.step != total_) return;
  last_ = t;
  winsize size{};
  const int columns = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 100;
  std::string text = describe(now);
  const int bar = std::clamp(columns - static_cast<int>(text.size()) - 4, 0, 40);
  if (bar >= 10) {
    const auto filled = static_cast<std::size_t>(static_cast<double>(bar) * static_cast<double>(now.step) /
                                                 static_cast<double>(std::max<std::int64_t>(total_, 1)));
    text = fmt::format("[{}{}] {}", std::string(filled, '#'), std::string(static_cast<std::size_t>(bar) - filled, '.'),
                       text);
  }
  if (static_cast<int>(text.size()) >= columns) text.resize(static_cast<std::size_t>(columns - 1));
  clear();
  print_text(stdout, text);
  drawn_ = true;
}

void Progress::log(const Now& now) {
  if (quiet_ || terminal_) return;
  print_line(stdout, describe(now));
}

void Progress::finish() {
  if (quiet_ || !drawn_) return;
  print_line(stdout, "");
  drawn_ = false;
}

}  // namespace dtrain::launch
