// SPDX-License-Identifier: Apache-2.0
// What operators said for scopes of calls: one entry a scope, found from the most specific to the most
// general (user, then tool, then tenant, then everything).
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

namespace tool_firewall {

// "" means any. A scope may name several.
struct Scope {
  std::string tenant, tool, user;
};

// `Record` has a Scope `scope`.
template <class Record>
class Scopes {
 public:
  void set(Record record) {
    const std::size_t mask = mask_of(record.scope);
    std::string key = key_of(mask, record.scope.tenant, record.scope.tool, record.scope.user);
    tables_[mask].insert_or_assign(std::move(key), std::move(record));
  }

  void clear(const Scope& scope) {
    const std::size_t mask = mask_of(scope);
    tables_[mask].erase(key_of(mask, scope.tenant, scope.tool, scope.user));
  }

  // The entry of just this scope.
  const Record* at(const Scope& scope) const {
    const std::size_t mask = mask_of(scope);
    const auto found = tables_[mask].find(key_of(mask, scope.tenant, scope.tool, scope.user));
    return found == tables_[mask].end() ? nullptr : &found->second;
  }

  // The most specific entry for a call that `holds(entry)`.
  template <class Holds>
  const Record* find(std::string_view tenant, std::string_view tool, std::string_view user,
                     const Holds& holds) const {
    for (std::size_t mask = kMasks; mask-- > 0;) {
      if (tables_[mask].empty()) continue;
      const auto found = tables_[mask].find(key_of(mask, tenant, tool, user));
      if (found != tables_[mask].end() && holds(found->second)) return &found->second;
    }
    return nullptr;
  }

  // Most general first.
  std::vector<Record> all() const {
    std::vector<Record> records;
    for (const Table& table : tables_) {
      const std::size_t from = records.size();
      for (const auto& [key, record] : table) records.push_back(record);
      std::sort(records.begin() + static_cast<std::ptrdiff_t>(from), records.end(),
                [](const Record& a, const Record& b) {
                  return std::tie(a.scope.tenant, a.scope.tool, a.scope.user) <
                         std::tie(b.scope.tenant, b.scope.tool, b.scope.user);
                });
    }
    return records;
  }

  bool empty() const {
    return std::all_of(tables_.begin(), tables_.end(), [](const Table& table) { return table.empty(); });
  }

  std::size_t size() const {
    std::size_t sum = 0;
    for (const Table& table : tables_) sum += table.size();
    return sum;
  }

  // Takes out the entries that are `gone(entry)`.
  template <class Gone>
  void erase_if(const Gone& gone) {
    for (Table& table : tables_) std::erase_if(table, [&](const auto& entry) { return gone(entry.second); });
  }

 private:
  static constexpr std::size_t kTenantBit = 1, kToolBit = 2, kUserBit = 4, kMasks = 8;
  using Table = std::unordered_map<std::string, Record>;

  static std::size_t mask_of(const Scope& scope) {
    return (scope.tenant.empty() ? 0 : kTenantBit) | (scope.tool.empty() ? 0 : kToolBit) |
           (scope.user.empty() ? 0 : kUserBit);
  }
  // Lengths keep the parts apart whatever characters they hold.
  static std::string key_of(std::size_t mask, std::string_view tenant, std::string_view tool,
                            std::string_view user) {
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

  std::array<Table, kMasks> tables_;
};

}  // namespace tool_firewall
