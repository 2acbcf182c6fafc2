// SPDX-License-Identifier: Apache-2.0
// What the engine says about one call.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "behavior/model.h"

namespace tool_firewall {

struct Caller;

// What happens to a call that should be stopped. Values are written into records: append.
//   learning  nothing, quietly     warn    it runs and is logged
//   shadow    as warn, and the log says what block would have done     block  it is stopped
enum class Mode : std::uint8_t { kLearning, kWarn, kShadow, kBlock };

std::string_view name_of(Mode mode);
std::optional<Mode> mode_named(std::string_view name);

// allow: nothing to say. audit: worth listing. deny: should be stopped; whether it is, the mode says.
enum class Decision : std::uint8_t { kAllow, kAudit, kDeny };

std::string_view name_of(Decision decision);

// Whether the arguments could be read as what the tool will receive. Values are written into records: append.
enum class Inspection : std::uint8_t { kInspected, kTooDeep, kTooLarge, kWrongType };

// "" for kInspected, else depth | size | type.
std::string_view name_of(Inspection inspection);

// What became of a call. Values are written into records: append.
enum class Outcome : std::uint8_t { kOk, kToolError, kTimeout, kUnreachable };

std::string_view name_of(Outcome outcome);
std::optional<Outcome> outcome_named(std::string_view name);

struct Verdict {
  std::uint64_t ticket = 0;  // for Engine::observe(); 0 for a blocked call
  std::uint64_t incident = 0;
  double risk = 0;  // 0..1
  Decision decision = Decision::kAllow;
  Mode mode = Mode::kLearning;
  Inspection inspection = Inspection::kInspected;
  bool blocked = false;
  bool snoozed = false;  // an operator asked for quiet: nothing is said, nothing stopped
  std::vector<Reason> reasons;
  const Tool* tool = nullptr;
  const Tool* previous = nullptr;
};

// What the end of a call showed. Its decision is one of its own: what would have been said of the call, had
// all been known before. It is allow unless the end raised the risk.
struct Aftermath {
  bool known = false;  // the ticket
  bool told = false;   // the call was denied before it ran, and warned about
  double risk = 0;     // 0..1, at least that of the verdict
  Decision decision = Decision::kAllow;
  Mode mode = Mode::kLearning;
  bool snoozed = false;
  std::uint64_t incident = 0;
  std::vector<Reason> reasons;
  const Tool* tool = nullptr;
  const Tool* previous = nullptr;
  std::shared_ptr<const Caller> caller;
};

// "tf-" and twelve hex digits.
std::string incident_name(std::uint64_t incident);

}  // namespace tool_firewall
