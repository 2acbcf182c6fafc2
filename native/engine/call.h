// SPDX-License-Identifier: Apache-2.0
// One tool call as the engine sees it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "behavior/principals.h"
#include "engine/verdict.h"
#include "text/argument_reader.h"

namespace tool_firewall {

// Who calls. Resolved once and reused, because looking up six texts costs more than scoring.
struct Caller {
  std::string tenant;
  std::string user;
  std::string agent;    // a hint: never the only key of anything
  std::string group;    // "" = the tenant is the peer group
  std::string session;  // keyed digest, or whatever tells conversations of this user apart
  std::string token;    // keyed digest
  std::uint64_t session_id = 0;
  std::array<std::uint64_t, 2> identity{};  // of agent and token, 0 when unknown

  // Filled in by the engine; renewed when the principal was evicted.
  PrincipalPtr principal;
  std::string learned_group;  // that group_level is of, where `group` is ""
  Peers* group_level = nullptr;
  Peers* tenant_level = nullptr;
};
using CallerPtr = std::shared_ptr<Caller>;

// What a plugin instance may decide for itself.
struct InstancePolicy {
  Mode mode = Mode::kLearning;                   // until a control record says otherwise
  double threshold = .5;                         // risk from which a call should be stopped
  bool own_threshold = false;                    // it was said for this instance's tool
  std::unordered_set<std::string> exempt_tools;  // may be called with arguments that cannot be inspected
};

// What was found out about the arguments by walking them once.
struct Arguments {
  Inspection inspection = Inspection::kInspected;
  std::uint64_t digest = 0;               // keyed, independent of the order of keys
  ArgumentFacts facts;                    // none when it could not be inspected
  std::vector<std::string> destinations;  // hosts, at most kMostDestinations
};

}  // namespace tool_firewall
