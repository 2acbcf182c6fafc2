// SPDX-License-Identifier: Apache-2.0
#include "behavior/principals.h"

#include <algorithm>
#include <bit>
#include <utility>
#include <vector>

namespace tool_firewall {
namespace {

constexpr std::uint32_t kLookAgain = 256;      // evictions
constexpr std::size_t kLeastTable = 1U << 16;  // bytes any table may have
constexpr int kMostAtOnce = 2;                 // evictions; more would make one call slow

}  // namespace

Principals::Principals(Sizes sizes, std::size_t most_per_tenant, const Hasher& hasher, std::size_t most_bytes)
    : sizes_(sizes),
      most_(most_per_tenant),
      hasher_(&hasher),
      most_bytes_(most_bytes),
      tenants_(0, NameHash{&hasher}) {}

Principals::~Principals() {
  // A principal holds its tenant, and the tenant its principals.
  for (const auto& [name, tenant] : tenants_) {
    tenant->newcomers.clear();
    tenant->established.clear();
    tenant->principals.clear();
  }
}

TenantState& Principals::tenant(std::string_view name) {
  if (const auto found = tenants_.find(name); found != tenants_.end()) return *found->second;
  auto made = std::make_shared<TenantState>(std::string(name), sizes_.channels, sizes_.state.peers, *hasher_);
  TenantState& state = *tenants_.emplace(std::string(name), std::move(made)).first->second;
  enter(state);
  counted(state, 0, kTenantBytes);
  count(state, state.peers);
  return state;
}

// What is counted over all tenants, when one comes or goes.
void Principals::enter(TenantState& tenant) {
  tenant.known = true;
  tenant.crowd = 0;
  crowds_[0].push_back(&tenant);
  tenant.in_crowd = std::prev(crowds_[0].end());
  levels_ += 1 + tenant.groups.size();
  bytes_ += tenant.bytes;
}

void Principals::leave(TenantState& tenant) {
  if (fullest_ == &tenant) fullest_ = nullptr;
  crowds_[tenant.crowd].erase(tenant.in_crowd);
  levels_ -= 1 + tenant.groups.size();
  bytes_ -= tenant.bytes;
  tenant.known = false;
}

Peers& Principals::group(TenantState& tenant, std::string_view name) {
  if (name.empty()) return tenant.peers;
  if (const auto found = tenant.groups.find(name); found != tenant.groups.end()) return *found->second;
  if (tenant.groups.size() >= kGroupsPerTenant) {
    ++groups_refused_;
    return tenant.peers;
  }
  auto made = std::make_unique<Peers>(std::string(name), sizes_.channels, sizes_.state.peers);
  Peers& peers = *tenant.groups.emplace(std::string(name), std::move(made)).first->second;
  ++levels_;
  count(tenant, peers);
  return peers;
}

PrincipalPtr Principals::principal(TenantState& tenant, std::string_view user, bool& fresh) {
  const auto found = tenant.principals.find(user);
  fresh = found == tenant.principals.end();
  if (!fresh) return found->second;
  auto made = std::make_shared<Principal>(tenant.peers.name, std::string(user), sizes_.state.user);
  made->home = tenants_.find(tenant.peers.name)->second;  // before others go, and the tenant with the last
  if (tenant.principals.size() >= most_) evict_one(tenant);
  if (bytes_ > most_bytes_) make_room();
  if (!tenant.known) {  // forgotten with its last principal just now
    tenants_.emplace(tenant.peers.name, made->home);
    enter(tenant);
  }
  tenant.principals.emplace(std::string(user), made);
  tenant.newcomers.push_back(made);
  ++tenant.new_count;
  place(tenant);
  made->fixed_bytes = fixed_bytes(*made);
  count(*made);
  return made;
}

PrincipalPtr Principals::find(std::string_view tenant, std::string_view user) const {
  const auto where = tenants_.find(tenant);
  if (where == tenants_.end()) return nullptr;
  const auto found = where->second->principals.find(user);
  return found == where->second->principals.end() ? nullptr : found->second;
}

std::size_t Principals::size() const {
  std::size_t sum = 0;
  for (const auto& [name, tenant] : tenants_) sum += tenant->principals.size();
  return sum;
}

void Principals::counted(TenantState& tenant, std::size_t before, std::size_t after) {
  tenant.bytes += after - before;
  if (tenant.known) bytes_ += after - before;
}

void Principals::count(Principal& principal) {
  if (principal.evicted) return;
  TenantState& tenant = *principal.home;
  if (principal.newcomer && principal.calls >= kEstablishedCalls) grow_up(tenant, principal);
  const std::size_t now = footprint(principal);
  counted(tenant, std::exchange(principal.bytes, now), now);
}

void Principals::count(TenantState& tenant, Peers& peers) {
  const std::size_t now = footprint(peers);
  counted(tenant, std::exchange(peers.bytes, now), now);
  if (bytes_ > most_bytes_ && peers.counts.bytes() > std::max(kLeastTable, most_bytes_ / (2 * levels_)))
    tables_stopped_ += peers.counts.stop_growing() ? 1 : 0;
}

void Principals::grow_up(TenantState& tenant, Principal& principal) {
  principal.newcomer = false;
  --tenant.new_count;
  place(tenant);
}

// Puts the tenant among those with about as many newcomers.
void Principals::place(TenantState& tenant) {
  const auto crowd = static_cast<std::uint8_t>(std::bit_width(tenant.new_count));
  if (crowd == tenant.crowd) return;
  crowds_[crowd].splice(crowds_[crowd].end(), crowds_[tenant.crowd], tenant.in_crowd);
  tenant.crowd = crowd;
}

TenantState* Principals::fullest(const Principal* keep) {
  for (std::size_t crowd = crowds_.size(); crowd-- > 1;)
    for (TenantState* tenant : crowds_[crowd])
      if (tenant->new_count > 1 || keep == nullptr || !keep->newcomer || keep->home.get() != tenant)
        return tenant;
  if (fullest_ != nullptr && look_again_ > 0 && !fullest_->principals.empty()) {
    --look_again_;
    return fullest_;
  }
  // No newcomer is left but, maybe, the one to be kept.
  fullest_ = keep != nullptr && keep->newcomer && keep->home->known ? keep->home.get() : nullptr;
  for (TenantState* tenant : crowds_[0]) {
    if (tenant->principals.empty()) continue;
    if (fullest_ == nullptr || tenant->bytes > fullest_->bytes ||
        (tenant->bytes == fullest_->bytes && tenant->peers.name < fullest_->peers.name))
      fullest_ = tenant;
  }
  look_again_ = kLookAgain;
  return fullest_;
}

bool Principals::make_room(const Principal* keep) {
  for (int i = 0; i < kMostAtOnce && bytes_ > most_bytes_; ++i) {
    TenantState* const tenant = fullest(keep);
    if (tenant == nullptr || !evict_one(*tenant, keep)) return false;
    ++evicted_for_memory_;
  }
  return true;
}

void Principals::forget(TenantState& tenant, const PrincipalPtr& principal) {
  principal->evicted = true;
  if (principal->newcomer) grow_up(tenant, *principal);
  counted(tenant, std::exchange(principal->bytes, 0), 0);
  // Whoever still holds it does not need these.
  principal->sessions.clear();
  principal->sessions.shrink_to_fit();
  principal->counts = CountTable(kCellsPerUser);
  tenant.principals.erase(principal->user);
  ++evicted_;
  if (!tenant.principals.empty()) return;
  leave(tenant);
  tenants_.erase(tenant.peers.name);  // the principal keeps it alive
}

bool Principals::evict_one(TenantState& tenant, const Principal* keep) {
  while (!tenant.newcomers.empty()) {
    const PrincipalPtr oldest = tenant.newcomers.front();
    if (oldest.get() == keep && tenant.newcomers.size() == 1) break;
    tenant.newcomers.pop_front();
    if (oldest.get() == keep) {
      tenant.newcomers.push_back(oldest);
      continue;
    }
    if (oldest->calls < kEstablishedCalls) {
      forget(tenant, oldest);
      return true;
    }
    if (oldest->newcomer) grow_up(tenant, *oldest);
    tenant.established.push_back(oldest);
  }
  // Second chance: whoever called since the last look goes to the back once.
  while (!tenant.established.empty()) {
    const PrincipalPtr oldest = tenant.established.front();
    if (oldest.get() == keep && tenant.established.size() == 1) break;
    tenant.established.pop_front();
    if (oldest.get() == keep) {
      tenant.established.push_back(oldest);
      continue;
    }
    if (!std::exchange(oldest->used, false)) {
      forget(tenant, oldest);
      return true;
    }
    tenant.established.push_back(oldest);
  }
  return false;
}

std::vector<std::shared_ptr<TenantState>> Principals::in_order() const {
  std::vector<std::shared_ptr<TenantState>> all;
  for (const std::list<TenantState*>& crowd : crowds_)
    for (const TenantState* tenant : crowd) all.push_back(tenants_.find(tenant->peers.name)->second);
  return all;
}

void Principals::recount() {
  const std::vector<std::shared_ptr<TenantState>> all = in_order();
  for (std::list<TenantState*>& crowd : crowds_) crowd.clear();
  fullest_ = nullptr;
  levels_ = 0;
  bytes_ = 0;
  for (const std::shared_ptr<TenantState>& tenant : all) {
    tenant->bytes = 0;
    tenant->new_count = 0;
    enter(*tenant);
    counted(*tenant, 0, kTenantBytes);
    const auto level = [&](Peers& peers) {
      peers.bytes = footprint(peers);  // without a look at the bound, which nobody had to keep at once
      counted(*tenant, 0, peers.bytes);
    };
    level(tenant->peers);
    for (const auto& [name, group] : tenant->groups) level(*group);
    for (const auto& [user, principal] : tenant->principals) {
      principal->home = tenant;
      principal->newcomer = principal->calls < kEstablishedCalls;
      tenant->new_count += principal->newcomer ? 1 : 0;
      principal->fixed_bytes = fixed_bytes(*principal);
      principal->bytes = 0;
      count(*principal);
    }
    place(*tenant);
  }
}

void Principals::trim(std::size_t most_bytes_before) {
  recount();
  for (const std::shared_ptr<TenantState>& tenant : in_order())
    while (tenant->principals.size() > most_ && evict_one(*tenant)) continue;
  if (most_bytes_ < most_bytes_before)
    while (bytes_ > most_bytes_ && make_room()) continue;
}

}  // namespace tool_firewall
