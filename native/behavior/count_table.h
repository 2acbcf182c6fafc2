// SPDX-License-Identifier: Apache-2.0
// Counts by key: how often each tool, step or hour was seen, with old events fading.
//
// Layout: 64-byte lines of six cells (48-bit fingerprint + float), so that a lookup costs one cache line. A
// key's line comes from its fingerprint, which lets the table grow without the full keys. The chance that an
// absent key is taken for a present one is about (cells in the table) / 2^47.
//
// Two kinds of cell:
//   decayed  forward-decayed sums (Cormode et al., 2009): an event at time t adds 2^((t - landmark)/H),
//   readers
//            divide by the same factor of now. rescale() moves the landmark before floats overflow.
//   plain    counts that do not fade (the number of distinct types in a row).
#pragma once

#include <emmintrin.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "behavior/state_io.h"

namespace tool_firewall {

class CountTable {
 public:
  enum class Cell : std::uint8_t { kDecayed, kPlain };

  // At most `max_cells` cells are kept. An insert beyond that replaces the smallest decayed cell of its line
  // and is counted in evicted().
  explicit CountTable(std::uint32_t max_cells) : max_lines_((max_cells + kCells - 1) / kCells) {}

  // A row's decayed total and its number of distinct items; both live under one key.
  struct Row {
    float total = 0;
    float types = 0;
  };

  // The stored value, 0 when the key is absent. Present cells are always > 0.
  float get(std::uint64_t key, Cell kind = Cell::kDecayed) const {
    const float* cell = locate(fingerprint(key, kind));
    return cell == nullptr ? 0.0F : *cell;
  }
  Row row(std::uint64_t key) const;

  // A decayed cell to add to, nullptr when it is absent; valid until something is inserted.
  float* find(std::uint64_t key) { return const_cast<float*>(locate(fingerprint(key, Cell::kDecayed))); }

  // Adds to a cell that is there; false when it is not.
  bool bump(std::uint64_t key, float amount) {
    float* const cell = find(key);
    if (cell == nullptr) return false;
    *cell += amount;
    return true;
  }

  // Adds to a cell, making it when absent; true when it was made.
  bool add(std::uint64_t key, float amount, Cell kind = Cell::kDecayed);

  // A plain cell may hold packed numbers instead of a count; 0 when absent. Never 0 or more than kMostBits.
  static constexpr std::uint32_t kMostBits = 0x7f7fffff;
  std::uint32_t bits(std::uint64_t key) const {
    const float* cell = locate(fingerprint(key, Cell::kPlain));
    return cell == nullptr ? 0 : std::bit_cast<std::uint32_t>(*cell);
  }
  void set_bits(std::uint64_t key, std::uint32_t bits) {
    change_bits(key, [bits](std::uint32_t) { return bits; });
  }
  // Replaces the bits by change(bits) with one lookup where the cell is there; gives them.
  template <class Change>
  std::uint32_t change_bits(std::uint64_t key, const Change& change) {
    const float* const cell = locate(fingerprint(key, Cell::kPlain));
    const std::uint32_t made = change(cell == nullptr ? 0 : std::bit_cast<std::uint32_t>(*cell));
    if (cell != nullptr)
      *const_cast<float*>(cell) = std::bit_cast<float>(made);
    else if (made != 0)
      add(key, std::bit_cast<float>(made), Cell::kPlain);
    return made;
  }

  // Takes a decayed cell out; the whole table is written anew, so this is for rare occasions.
  void drop(std::uint64_t key);

  // Multiplies every decayed cell and drops those that end below `floor`.
  void rescale(float factor, float floor);

  void prefetch(std::uint64_t key) const {
    if (!lines_.empty()) __builtin_prefetch(&lines_[home(fingerprint(key, Cell::kDecayed))]);
  }

  // From now on no more memory, but room for one line at least. True when this changed anything.
  bool stop_growing() {
    const auto most = static_cast<std::uint32_t>(std::max<std::size_t>(1, lines_.size()));
    return std::exchange(max_lines_, std::min(max_lines_, most)) != max_lines_;
  }

  std::uint32_t size() const { return size_; }
  std::uint32_t evicted() const { return evicted_; }
  std::size_t bytes() const { return lines_.capacity() * sizeof(Line); }

  // For snapshots: every cell in its place, so that the copy behaves as the original. read() is for an empty
  // table.
  void write(StateWriter& out) const;
  void read(StateReader& in);

 private:
  static constexpr std::uint32_t kCells = 6;
  struct Fingerprint {
    std::uint32_t low;  // never 0, which marks a free cell
    std::uint16_t high;
  };
  struct alignas(64) Line {
    std::uint32_t low[kCells] = {};
    float count[kCells] = {};
    std::uint16_t high[kCells] = {};
  };
  static_assert(sizeof(Line) == 64);

  static constexpr std::uint16_t kPlainBit = 0x8000;

  static Fingerprint fingerprint(std::uint64_t key, Cell kind) {
    const auto low = static_cast<std::uint32_t>(key);
    const auto high = static_cast<std::uint16_t>((key >> 32) & 0x7fff);
    return {low == 0 ? 1 : low, kind == Cell::kPlain ? static_cast<std::uint16_t>(high | kPlainBit) : high};
  }
  std::size_t home(Fingerprint f) const {
    return static_cast<std::size_t>((std::uint64_t{f.low} * lines_.size()) >> 32);
  }
  // Bit i is set when cell i has this low word.
  static unsigned match(const Line& line, std::uint32_t low) {
    const __m128i wanted = _mm_set1_epi32(static_cast<int>(low));
    const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(line.low));
    // The second load runs two words into `count`; the mask keeps the cells.
    const __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(line.low + 4));
    return static_cast<unsigned>(
        _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(first, wanted))) |
        ((_mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(second, wanted))) & 0x3) << 4));
  }
  const float* locate(Fingerprint f) const {
    std::size_t at = home(f);
    for (std::size_t probed = 0; probed < lines_.size(); ++probed) {
      const Line& line = lines_[at];
      for (unsigned hits = match(line, f.low); hits != 0; hits &= hits - 1) {
        const auto cell = static_cast<std::size_t>(std::countr_zero(hits));
        if (line.high[cell] == f.high) return &line.count[cell];
      }
      if (match(line, 0) != 0) return nullptr;
      if (++at == lines_.size()) at = 0;
    }
    return nullptr;
  }
  void place(Fingerprint f, float amount);
  void replace_smallest(Fingerprint f, float amount);
  void rebuild(std::size_t lines, float factor, float floor);

  std::vector<Line> lines_;
  std::uint32_t size_ = 0;
  std::uint32_t evicted_ = 0;
  std::uint32_t max_lines_;
};

// The same for the large tables of groups and tenants: many small tables, so that no single growth step is
// long.
class ShardedCountTable {
 public:
  explicit ShardedCountTable(std::uint32_t max_cells);
  float get(std::uint64_t key, CountTable::Cell kind = CountTable::Cell::kDecayed) const {
    return shard(key).get(key, kind);
  }
  CountTable::Row row(std::uint64_t key) const { return shard(key).row(key); }
  bool add(std::uint64_t key, float amount, CountTable::Cell kind = CountTable::Cell::kDecayed) {
    CountTable& own = shard(key);
    const std::size_t before = own.bytes();
    const bool made = own.add(key, amount, kind);
    bytes_ += own.bytes() - before;
    return made;
  }

  std::uint32_t bits(std::uint64_t key) const { return shard(key).bits(key); }
  void set_bits(std::uint64_t key, std::uint32_t bits) {
    change_bits(key, [bits](std::uint32_t) { return bits; });
  }
  template <class Change>
  std::uint32_t change_bits(std::uint64_t key, const Change& change) {
    CountTable& own = shard(key);
    const std::size_t before = own.bytes();
    const std::uint32_t made = own.change_bits(key, change);
    bytes_ += own.bytes() - before;
    return made;
  }
  void drop(std::uint64_t key) { shard(key).drop(key); }

  // From now on no more memory: what is new replaces what is smallest. True when this changed anything.
  bool stop_growing();
  void rescale(float factor, float floor);
  void prefetch(std::uint64_t key) const { shard(key).prefetch(key); }
  std::uint64_t size() const;
  std::uint64_t evicted() const;
  std::size_t bytes() const { return bytes_; }
  void write(StateWriter& out) const;
  void read(StateReader& in);

 private:
  static constexpr std::size_t kShards = 64;
  CountTable& shard(std::uint64_t key) { return shards_[key >> 58]; }
  const CountTable& shard(std::uint64_t key) const { return shards_[key >> 58]; }
  std::vector<CountTable> shards_;
  std::size_t bytes_ = 0;  // of the lines of all shards
};

}  // namespace tool_firewall
