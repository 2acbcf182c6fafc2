// SPDX-License-Identifier: Apache-2.0
// How often values are new at one argument of one tool, for a peer group: three shares a key.
//
// Many small tables, so that no single growth step is long. One that is full forgets the quarter of its
// entries that learned least, which is counted.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "behavior/state_io.h"

namespace tool_firewall {

// Divided back beyond a window. 32-bit, like all that is kept per argument.
struct Share {
  float hits = 1;
  float total = 2;

  double value() const { return static_cast<double>(hits) / static_cast<double>(total); }
  void learn(bool hit, double window) {
    const double fade = static_cast<double>(total) > window ? window / (static_cast<double>(total) + 1) : 1;
    hits = static_cast<float>(static_cast<double>(hits) * fade + (hit ? 1 : 0));
    total = static_cast<float>(static_cast<double>(total) * fade + 1);
  }
};

struct Shares {
  Share new_to_user;    // of all values
  Share new_to_group;   // of those new to a user
  Share new_to_tenant;  // of those new to the group

  // Whether users hardly ever share values here.
  bool unshared() const { return new_to_group.total >= 30 && new_to_group.value() > .9; }
};

class ShareTable {
 public:
  static constexpr std::size_t kShards = 64;
  static constexpr std::size_t kMostPerShard = 1024;  // a power of two

  // The shares of a key; those nothing is known of yet are where all begin.
  const Shares& get(std::uint64_t key) const;
  // The same for changing; makes them when needed.
  Shares& at(std::uint64_t key);

  void prefetch(std::uint64_t key) const {
    const Shard& own = shard(key);
    if (!own.empty()) __builtin_prefetch(&own[home(own, key)]);
  }

  std::size_t bytes() const { return bytes_; }
  std::uint64_t evicted() const { return evicted_; }
  void write(StateWriter& out) const;
  void read(StateReader& in);  // into an empty table

 private:
  struct Entry {
    std::uint64_t key = 0;  // 0: free
    Shares shares;
  };
  static_assert(sizeof(Entry) == 32);
  using Shard = std::vector<Entry>;  // a power of two, at most 7/8 full

  static std::uint64_t keyed(std::uint64_t key) { return key == 0 ? 1 : key; }
  static std::size_t home(const Shard& shard, std::uint64_t key) {
    return static_cast<std::size_t>(key) & (shard.size() - 1);
  }
  static std::size_t shard_of(std::uint64_t key) { return static_cast<std::size_t>(key >> 58); }
  const Shard& shard(std::uint64_t key) const { return shards_[shard_of(key)]; }
  static void refill(Shard& shard, const Shard& entries, float least);
  void grow(Shard& shard);
  void forget_least(Shard& shard, std::uint32_t& size);

  std::array<Shard, kShards> shards_;
  std::array<std::uint32_t, kShards> sizes_{};
  std::size_t bytes_ = 0;
  std::uint64_t evicted_ = 0;
};

}  // namespace tool_firewall
