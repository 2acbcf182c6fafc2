// SPDX-License-Identifier: Apache-2.0
// Peer groups by what people do, for users of whom nobody said whom they resemble.
//
// At its 20th, 40th, 80th ... call a user joins the learned group of the tenant whose shares of tools overlap
// most with its own, sum over its tools of min(p_user, p_group), when that is at least half; otherwise it
// founds one. Leader clustering (Hartigan, Clustering Algorithms, 1975): one pass, no centre is ever
// computed. Until the first of these calls, and when there are kMost groups and none is near, the tenant is
// the peer group.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "behavior/principals.h"

namespace tool_firewall {

class LearnedGroups {
 public:
  static constexpr std::uint64_t kFirst = 20;  // calls
  static constexpr double kNear = .5;
  static constexpr std::size_t kMost = 32;  // of a tenant
  static constexpr std::string_view kPrefix = "learned ";

  // Whether a user with so many calls is to be looked at (again).
  static bool due(std::uint64_t calls) {
    return calls >= kFirst && calls % kFirst == 0 && ((calls / kFirst) & (calls / kFirst - 1)) == 0;
  }

  // The name of the group for a user, "" for the tenant. `tools`: all there are.
  static std::string choose(const TenantState& tenant, const Principal& user,
                            std::span<const Tool* const> tools, const Hasher& hasher);
};

}  // namespace tool_firewall
