// SPDX-License-Identifier: Apache-2.0
#include "behavior/usage.h"

#include <algorithm>

#include "behavior/egress.h"

namespace tool_firewall {
namespace {

constexpr double kLeast = 1e-12;
// Of a value's digest, kept in its key: what is chosen by them is the same value at every place, and shows in
// the records.
constexpr std::uint64_t kLastBits = 7;
constexpr std::uint64_t kSessionStart = 0;
constexpr float kResidue = 1e-3F;  // of what is taken out: rounding

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

template <class Table>
void take_out(Table& table, const ItemKey& key, float amount, bool whole) {
  const float left = table.get(key.cell) - amount;
  const bool gone = whole || left < kResidue * amount;
  if (gone)
    table.drop(key.cell);
  else
    table.add(key.cell, -amount);
  if (key.kind == ItemKind::kArgument) return;  // no row
  const CountTable::Row row = table.row(key.row);
  if (row.total > amount) table.add(key.row, -amount);
  if (gone && row.types > 1) table.add(key.row, -1, CountTable::Cell::kPlain);
}

}  // namespace

Tool::Tool(const Hasher& hasher, std::string_view its_server, std::string_view its_name)
    : server(its_server),
      name(its_name),
      id(hasher.text(its_server, its_name)),
      sends(tool_firewall::sends(its_name)),
      cell(key(hasher, KeyKind::kTool, 0, id)),
      step_row(key(hasher, KeyKind::kStepRow, id)),
      skip_row(key(hasher, KeyKind::kSkipRow, id)) {}

ItemKey item_key(const Hasher& hasher, ItemKind kind, const Tool* from, const Tool& tool) {
  ItemKey item;
  item.kind = kind;
  item.from = from;
  switch (kind) {
    case ItemKind::kTool:
      item.row = key(hasher, KeyKind::kToolRow, 0);
      item.cell = tool.cell;
      break;
    case ItemKind::kStep:
      item.row = from == nullptr ? key(hasher, KeyKind::kStepRow, kSessionStart) : from->step_row;
      item.cell = key(hasher, KeyKind::kStep, from == nullptr ? kSessionStart : from->id, tool.id);
      break;
    case ItemKind::kSkip:
      item.row = from->skip_row;
      item.cell = key(hasher, KeyKind::kSkip, from->id, tool.id);
      break;
    case ItemKind::kArgument:
      break;
  }
  return item;
}

void Usage::set(const Hasher& hasher, const Tool& tool, const Session& session) {
  const auto put = [&](Item& item, ItemKind kind, const Tool* from) {
    static_cast<ItemKey&>(item) = item_key(hasher, kind, from, tool);
  };
  put(items[0], ItemKind::kTool, nullptr);
  put(items[1], ItemKind::kStep, session.previous);
  count = kFirstSkip;
  for (std::uint32_t i = 0; i < session.earlier_count; ++i)
    put(items[count++], ItemKind::kSkip, session.earlier[i]);
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

void ArgumentKeys::set(const Hasher& hasher, const Tool& tool, std::span<const ArgumentFact> facts) {
  count_ = 0;
  for (const ArgumentFact& fact : facts) {
    ArgumentKey made;
    made.kind = fact.kind;
    made.second = fact.second;
    made.place = key(hasher, KeyKind::kPlace, tool.id, fact.place);
    made.known =
        is_identity(fact.kind)
            ? key(hasher, KeyKind::kIdentity, fact.value)
            : (key(hasher, KeyKind::kValue, made.place, fact.value) & ~kLastBits) | (fact.value & kLastBits);
    made.again = std::any_of(begin(), end(), [&](const ArgumentKey& other) {
      return other.known == made.known && other.place == made.place;
    });
    add(made);
  }
}

void ArgumentKeys::prefetch(const Levels& levels) const {
  for (const ArgumentKey& one : *this) {
    levels.user->counts.prefetch(one.known);
    levels.user->counts.prefetch(one.place);
    levels.group->counts.prefetch(one.known);
    levels.group->shares.prefetch(one.place);
  }
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

void unlearn(const ItemKey& key, const Levels& levels) {
  const float amount = levels.user->counts.get(key.cell);
  if (!(amount > 0)) return;
  take_out(levels.user->counts, key, amount, true);
  take_out(levels.group->counts, key, amount, false);
  if (levels.tenant != levels.group) take_out(levels.tenant->counts, key, amount, false);
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
