// SPDX-License-Identifier: Apache-2.0
// Everybody the engine knows, by tenant, within bounds. Within a tenant a flood of newcomers pushes out
// newcomers first: a principal counts as established from its eighth call on.
//
// Memory as a whole is bounded too. Beyond the bound goes, first, the oldest newcomer of the tenant that has
// most of them (within a factor of two, so that finding it costs nothing); when there are none, an
// established principal of the tenant that uses most; and when it is the tables of groups and tenants that
// use it all, those beyond their share stop growing. So nobody can push out the established principals of a
// smaller tenant. A tenant whose last principal goes is forgotten with it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "behavior/levels.h"

namespace tool_firewall {

using PrincipalPtr = std::shared_ptr<Principal>;

// Keyed, because names come from outside: whoever could make names collide could make every lookup slow.
struct NameHash {
  using is_transparent = void;
  const Hasher* hasher;
  std::size_t operator()(std::string_view name) const { return hasher->text(name); }
};
template <class Value>
using ByName = std::unordered_map<std::string, Value, NameHash, std::equal_to<>>;

struct TenantState {
  TenantState(std::string name, std::size_t channels, std::size_t state_bytes, const Hasher& hasher)
      : peers(std::move(name), channels, state_bytes),
        groups(0, NameHash{&hasher}),
        principals(0, NameHash{&hasher}) {}
  Peers peers;
  ByName<std::unique_ptr<Peers>> groups;
  ByName<PrincipalPtr> principals;       // by user
  std::deque<PrincipalPtr> newcomers;    // in order of arrival; the front ones may be established by now
  std::deque<PrincipalPtr> established;  // candidates for eviction when there are no newcomers

  // Made again by Principals::trim(), so not part of a snapshot.
  bool known = true;          // not forgotten
  std::size_t bytes = 0;      // of its principals, groups and itself
  std::size_t new_count = 0;  // principals that are newcomers
  std::uint8_t crowd = 0;     // its place in Principals::crowds_
  std::list<TenantState*>::iterator in_crowd;
};

class Principals {
 public:
  struct Sizes {
    std::size_t channels;
    StateSize state;  // of all signals
  };
  static constexpr std::uint64_t kEstablishedCalls = 8;
  static constexpr std::size_t kGroupsPerTenant = 1024;  // further groups share the tenant's own level
  static constexpr std::size_t kNoBound = std::numeric_limits<std::size_t>::max();

  // `most_bytes`: of memory, for all tenants together. `hasher` must outlive this object.
  Principals(Sizes sizes, std::size_t most_per_tenant, const Hasher& hasher,
             std::size_t most_bytes = kNoBound);
  ~Principals();
  Principals(Principals&&) = default;
  Principals& operator=(Principals&&) = default;

  // One with the same bounds that knows nobody.
  Principals another() const { return {sizes_, most_, *hasher_, most_bytes_}; }

  // Finds or makes. A tenant and its groups live as long as somebody holds one of its principals.
  TenantState& tenant(std::string_view name);
  Peers& group(TenantState& tenant, std::string_view name);

  // Finds or makes; making one may evict others. `fresh` tells whether it was made.
  PrincipalPtr principal(TenantState& tenant, std::string_view user, bool& fresh);
  PrincipalPtr find(std::string_view tenant, std::string_view user) const;

  // Counts anew what a principal or a level uses after it may have grown. Counting a principal may evict
  // others.
  void settle(Principal& principal) {
    if (footprint(principal) != principal.bytes ||
        (principal.newcomer && principal.calls >= kEstablishedCalls)) [[unlikely]]
      count(principal);
    if (bytes_ > most_bytes_) [[unlikely]]
      make_room(&principal);
  }
  void settle(TenantState& tenant, Peers& peers) {
    if (footprint(peers) != peers.bytes) [[unlikely]]
      count(tenant, peers);
  }

  // For snapshots. All tenants in an order that, together with `next`, says who is evicted next: one that
  // makes the tenants in this order and fills them in goes on with the same.
  std::vector<std::shared_ptr<TenantState>> in_order() const;

  // Counts everything anew after the tenants were filled in from outside, and makes room until all bounds
  // hold that are tighter than those the tenants come from. Beyond its bound of memory one is for a while
  // anyway.
  void trim(std::size_t most_bytes_before = kNoBound);

  const ByName<std::shared_ptr<TenantState>>& tenants() const { return tenants_; }
  std::uint64_t evicted() const { return evicted_; }
  std::uint64_t evicted_for_memory() const { return evicted_for_memory_; }  // of them, at the bound of memory
  std::uint64_t tables_stopped() const { return tables_stopped_; }
  std::uint64_t groups_refused() const { return groups_refused_; }
  std::size_t size() const;
  std::size_t bytes() const { return bytes_; }
  std::size_t most_bytes() const { return most_bytes_; }

 private:
  std::size_t footprint(const Principal& principal) const {
    return principal.fixed_bytes + principal.counts.bytes() +
           principal.sessions.size() * (kSessionBytes + sizes_.state.session) +
           principal.held.size() * sizeof(HeldItem);
  }
  std::size_t fixed_bytes(const Principal& principal) const {
    return kPrincipalBytes + sizes_.state.user + principal.tenant.size() + 2 * principal.user.size();
  }
  std::size_t footprint(const Peers& peers) const {
    return kPeersBytes + sizes_.state.peers + peers.counts.bytes() + peers.shares.bytes() +
           peers.calibrators.bytes();
  }
  // With what the allocator adds.
  static constexpr std::size_t kSessionBytes = sizeof(Session) + 40;
  static constexpr std::size_t kPrincipalBytes = sizeof(Principal) + 250;
  static constexpr std::size_t kPeersBytes = sizeof(Peers) + 64 * sizeof(CountTable) + 900;
  static constexpr std::size_t kTenantBytes = sizeof(TenantState) + 1500;

  friend class SnapshotWriter;
  friend class SnapshotReader;
  void recount();
  void enter(TenantState& tenant);
  void leave(TenantState& tenant);
  void count(Principal& principal);
  void count(TenantState& tenant, Peers& peers);
  void counted(TenantState& tenant, std::size_t before, std::size_t after);
  void place(TenantState& tenant);
  // Never evict `keep`, who calls right now; false when there is nobody else.
  bool make_room(const Principal* keep = nullptr);
  bool evict_one(TenantState& tenant, const Principal* keep = nullptr);
  TenantState* fullest(const Principal* keep);
  void forget(TenantState& tenant, const PrincipalPtr& principal);
  void grow_up(TenantState& tenant, Principal& principal);

  Sizes sizes_;
  std::size_t most_;
  const Hasher* hasher_;
  std::size_t most_bytes_;
  ByName<std::shared_ptr<TenantState>> tenants_;
  std::array<std::list<TenantState*>, 40> crowds_;  // [n]: 2^(n-1) newcomers to 2^n - 1; [0]: none
  TenantState* fullest_ = nullptr;                  // as last looked for
  std::uint32_t look_again_ = 0;                    // evictions from now
  std::size_t levels_ = 0;                          // tenants and groups
  std::size_t bytes_ = 0;
  std::uint64_t evicted_ = 0;
  std::uint64_t evicted_for_memory_ = 0;
  std::uint64_t tables_stopped_ = 0;
  std::uint64_t groups_refused_ = 0;
};

}  // namespace tool_firewall
