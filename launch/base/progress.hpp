// What a person sees while training: one bar that is redrawn on a terminal, plain lines elsewhere.
// Used on rank 0 by the training thread; writes to standard output.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>

namespace dtrain::launch {

class Progress {
 public:
  struct Now {
    std::int64_t step = 0;  // steps done
    double epoch = 0;
    double loss = 0;
    double samples_per_second = 0;
    double waiting = 0;                                // fraction of the time spent waiting for data, 0..1
    std::optional<double> tokens_per_second{}, mfu{};  // the second a fraction, 0..1
  };

  /// `quiet`: prints nothing (every rank but 0).
  Progress(std::int64_t first_step, std::int64_t total_steps, bool quiet);
  /// A line that stays.
  void line(const std::string& text);
  /// Redraws the bar (terminal only), at most ten times a second.
  void show(const Now&);
  /// A logged step: a plain line where there is no terminal.
  void log(const Now&);
  /// Ends the bar's line.
  void finish();

 private:
  std::string describe(const Now&) const;
  void clear();

  std::int64_t first_, total_;
  bool quiet_, terminal_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_, last_;
};

/// The same for a command that reads files: how much of them, in a line that goes when it ends. On a terminal only.
class ByteProgress {
 public:
  ByteProgress();
  ~ByteProgress();
  ByteProgress(const ByteProgress&) = delete;
  ByteProgress& operator=(const ByteProgress&) = delete;
  void show(std::uint64_t done, std::uint64_t all);

 private:
  bool terminal_, drawn_ = false;
  std::chrono::steady_clock::time_point start_;
};

/// "1:02:03" or "4:05".
std::string format_duration(double seconds);
/// For the user, at once. Output that cannot be written (a full disk, say) is lost; it must not end a run that
/// computes.
void print_text(std::FILE*, const std::string& text) noexcept;
/// To standard error, after what was said before on standard output.
void print_error(const std::string& text) noexcept;
/// As print_text, and a line of its own.
void print_line(std::FILE*, const std::string& text) noexcept;
/// Is standard output a terminal? Open MPI gives ranks a pseudo terminal whatever its own output is, so under mpirun it
/// is mpirun's that counts.
bool output_is_terminal();

}  // namespace dtrain::launch
