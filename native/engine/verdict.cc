// SPDX-License-Identifier: Apache-2.0
#include "engine/verdict.h"

#include <algorithm>
#include <array>

#include "text/phrase.h"

namespace tool_firewall {
namespace {

constexpr std::array<std::string_view, 4> kModes = {"learning", "warn", "shadow", "block"};
constexpr std::array<std::string_view, 3> kDecisions = {"allow", "audit", "deny"};
constexpr std::array<std::string_view, 4> kInspections = {"", "depth", "size", "type"};
constexpr std::array<std::string_view, 4> kOutcomes = {"ok", "tool_error", "timeout", "unreachable"};

template <class Value, std::size_t N>
std::optional<Value> named(const std::array<std::string_view, N>& names, std::string_view name) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) return std::nullopt;
  return static_cast<Value>(found - names.begin());
}

}  // namespace

std::string_view name_of(Mode mode) { return kModes.at(static_cast<std::size_t>(mode)); }
std::string_view name_of(Decision decision) { return kDecisions.at(static_cast<std::size_t>(decision)); }
std::string_view name_of(Inspection inspection) {
  return kInspections.at(static_cast<std::size_t>(inspection));
}
std::string_view name_of(Outcome outcome) { return kOutcomes.at(static_cast<std::size_t>(outcome)); }
std::optional<Mode> mode_named(std::string_view name) { return named<Mode>(kModes, name); }
std::optional<Outcome> outcome_named(std::string_view name) { return named<Outcome>(kOutcomes, name); }

std::string incident_name(std::uint64_t incident) {
  return phrase("tf-%012llx", static_cast<unsigned long long>(incident & 0xffffffffffffULL));
}

}  // namespace tool_firewall
