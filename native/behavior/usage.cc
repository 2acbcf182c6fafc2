// SPDX-License-Identifier: Apache-2.0
#include "behavior/usage.h"

#include <algorithm>

namespace tool_firewall {
namespace {

constexpr double kLeast = 1e-12;
constexpr std::uint64_t kSessionStart = 0;

template <class Table>
Tally tally(const Table& table, const ItemKey& key) {
  return {table.get(key.cell), table.get(key.row), table.get(key.row, CountTable::Cell::kPlain)};
}

template <class Table>
void add(Table& table, const ItemKey& key, double weight) {
  const auto amount = static_cast<float>(weight);
  if (table.get(key.cell) <= 0) table.add(key.row, 1, CountTable::Cell::kPlain);
  table.add(key.cell, amount);
  table.add(key.row, amount);
}

struct Kinds {
  ItemKind item;
  KeyKind row, cell;
};
constexpr Kinds kTool{ItemKind::kTool, KeyKind::kToolRow, KeyKind::kTool};
constexpr Kinds kStep{ItemKind::kStep, KeyKind::kStepRow, KeyKind::kStep};
constexpr Kinds kSkip{ItemKind::kSkip, KeyKind::kSkipRow, KeyKind::kSkip};

Item item_of(const Hasher& hasher, const Kinds& kinds, const Tool* from, const Tool& tool) {
  const std::uint64_t context = from == nullptr ? kSessionStart : from->id;
  Item item;
  item.row = hasher.pair(static_cast<std::uint64_t>(kinds.row), context);
  item.cell = hasher.pair(static_cast<std::uint64_t>(kinds.cell), context, tool.id);
  item.from = from;
  item.kind = kinds.item;
  return item;
}

}  // namespace

Usage Usage::keys(const Hasher& hasher, const Tool& tool, const Session& session) {
  Usage usage;
  usage.items[usage.count++] = item_of(hasher, kTool, nullptr, tool);
  usage.items[usage.count++] = item_of(hasher, kStep, session.previous, tool);
  for (std::uint32_t i = 0; i < session.earlier_count; ++i)
    usage.items[usage.count++] = item_of(hasher, kSkip, session.earlier[i], tool);
  return usage;
}

void Usage::read(const Levels& levels) {
  for (std::size_t i = 0; i < count; ++i) {
    for (const std::uint64_t key : {items[i].cell, items[i].row}) {
      levels.user->counts.prefetch(key);
      levels.group->counts.prefetch(key);
      if (levels.tenant != levels.group) levels.tenant->counts.prefetch(key);
    }
  }
  for (std::size_t i = 0; i < count; ++i) items[i] = read_item(items[i], levels);
}

Item read_item(const ItemKey& key, const Levels& levels) {
  Item item{key, {}};
  item.at[0] = tally(levels.user->counts, key);
  item.at[1] = tally(levels.group->counts, key);
  item.at[2] = levels.tenant == levels.group ? item.at[1] : tally(levels.tenant->counts, key);
  return item;
}

void learn_item(const ItemKey& key, const Levels& levels, double weight) {
  add(levels.user->counts, key, weight);
  add(levels.group->counts, key, weight);
  if (levels.tenant != levels.group) add(levels.tenant->counts, key, weight);
}

double witten_bell(const Item& item, double weight, double base) {
  double p = base;
  for (const Level level : {Level::kTenant, Level::kGroup, Level::kUser}) {
    const Tally& seen = item.level(level);
    const double count = seen.count / weight;
    const double total = seen.total / weight;
    const double types = seen.types > 0 ? seen.types : 1;
    if (p <= 0) {
      p = (count > 0 ? count : types) / (total + types);
    } else {
      p = (count + types * p) / (total + types);
    }
  }
  return std::clamp(p, kLeast, 1.0);
}

}  // namespace tool_firewall
