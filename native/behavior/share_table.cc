// SPDX-License-Identifier: Apache-2.0
#include "behavior/share_table.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace tool_firewall {
namespace {

constexpr std::size_t kFirst = 8;  // entries
constexpr std::size_t kSavedBytes = sizeof(std::uint64_t) + sizeof(Shares);

}  // namespace

const Shares& ShareTable::get(std::uint64_t key) const {
  static const Shares kUnknown;
  key = keyed(key);
  const Shard& own = shard(key);
  if (own.empty()) return kUnknown;
  for (std::size_t at = home(own, key); own[at].key != 0; at = (at + 1) & (own.size() - 1))
    if (own[at].key == key) return own[at].shares;
  return kUnknown;
}

Shares& ShareTable::at(std::uint64_t key) {
  key = keyed(key);
  Shard& own = shards_[shard_of(key)];
  std::uint32_t& size = sizes_[shard_of(key)];
  if (!own.empty()) {
    std::size_t place = home(own, key);
    for (; own[place].key != 0; place = (place + 1) & (own.size() - 1))
      if (own[place].key == key) return own[place].shares;
    if ((std::size_t{size} + 1) * 8 <= own.size() * 7) {
      ++size;
      own[place].key = key;
      return own[place].shares;
    }
    if (own.size() >= kMostPerShard) {
      forget_least(own, size);
      return at(key);
    }
  }
  grow(own);
  return at(key);
}

void ShareTable::refill(Shard& shard, const Shard& entries, float least) {
  for (const Entry& entry : entries) {
    if (entry.key == 0 || entry.shares.new_to_user.total < least) continue;
    std::size_t at = home(shard, entry.key);
    while (shard[at].key != 0) at = (at + 1) & (shard.size() - 1);
    shard[at] = entry;
  }
}

void ShareTable::grow(Shard& shard) {
  Shard old(shard.empty() ? kFirst : shard.size() * 2);
  bytes_ += (old.size() - shard.size()) * sizeof(Entry);
  old.swap(shard);
  refill(shard, old, 0);
}

void ShareTable::forget_least(Shard& shard, std::uint32_t& size) {
  std::vector<float> totals;
  for (const Entry& entry : shard)
    if (entry.key != 0) totals.push_back(entry.shares.new_to_user.total);
  const auto quarter = totals.begin() + static_cast<std::ptrdiff_t>(totals.size() / 4);
  std::nth_element(totals.begin(), quarter, totals.end());
  // Just above the quarter: with many equal ones, as after a flood of new arguments, more go, and at least
  // one.
  const float least = std::nextafter(*quarter, std::numeric_limits<float>::infinity());
  Shard old(shard.size());
  old.swap(shard);
  refill(shard, old, least);
  const auto kept = static_cast<std::uint32_t>(
      std::count_if(shard.begin(), shard.end(), [](const Entry& entry) { return entry.key != 0; }));
  evicted_ += size - kept;
  size = kept;
}

void ShareTable::write(StateWriter& out) const {
  for (std::size_t i = 0; i < kShards; ++i) {
    out(static_cast<std::uint32_t>(shards_[i].size()), sizes_[i]);
    for (std::size_t at = 0; at < shards_[i].size(); ++at) {
      const Entry& entry = shards_[i][at];
      if (entry.key == 0) continue;
      const Shares& s = entry.shares;
      out(static_cast<std::uint32_t>(at), entry.key, s.new_to_user.hits, s.new_to_user.total,
          s.new_to_group.hits, s.new_to_group.total, s.new_to_tenant.hits, s.new_to_tenant.total);
    }
  }
}

void ShareTable::read(StateReader& in) {
  bytes_ = 0;
  for (std::size_t i = 0; i < kShards; ++i) {
    const auto places = in.number<std::uint32_t>();
    const std::size_t size = in.count(kSavedBytes);
    const bool power = places == 0 || (places >= kFirst && (places & (places - 1)) == 0);
    if (!power || places > kMostPerShard || size > std::size_t{places} / 8 * 7)
      StateReader::wrong("a table of shares is too large");
    Shard shard(places);
    for (std::size_t n = 0; n < size; ++n) {
      const auto at = in.number<std::uint32_t>();
      if (at >= places || shard[at].key != 0)
        StateReader::wrong("a table of shares does not hold what it says");
      Entry& entry = shard[at];
      Shares& s = entry.shares;
      in(entry.key, s.new_to_user.hits, s.new_to_user.total, s.new_to_group.hits, s.new_to_group.total,
         s.new_to_tenant.hits, s.new_to_tenant.total);
      for (const Share& one : {s.new_to_user, s.new_to_group, s.new_to_tenant})
        if (entry.key == 0 || !(one.hits > 0) || !(one.total >= one.hits) || one.total > 1e6F)
          StateReader::wrong("a table of shares holds what no share is");
    }
    shards_[i] = std::move(shard);
    sizes_[i] = static_cast<std::uint32_t>(size);
    bytes_ += places * sizeof(Entry);
  }
}

}  // namespace tool_firewall
