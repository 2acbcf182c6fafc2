// SPDX-License-Identifier: Apache-2.0
// What the three levels have counted of this call's tool, of the step to it, and of the skips to it.
//
// An item is one outcome in a row: the tool among all tools; the tool among those that followed `previous` (a
// step); the tool among those that came any time after `earlier` in a session (a skip). Rows are scored by
// Witten-Bell back-off from tenant to group to user: P = (count + types * P_above) / (total + types).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "behavior/levels.h"
#include "text/argument_reader.h"
#include "text/hash.h"

namespace tool_firewall {

enum class Level : std::uint8_t { kUser, kGroup, kTenant };
inline constexpr std::size_t kLevels = 3;

// Kinds of key in the count tables. Append; a signal with keys of its own adds its kind here.
enum class KeyKind : std::uint64_t {
  kToolRow = 1,
  kTool,
  kStepRow,
  kStep,
  kSkipRow,
  kSkip,
  kHourRow,
  kHour,
  kIdentity,  // an identity among the arguments, wherever it stands
  kValue,     // any other value at its place
  kPlace,     // an argument of a tool
  kToolCost,
  kToolFirstCost,
  kToolHour,
  kCallerIdentity,
};

struct Tally {
  float count = 0;  // of the item, decayed sums not yet divided by the weight of now
  float total = 0;  // of its row
  float types = 0;  // distinct items in its row
};

struct ItemKey {
  std::uint64_t row = 0;
  std::uint64_t cell = 0;
  const Tool* from = nullptr;  // nullptr for the tool itself and for the start of a session
  ItemKind kind = ItemKind::kTool;
  ArgumentKind argument = ArgumentKind::kValue;
};

// A tool (from: nullptr), a step or a skip.
ItemKey item_key(const Hasher& hasher, ItemKind kind, const Tool* from, const Tool& tool);

struct Item : ItemKey {
  std::array<Tally, kLevels> at{};

  const Tally& level(Level which) const { return at[static_cast<std::size_t>(which)]; }
  bool known(Level which) const { return level(which).count > 0; }
};

// The items of one call: the tool, the step to it, then the skips.
struct Usage {
  static constexpr std::size_t kFirstSkip = 2;
  std::array<Item, kFirstSkip + kEarlierTools> items{};
  std::size_t count = 0;

  const Item& tool() const { return items[0]; }
  const Item& step() const { return items[1]; }
  std::span<const Item> skips() const { return {items.data() + kFirstSkip, count - kFirstSkip}; }

  // Fills in the keys of a call of `tool` next in `session`; then read() what the levels have counted.
  void set(const Hasher& hasher, const Tool& tool, const Session& session);
  void read(const Levels& levels);
};

// One thing the arguments of a call say, as the tables know it.
struct ArgumentKey {
  std::uint64_t known = 0;  // of the value, in the counts of all levels
  std::uint64_t place = 0;  // of tool, place and kind
  ArgumentKind kind = ArgumentKind::kValue;
  bool second = false;  // of the same text as the one before
  bool again = false;   // there already in this call
};

// Without memory of its own; a copy copies what is there.
class ArgumentKeys {
 public:
  ArgumentKeys() {}  // NOLINT(modernize-use-equals-default): must not fill the array
  ArgumentKeys(const ArgumentKeys& other) { *this = other; }
  ArgumentKeys& operator=(const ArgumentKeys& other) {
    count_ = other.count_;
    std::memcpy(of_.data(), other.of_.data(), count_ * sizeof(ArgumentKey));
    return *this;
  }
  ~ArgumentKeys() = default;

  void set(const Hasher& hasher, const Tool& tool, std::span<const ArgumentFact> facts);
  void add(const ArgumentKey& key) {
    if (count_ < ArgumentFacts::kMost) of_[count_++] = key;
  }
  void prefetch(const Levels& levels) const;
  std::size_t size() const { return count_; }
  const ArgumentKey* begin() const { return of_.data(); }
  const ArgumentKey* end() const { return of_.data() + count_; }

 private:
  union {  // so that nothing is written before add()
    std::array<ArgumentKey, ArgumentFacts::kMost> of_;
  };
  std::size_t count_ = 0;
};

// At which levels the items of one kind were new when they were learned.
struct News {
  bool any = false;     // an item of this kind was learned
  bool user = false;    // one was new to the user
  bool group = false;   // ... and to the group
  bool tenant = false;  // ... and to the tenant
};

struct Learned {
  std::array<News, 3> of{};  // by ItemKind, but for arguments
  const News& kind(ItemKind which) const { return of[static_cast<std::size_t>(which)]; }
};

// P of the item, backing off to `base`; base <= 0 means none above the tenant (P of "something new" there).
double witten_bell(const Item& item, double weight, double base);

// Fills in what the three levels have counted of one item.
void read_item(Item& item, const Levels& levels);

// Adds one event to the item's row at all levels. learn_known() does so only when the user knows the item,
// and says so in News::any; learn_new() is for one the user does not know.
News learn_known(const ItemKey& key, const Levels& levels, double weight);
News learn_new(const ItemKey& key, const Levels& levels, double weight);

// Takes what a user ever did of an item out of all levels, as if it had not been. Tables are written anew.
void unlearn(const ItemKey& key, const Levels& levels);

}  // namespace tool_firewall
