// SPDX-License-Identifier: Apache-2.0
#include "behavior/usage.h"

#include <algorithm>

namespace tool_firewall {
namespace {

constexpr double kLeast = 1e-12;
constexpr std::uint64_t kSessionStart = 0;

template <class Table>
Tally tally(const Table& table, const ItemKey& key) {
  const CountTable::Row row = table.row(key.row);
  return {row.total > 0 ? table.get(key.cell) : 0, row.total, row.types};
}

template <class Table>
bool add(Table& table, const ItemKey& key, double weight) {
  const auto amount = static_cast<float>(weight);
  const bool fresh = table.add(key.cell, amount);
  table.add(key.row, amount);
  if (fresh) table.add(key.row, 1, CountTable::Cell::kPlain);
  return fresh;
}

struct Kinds {
  ItemKind item;
  KeyKind row, cell;
};
constexpr Kinds kTool{ItemKind::kTool, KeyKind::kToolRow, KeyKind::kTool};
constexpr Kinds kStep{ItemKind::kStep, KeyKind::kStepRow, KeyKind::kStep};
constexpr Kinds kSkip{ItemKind::kSkip, KeyKind::kSkipRow, KeyKind::kSkip};

void set_key(Item& item, const Hasher& hasher, const Kinds& kinds, const Tool* from, const Tool& tool) {
  const std::uint64_t context = from == nullptr ? kSessionStart : from->id;
  item.row = hasher.pair(static_cast<std::uint64_t>(kinds.row), context);
  item.cell = hasher.pair(static_cast<std::uint64_t>(kinds.cell), context, tool.id);
  item.from = from;
  item.kind = kinds.item;
}

}  // namespace

void Usage::set(const Hasher& hasher, const Tool& tool, const Session& session) {
  set_key(items[0], hasher, kTool, nullptr, tool);
  set_key(items[1], hasher, kStep, session.previous, tool);
  count = kFirstSkip;
  for (std::uint32_t i = 0; i < session.earlier_count; ++i)
    set_key(items[count++], hasher, kSkip, session.earlier[i], tool);
}

void Usage::read(const Levels& levels) {
  for (std::size_t i = 0; i < count; ++i) {
    for (const std::uint64_t key : {items[i].cell, items[i].row}) {
      levels.user->counts.prefetch(key);
      levels.group->counts.prefetch(key);
      if (levels.tenant != levels.group) levels.tenant->counts.prefetch(key);
    }
  }
  for (std::size_t i = 0; i < count; ++i) read_item(items[i], levels);
}

void read_item(Item& item, const Levels& levels) {
  item.at[0] = tally(levels.user->counts, item);
  item.at[1] = tally(levels.group->counts, item);
  item.at[2] = levels.tenant == levels.group ? item.at[1] : tally(levels.tenant->counts, item);
}

News learn_known(const ItemKey& key, const Levels& levels, double weight) {
  News news;
  news.any = levels.user->counts.bump(key.cell, static_cast<float>(weight));
  if (!news.any) return news;
  levels.user->counts.add(key.row, static_cast<float>(weight));
  add(levels.group->counts, key, weight);
  if (levels.tenant != levels.group) add(levels.tenant->counts, key, weight);
  return news;
}

News learn_new(const ItemKey& key, const Levels& levels, double weight) {
  News news{.any = true, .user = true};
  add(levels.user->counts, key, weight);
  news.group = add(levels.group->counts, key, weight);
  news.tenant =
      levels.tenant == levels.group ? news.group : add(levels.tenant->counts, key, weight) && news.group;
  return news;
}

double witten_bell(const Item& item, double weight, double base) {
  double p = base;
  for (const Level level : {Level::kTenant, Level::kGroup, Level::kUser}) {
    // Both sides times `weight`, which spares two divisions a level.
    const Tally& seen = item.level(level);
    const double types = weight * (seen.types > 0 ? static_cast<double>(seen.types) : 1);
    const double above = p > 0            ? static_cast<double>(seen.count) + types * p
                         : seen.count > 0 ? static_cast<double>(seen.count)
                                          : types;
    // In a full table a row can be evicted before its items; its shares must not exceed one.
    p = std::min(1., above / (static_cast<double>(seen.total) + types));
  }
  return std::clamp(p, kLeast, 1.0);
}

}  // namespace tool_firewall
