// SPDX-License-Identifier: Apache-2.0
// Which mode is in force for a call. The most specific control record wins: user, then tool, then tenant,
// then global; without one, what the plugin instance was configured with.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/verdict.h"

namespace tool_firewall {

// "" means any. A scope may name several.
struct Scope {
  std::string tenant, tool, user;
};

struct ModeRecord {
  Scope scope;
  Mode mode = Mode::kLearning;
  double since = 0;  // s
  std::string by, why;
};

class Modes {
 public:
  // Sets the mode of a scope, or clears it.
  void set(ModeRecord record);
  void clear(const Scope& scope);

  const ModeRecord* in_force(std::string_view tenant, std::string_view tool, std::string_view user) const;
  std::vector<ModeRecord> all() const;  // most general first

 private:
  static constexpr std::size_t kMasks = 8;  // bit 2: user named, bit 1: tool, bit 0: tenant
  using Table = std::unordered_map<std::string, ModeRecord>;
  static std::size_t mask_of(const Scope& scope);
  static std::string key_of(std::size_t mask, std::string_view tenant, std::string_view tool,
                            std::string_view user);
  std::array<Table, kMasks> tables_;
};

}  // namespace tool_firewall
