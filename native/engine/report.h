// SPDX-License-Identifier: Apache-2.0
// What was learned, for people.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace tool_firewall {

struct BaselineTool {
  std::string server, name;
  double count = 0;  // decayed calls
  double share = 0;  // of all decayed calls, 0..1
};

struct BaselineStep {
  std::string from, to;  // from "": the first call of a session
  double count = 0;
};

struct BaselineHeld {
  std::string kind;  // tool | step | skip | argument
  std::string tool, from;
  double until = 0;  // s
};

struct BaselineSignal {
  std::string name;
  std::vector<Fact> facts;
};

struct Baseline {
  std::string tenant, user, group, zone;
  std::string group_from;  // configuration | learned | tenant
  std::uint64_t calls = 0;
  double first = 0, last = 0;       // s
  std::vector<BaselineTool> tools;  // most used first
  std::vector<BaselineStep> steps;  // most used first, at most kMostSteps
  std::array<double, 24> hours{};   // on how many days active then, by local hour, decayed
  std::vector<BaselineHeld> held;   // what is still new
  std::vector<BaselineSignal> signals;
};

inline constexpr std::size_t kMostSteps = 200;

// Nothing when the principal is unknown.
std::optional<Baseline> baseline_of(Engine& engine, std::string_view tenant, std::string_view user);

}  // namespace tool_firewall
