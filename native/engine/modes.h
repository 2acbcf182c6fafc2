// SPDX-License-Identifier: Apache-2.0
// Which mode is in force for a call: what operators said for the most specific scope; without that, what the
// plugin instance was configured with.
#pragma once

#include <string>
#include <string_view>

#include "engine/scopes.h"
#include "engine/verdict.h"

namespace tool_firewall {

struct ModeRecord {
  Scope scope;
  Mode mode = Mode::kLearning;
  double since = 0;  // s
  std::string by, why;
};

class Modes : public Scopes<ModeRecord> {
 public:
  const ModeRecord* in_force(std::string_view tenant, std::string_view tool, std::string_view user) const {
    return find(tenant, tool, user, [](const ModeRecord&) { return true; });
  }
};

}  // namespace tool_firewall
