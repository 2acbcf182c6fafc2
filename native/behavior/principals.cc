// SPDX-License-Identifier: Apache-2.0
#include "behavior/principals.h"

#include <utility>

namespace tool_firewall {

TenantState& Principals::tenant(std::string_view name) {
  std::string key(name);
  auto& slot = tenants_[key];
  if (!slot) slot = std::make_unique<TenantState>(std::move(key), sizes_.channels, sizes_.peers_state);
  return *slot;
}

Peers& Principals::group(TenantState& tenant, std::string_view name) {
  if (name.empty()) return tenant.peers;
  std::string key(name);
  if (const auto found = tenant.groups.find(key); found != tenant.groups.end()) return *found->second;
  if (tenant.groups.size() >= kGroupsPerTenant) {
    ++groups_refused_;
    return tenant.peers;
  }
  auto made = std::make_unique<Peers>(key, sizes_.channels, sizes_.peers_state);
  return *tenant.groups.emplace(std::move(key), std::move(made)).first->second;
}

PrincipalPtr Principals::principal(TenantState& tenant, std::string_view user, bool& fresh) {
  std::string key(user);
  const auto found = tenant.principals.find(key);
  fresh = found == tenant.principals.end();
  if (!fresh) return found->second;
  if (tenant.principals.size() >= most_) evict_one(tenant);
  auto made = std::make_shared<Principal>(tenant.peers.name, key, sizes_.user_state);
  tenant.principals.emplace(std::move(key), made);
  tenant.newcomers.push_back(made);
  return made;
}

PrincipalPtr Principals::find(std::string_view tenant, std::string_view user) const {
  const auto where = tenants_.find(std::string(tenant));
  if (where == tenants_.end()) return nullptr;
  const auto found = where->second->principals.find(std::string(user));
  return found == where->second->principals.end() ? nullptr : found->second;
}

std::size_t Principals::size() const {
  std::size_t sum = 0;
  for (const auto& [name, tenant] : tenants_) sum += tenant->principals.size();
  return sum;
}

void Principals::forget(TenantState& tenant, const PrincipalPtr& principal) {
  principal->evicted = true;
  tenant.principals.erase(principal->user);
  ++evicted_;
}

void Principals::trim() {
  for (const auto& [name, tenant] : tenants_)
    while (tenant->principals.size() > most_) evict_one(*tenant);
}

void Principals::evict_one(TenantState& tenant) {
  while (!tenant.newcomers.empty()) {
    const PrincipalPtr oldest = tenant.newcomers.front();
    tenant.newcomers.pop_front();
    if (oldest->calls < kEstablishedCalls) {
      forget(tenant, oldest);
      return;
    }
    tenant.established.push_back(oldest);
  }
  // Second chance: whoever called since the last look goes to the back once.
  while (!tenant.established.empty()) {
    const PrincipalPtr oldest = tenant.established.front();
    tenant.established.pop_front();
    if (!std::exchange(oldest->used, false)) {
      forget(tenant, oldest);
      return;
    }
    tenant.established.push_back(oldest);
  }
}

}  // namespace tool_firewall
