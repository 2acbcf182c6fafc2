// SPDX-License-Identifier: Apache-2.0
// Everybody the engine knows, by tenant, within bounds. Nobody can push out somebody of another tenant, and a
// flood of newcomers pushes out newcomers first: a principal counts as established from its eighth call on.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "behavior/levels.h"

namespace tool_firewall {

using PrincipalPtr = std::shared_ptr<Principal>;

struct TenantState {
  TenantState(std::string name, std::size_t channels, std::size_t state_bytes)
      : peers(std::move(name), channels, state_bytes) {}
  Peers peers;
  std::unordered_map<std::string, std::unique_ptr<Peers>> groups;
  std::unordered_map<std::string, PrincipalPtr> principals;  // by user
  std::deque<PrincipalPtr> newcomers;                        // in order of arrival
  std::deque<PrincipalPtr> established;  // candidates for eviction when there are no newcomers
};

class Principals {
 public:
  struct Sizes {
    std::size_t channels;
    std::size_t user_state;   // bytes
    std::size_t peers_state;  // bytes
  };
  static constexpr std::uint64_t kEstablishedCalls = 8;
  static constexpr std::size_t kGroupsPerTenant = 1024;  // further groups share the tenant's own level

  Principals(Sizes sizes, std::size_t most_per_tenant) : sizes_(sizes), most_(most_per_tenant) {}

  // Finds or makes. The references stay valid for the life of this object.
  TenantState& tenant(std::string_view name);
  Peers& group(TenantState& tenant, std::string_view name);

  // Finds or makes; making one may evict another of the same tenant. `fresh` tells whether it was made.
  PrincipalPtr principal(TenantState& tenant, std::string_view user, bool& fresh);
  PrincipalPtr find(std::string_view tenant, std::string_view user) const;

  const std::unordered_map<std::string, std::unique_ptr<TenantState>>& tenants() const { return tenants_; }
  // Makes room until no tenant holds more than it may.
  void trim();

  std::uint64_t evicted() const { return evicted_; }
  std::uint64_t groups_refused() const { return groups_refused_; }
  std::size_t size() const;

 private:
  friend class SnapshotReader;
  void evict_one(TenantState& tenant);
  void forget(TenantState& tenant, const PrincipalPtr& principal);

  Sizes sizes_;
  std::size_t most_;
  std::unordered_map<std::string, std::unique_ptr<TenantState>> tenants_;
  std::uint64_t evicted_ = 0;
  std::uint64_t groups_refused_ = 0;
};

}  // namespace tool_firewall
