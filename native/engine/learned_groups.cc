// SPDX-License-Identifier: Apache-2.0
#include "engine/learned_groups.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "behavior/usage.h"

namespace tool_firewall {
namespace {

struct Use {
  std::uint64_t cell;
  double share;
};

template <class Table>
double total_of(const Table& counts, const Hasher& hasher, const Tool& any) {
  return static_cast<double>(counts.row(item_key(hasher, ItemKind::kTool, nullptr, any).row).total);
}

}  // namespace

std::string LearnedGroups::choose(const TenantState& tenant, const Principal& user,
                                  std::span<const Tool* const> tools, const Hasher& hasher) {
  std::vector<Use> used;
  const double own = tools.empty() ? 0 : total_of(user.counts, hasher, *tools.front());
  for (const Tool* tool : tools)
    if (const auto count = static_cast<double>(user.counts.get(tool->cell)); count > 0)
      used.push_back({tool->cell, count / own});
  if (used.empty()) return {};

  std::size_t groups = 0;
  std::pair<double, std::string_view> nearest;
  for (const auto& [name, peers] : tenant.groups) {
    if (!name.starts_with(kPrefix)) continue;
    ++groups;
    const double total = total_of(peers->counts, hasher, *tools.front());
    double overlap = 0;
    for (const Use& use : used)
      if (total > 0) overlap += std::min(use.share, static_cast<double>(peers->counts.get(use.cell)) / total);
    // By name where equal, so that all workers choose the same.
    if (overlap > nearest.first || (overlap == nearest.first && name < nearest.second))
      nearest = {overlap, name};
  }
  if (nearest.first >= kNear) return std::string(nearest.second);
  // Whoever has a group stays in it as long as nothing is nearer, or each look would found another.
  if (!user.learned_group.empty()) return user.learned_group;
  if (groups >= kMost) return {};
  return std::string(kPrefix) + std::to_string(groups + 1);
}

}  // namespace tool_firewall
