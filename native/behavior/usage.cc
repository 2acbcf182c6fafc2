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

std::uint64_t key(const Hasher& hasher, KeyKind kind, std::uint64_t a, std::uint64_t b = 0) {
  return hasher.pair(static_cast<std::uint64_t>(kind), a, b);
}

void set(Item& item, ItemKind kind, const Tool* from, std::uint64_t row, std::uint64_t cell) {
  item.row = row;
  item.cell = cell;
  item.from = from;
  item.kind = kind;
}

}  // namespace

Tool::Tool(const Hasher& hasher, std::string_view its_server, std::string_view its_name)
    : server(its_server),
      name(its_name),
      id(hasher.text(its_server, its_name)),
      cell(key(hasher, KeyKind::kTool, 0, id)),
      step_row(key(hasher, KeyKind::kStepRow, id)),
      skip_row(key(hasher, KeyKind::kSkipRow, id)) {}

void Usage::set(const Hasher& hasher, const Tool& tool, const Session& session) {
  const Tool* const from = session.previous;
  tool_firewall::set(items[0], ItemKind::kTool, nullptr, key(hasher, KeyKind::kToolRow, 0), tool.cell);
  tool_firewall::set(items[1], ItemKind::kStep, from,
                     from == nullptr ? key(hasher, KeyKind::kStepRow, kSessionStart) : from->step_row,
                     key(hasher, KeyKind::kStep, from == nullptr ? kSessionStart : from->id, tool.id));
  count = kFirstSkip;
  for (std::uint32_t i = 0; i < session.earlier_count; ++i) {
    const Tool* const earlier = session.earlier[i];
    tool_firewall::set(items[count++], ItemKind::kSkip, earlier, earlier->skip_row,
                       key(hasher, KeyKind::kSkip, earlier->id, tool.id));
  }
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
