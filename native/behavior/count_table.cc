// SPDX-License-Identifier: Apache-2.0
#include "behavior/count_table.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

namespace tool_firewall {
namespace {

constexpr double kFullest =
    0.8;  // lines of six fill up early; at .88 a third of the lookups need a second line

// A cell in a snapshot: u32 low, f32 count, u16 high.
constexpr std::size_t kCellBytes = 10;

constexpr std::uint32_t kInfinite = 0x7f800000;  // bits of a float; those of anything less are smaller

}  // namespace

CountTable::Row CountTable::row(std::uint64_t key) const {
  const Fingerprint f = fingerprint(key, Cell::kDecayed);
  Row row;
  std::size_t at = home(f);
  for (std::size_t probed = 0; probed < lines_.size(); ++probed) {
    const Line& line = lines_[at];
    for (unsigned hits = match(line, f.low); hits != 0; hits &= hits - 1) {
      const auto cell = static_cast<std::size_t>(std::countr_zero(hits));
      if (line.high[cell] == f.high) row.total = line.count[cell];
      if (line.high[cell] == (f.high | kPlainBit)) row.types = line.count[cell];
    }
    if ((row.total > 0 && row.types > 0) || match(line, 0) != 0) break;
    if (++at == lines_.size()) at = 0;
  }
  return row;
}

bool CountTable::add(std::uint64_t key, float amount, Cell kind) {
  const Fingerprint f = fingerprint(key, kind);
  if (const float* cell = locate(f)) {
    *const_cast<float*>(cell) += amount;
    return false;
  }
  const auto fullest = static_cast<double>(lines_.size() * kCells) * kFullest;
  if (static_cast<double>(size_ + 1) > fullest) {
    if (lines_.size() >= max_lines_) {
      replace_smallest(f, amount);
      return true;
    }
    rebuild(std::min<std::size_t>(max_lines_, lines_.size() + std::max<std::size_t>(1, lines_.size() / 4)),
            1.0F, 0.0F);
  }
  place(f, amount);
  return true;
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
  // A free cell is taken only where nothing can go: with no free cells left, a lookup of an absent key, which
  // ends at the first free cell, would scan the whole table.
  std::uint32_t smallest = kCells;
  bool room = false;
  for (std::uint32_t cell = 0; cell < kCells; ++cell) {
    if (line.low[cell] == 0) {
      room = true;
      continue;
    }
    if ((line.high[cell] & kPlainBit) == 0 && (smallest == kCells || line.count[cell] < line.count[smallest]))
      smallest = cell;
  }
  if (smallest == kCells) {
    if (room) place(f, amount);
    return;
  }
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
      const bool plain = (line.high[cell] & kPlainBit) != 0;
      const float count = plain ? line.count[cell] : line.count[cell] * factor;
      if (plain || count >= floor) place({line.low[cell], line.high[cell]}, count);
    }
  }
}

void CountTable::drop(std::uint64_t key) {
  const float* cell = locate(fingerprint(key, Cell::kDecayed));
  if (cell == nullptr) return;
  *const_cast<float*>(cell) = 0;
  rescale(1, std::numeric_limits<float>::min());
}

void CountTable::rescale(float factor, float floor) {
  if (!lines_.empty()) rebuild(lines_.size(), factor, floor);
}

// The cells of a line fill up from its beginning, so how many there are says which they are.
void CountTable::write(StateWriter& out) const {
  const bool stopped = max_lines_ <= std::max<std::size_t>(1, lines_.size());
  out(static_cast<std::uint32_t>(lines_.size()), size_, stopped);
  char* filled = out.grow(lines_.size() + size_ * kCellBytes);
  char* at = filled + lines_.size();
  for (const Line& line : lines_) {
    std::uint32_t cell = 0;
    for (; cell < kCells && line.low[cell] != 0; ++cell, at += kCellBytes) {
      std::memcpy(at, &line.low[cell], 4);
      std::memcpy(at + 4, &line.count[cell], 4);
      std::memcpy(at + 8, &line.high[cell], 2);
    }
    *filled++ = static_cast<char>(cell);
  }
}

void CountTable::read(StateReader& in) {
  const auto lines = in.number<std::uint32_t>();
  const auto size = in.number<std::uint32_t>();
  const auto stopped = in.number<bool>();
  if (lines > max_lines_) StateReader::wrong("a table is too large");
  const std::string_view filled = in.raw(lines);
  const std::string_view cells = in.raw(size * kCellBytes);
  std::size_t sum = 0;
  for (const char n : filled) {
    if (static_cast<unsigned char>(n) > kCells) StateReader::wrong("a line of a table is too long");
    sum += static_cast<unsigned char>(n);
  }
  if (sum != size) StateReader::wrong("a table does not hold what it says");
  std::vector<Line> read(lines);
  const char* at = cells.data();
  bool wrong = false;
  for (std::size_t i = 0; i < lines; ++i) {
    Line& line = read[i];
    for (std::uint32_t cell = 0; cell < static_cast<unsigned char>(filled[i]); ++cell, at += kCellBytes) {
      std::memcpy(&line.low[cell], at, 4);
      std::memcpy(&line.count[cell], at + 4, 4);
      std::memcpy(&line.high[cell], at + 8, 2);
      wrong |= line.low[cell] == 0 || std::bit_cast<std::uint32_t>(line.count[cell]) >= kInfinite;
    }
  }
  if (wrong) StateReader::wrong("a table holds what cannot be counted");
  lines_ = std::move(read);
  size_ = size;
  if (stopped) stop_growing();
}

ShardedCountTable::ShardedCountTable(std::uint32_t max_cells)
    : shards_(kShards, CountTable(static_cast<std::uint32_t>(max_cells / kShards))) {}

void ShardedCountTable::rescale(float factor, float floor) {
  for (CountTable& shard : shards_) shard.rescale(factor, floor);
}

bool ShardedCountTable::stop_growing() {
  bool changed = false;
  for (CountTable& shard : shards_) changed |= shard.stop_growing();
  return changed;
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

void ShardedCountTable::write(StateWriter& out) const {
  for (const CountTable& shard : shards_) shard.write(out);
}

void ShardedCountTable::read(StateReader& in) {
  bytes_ = 0;
  for (CountTable& shard : shards_) {
    shard.read(in);
    bytes_ += shard.bytes();
  }
}

}  // namespace tool_firewall
