#include "runtime/optim/batch_schedule.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "runtime/tensor/error.hpp"

namespace dtrain {

BatchSchedule::BatchSchedule(std::int64_t global, const BatchWarmup& warmup) {
  std::vector<Stage> stages;
  Stage next{0, 0, global};
  if (warmup.from > 0) {
    const std::int64_t by = warmup.step_size(), grows = (global - warmup.from) / by;
    if (grows < 1 || warmup.from + grows * by != global)
      throw BugError("a batch warm-up that does not end at the batch");
    next.batch = warmup.from;
    for (std::int64_t k = 1; k <= grows; ++k, next.batch += by) {
      // The k-th part of them ends here; no product of two large numbers.
      const std::int64_t end = warmup.samples / grows * k + warmup.samples % grows * k / grows;
      const std::int64_t steps = (std::max<std::int64_t>(end - next.samples, 0) + next.batch - 1) / next.batch;
      if (steps == 0) continue;
      stages.push_back(next);
      next.step += steps;
      next.samples += steps * next.batch;
    }
  }
  stages.push_back(next);
  stages_ = std::make_shared<const std::vector<Stage>>(std::move(stages));
}

const BatchSchedule::Stage& BatchSchedule::stage_of(std::int64_t step) const noexcept {
  const auto behind =
      std::upper_bound(stages_->begin() + 1, stages_->end(), step, [](auto s, const Stage& of) { return s < of.step; });
  return *(behind - 1);
}

std::int64_t BatchSchedule::step_at(std::int64_t position) const noexcept {
  const auto behind = std::upper_bound(stages_->begin() + 1, stages_->end(), position,
                                       [](auto p, const Stage& of) { return p < of.samples; });
  const Stage& s = *(behind - 1);
  return s.step + (position - s.samples) / s.batch;
}

std::int64_t BatchSchedule::unit() const noexcept {
  return std::accumulate(stages_->begin(), stages_->end(), std::int64_t{0},
                         [](std::int64_t all, const Stage& of) { return std::gcd(all, of.batch); });
}

}  // namespace dtrain
