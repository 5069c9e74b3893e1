// Deadlines: how long a rank may show no progress in each part of a run before the run counts as stuck, and the setting
// that says so: one table, from which the settings, the watchdog and its messages come.
// Values only; the trainer names the part with each beat of the watchdog.
#pragma once

#include <array>
#include <cstdint>

#include "comm/collective/config.hpp"

namespace dtrain::comm {

enum class Deadline : std::uint8_t { step, set_up, load, first_step, save };

struct DeadlineSetting {
  const char* name;  // within `communication`
  double CommConfig::*seconds;
  const char* help;
};

/// In the order of Deadline.
inline constexpr std::array<DeadlineSetting, 5> deadline_settings{{
    {"timeout_seconds", &CommConfig::timeout_seconds,
     "a step or sum without progress for so long is an error: a lost or stuck rank"},
    {"set_up_timeout_seconds", &CommConfig::set_up_timeout_seconds,
     "the same while data are opened and the model is built"},
    {"load_timeout_seconds", &CommConfig::load_timeout_seconds,
     "the same while a checkpoint is read and the run's files are opened"},
    {"first_step_timeout_seconds", &CommConfig::first_step_timeout_seconds,
     "the same in the first step of a run and the first batch of an evaluation, which find nothing in memory"},
    {"save_timeout_seconds", &CommConfig::save_timeout_seconds,
     "the same while ranks wait for a checkpoint to be written"},
}};

constexpr const DeadlineSetting& setting_of(Deadline d) {
  return deadline_settings[static_cast<std::size_t>(d)];
}

}  // namespace dtrain::comm
