// SPDX-License-Identifier: Apache-2.0
#include "behavior/count_table.h"

#include <emmintrin.h>

#include <algorithm>
#include <bit>
#include <utility>

namespace tool_firewall {
namespace {

constexpr std::uint16_t kPlainBit = 0x8000;
constexpr double kFullest = 0.88;

bool is_plain(std::uint16_t high) { return (high & kPlainBit) != 0; }

}  // namespace

CountTable::Fingerprint CountTable::fingerprint(std::uint64_t key, Cell kind) {
  const auto low = static_cast<std::uint32_t>(key);
  const auto high = static_cast<std::uint16_t>((key >> 32) & 0x7fff);
  return {low == 0 ? 1 : low, kind == Cell::kPlain ? static_cast<std::uint16_t>(high | kPlainBit) : high};
}

float* CountTable::locate(Fingerprint f) {
  if (lines_.empty()) return nullptr;
  const __m128i wanted = _mm_set1_epi32(static_cast<int>(f.low));
  const __m128i free = _mm_setzero_si128();
  std::size_t at = home(f);
  for (std::size_t probed = 0; probed < lines_.size(); ++probed) {
    Line& line = lines_[at];
    const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(line.low));
    // The second load runs two words into `count`; the mask keeps the cells.
    const __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(line.low + 4));
    auto hits = static_cast<unsigned>(
        _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(first, wanted))) |
        ((_mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(second, wanted))) & 0x3) << 4));
    while (hits != 0) {
      const auto cell = static_cast<std::size_t>(std::countr_zero(hits));
      if (line.high[cell] == f.high) return &line.count[cell];
      hits &= hits - 1;
    }
    const int unused = _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(first, free))) |
                       (_mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(second, free))) & 0x3);
    if (unused != 0) return nullptr;
    if (++at == lines_.size()) at = 0;
  }
  return nullptr;
}

float CountTable::get(std::uint64_t key, Cell kind) const {
  const float* cell = const_cast<CountTable*>(this)->locate(fingerprint(key, kind));
  return cell == nullptr ? 0.0F : *cell;
}

void CountTable::add(std::uint64_t key, float amount, Cell kind) {
  const Fingerprint f = fingerprint(key, kind);
  if (float* cell = locate(f)) {
    *cell += amount;
    return;
  }
  const auto fullest = static_cast<double>(lines_.size() * kCells) * kFullest;
  if (static_cast<double>(size_ + 1) > fullest) {
    if (lines_.size() >= max_lines_) {
      replace_smallest(f, amount);
      return;
    }
    rebuild(std::min<std::size_t>(max_lines_, lines_.size() + std::max<std::size_t>(1, lines_.size() / 4)), 1.0F,
            0.0F);
  }
  place(f, amount);
}

void CountTable::place(Fingerprint f, float amount) {
  std::size_t at = home(f);
  while (true) {
    Line& line = lines_[at];
    for (std::uint32_t cell = 0; cell < kCells; ++cell) {
      if (line.low[cell] != 0) continue;
      line.low[cell] = f.low;
      line.high[cell] = f.high;
      line.count[cell] = amount;
      ++size_;
      return;
    }
    if (++at == lines_.size()) at = 0;
  }
}

void CountTable::replace_smallest(Fingerprint f, float amount) {
  ++evicted_;
  Line& line = lines_[home(f)];
  std::uint32_t smallest = kCells;
  for (std::uint32_t cell = 0; cell < kCells; ++cell) {
    if (line.low[cell] == 0) {
      place(f, amount);
      return;
    }
    if (!is_plain(line.high[cell]) && (smallest == kCells || line.count[cell] < line.count[smallest])) smallest = cell;
  }
  if (smallest == kCells) return;
  line.low[smallest] = f.low;
  line.high[smallest] = f.high;
  line.count[smallest] = amount;
}

void CountTable::rebuild(std::size_t lines, float factor, float floor) {
  std::vector<Line> old(lines);
  old.swap(lines_);
  size_ = 0;
  for (const Line& line : old) {
    for (std::uint32_t cell = 0; cell < kCells; ++cell) {
      if (line.low[cell] == 0) continue;
      const float count = is_plain(line.high[cell]) ? line.count[cell] : line.count[cell] * factor;
      if (count >= floor) place({line.low[cell], line.high[cell]}, count);
    }
  }
}

void CountTable::rescale(float factor, float floor) {
  if (!lines_.empty()) rebuild(lines_.size(), factor, floor);
}

ShardedCountTable::ShardedCountTable(std::uint32_t max_cells)
    : shards_(kShards, CountTable(static_cast<std::uint32_t>(max_cells / kShards))) {}

void ShardedCountTable::rescale(float factor, float floor) {
  for (CountTable& shard : shards_) shard.rescale(factor, floor);
}

std::uint64_t ShardedCountTable::size() const {
  std::uint64_t sum = 0;
  for (const CountTable& shard : shards_) sum += shard.size();
  return sum;
}

std::uint64_t ShardedCountTable::evicted() const {
  std::uint64_t sum = 0;
  for (const CountTable& shard : shards_) sum += shard.evicted();
  return sum;
}

std::size_t ShardedCountTable::bytes() const {
  std::size_t sum = 0;
  for (const CountTable& shard : shards_) sum += shard.bytes();
  return sum;
}

}  // namespace tool_firewall
