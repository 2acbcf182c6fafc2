// SPDX-License-Identifier: Apache-2.0
#include "engine/modes.h"

#include <algorithm>
#include <utility>

namespace tool_firewall {
namespace {

constexpr std::size_t kTenantBit = 1;
constexpr std::size_t kToolBit = 2;
constexpr std::size_t kUserBit = 4;

}  // namespace

std::size_t Modes::mask_of(const Scope& scope) {
  return (scope.tenant.empty() ? 0 : kTenantBit) | (scope.tool.empty() ? 0 : kToolBit) |
         (scope.user.empty() ? 0 : kUserBit);
}

std::string Modes::key_of(std::size_t mask, std::string_view tenant, std::string_view tool,
                          std::string_view user) {
  // Lengths keep the parts apart whatever characters they hold.
  std::string key;
  const auto part = [&](std::size_t bit, std::string_view text) {
    if ((mask & bit) == 0) return;
    key.append(std::to_string(text.size())).append(":").append(text);
  };
  part(kTenantBit, tenant);
  part(kToolBit, tool);
  part(kUserBit, user);
  return key;
}

void Modes::set(ModeRecord record) {
  const std::size_t mask = mask_of(record.scope);
  std::string key = key_of(mask, record.scope.tenant, record.scope.tool, record.scope.user);
  tables_[mask].insert_or_assign(std::move(key), std::move(record));
}

void Modes::clear(const Scope& scope) {
  const std::size_t mask = mask_of(scope);
  tables_[mask].erase(key_of(mask, scope.tenant, scope.tool, scope.user));
}

const ModeRecord* Modes::in_force(std::string_view tenant, std::string_view tool,
                                  std::string_view user) const {
  for (std::size_t mask = kMasks; mask-- > 0;) {
    if (tables_[mask].empty()) continue;
    const auto found = tables_[mask].find(key_of(mask, tenant, tool, user));
    if (found != tables_[mask].end()) return &found->second;
  }
  return nullptr;
}

std::vector<ModeRecord> Modes::all() const {
  std::vector<ModeRecord> records;
  for (const Table& table : tables_) {
    const std::size_t from = records.size();
    for (const auto& [key, record] : table) records.push_back(record);
    std::sort(records.begin() + static_cast<std::ptrdiff_t>(from), records.end(),
              [](const ModeRecord& a, const ModeRecord& b) {
                return std::tie(a.scope.tenant, a.scope.tool, a.scope.user) <
                       std::tie(b.scope.tenant, b.scope.tool, b.scope.user);
              });
  }
  return records;
}

}  // namespace tool_firewall
