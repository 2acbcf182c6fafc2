// SPDX-License-Identifier: Apache-2.0
// argument_novelty (m3: idn, egval): values nobody has used before, where new values are rare.
//
// A value new to the user: -ln((w + 4 r + 1) / (n + 5)), n the last values (window 60) the user gave at this
// argument of this tool, w of them new, r the peers' share of new ones there; new to the peers too: - ln of
// how often what is new to a user is new to them; for identities the same again for the tenant. Arguments
// that always bring something new learn that and say nothing. Of an e-mail address and its domain the newer
// counts, and .3 of the other.
//   identity   the most of addresses, domains, hosts and accounts
//   egress     the most of everything, for tools that send something somewhere (egress.h)
#include <algorithm>
#include <array>
#include <cmath>

#include "behavior/signal.h"
#include "text/phrase.h"

namespace tool_firewall {
namespace {

constexpr std::uint32_t kWindow = 60;      // values of a user
constexpr double kGroupWindow = 400;       // values
constexpr double kNewWindow = 200;         // new values
constexpr std::uint32_t kTeachesFrom = 5;  // values of a user before it teaches the group
constexpr double kSecond = .3;
constexpr double kLeast = .1;  // nats: what is new nine times in ten says nothing

// Where nearly everything is new, as with ids and questions, nothing follows from it: of such values one in
// eight is remembered, to notice when that changes, and the rest passed over.
constexpr std::uint32_t kManyValues = 30;
constexpr double kNearlyAll = .8;
constexpr std::uint64_t kOneIn = 8;

// What a user's table keeps of an argument: how many values (up to kWindow), and the new ones of them in
// units.
struct Rate {
  static constexpr std::uint32_t kShift = 25;
  static constexpr std::uint32_t kMask = (1U << kShift) - 1;
  static constexpr std::uint32_t kUnit = 1U << 19;

  explicit Rate(std::uint32_t bits) : values(bits >> kShift), units(bits & kMask) {}
  std::uint32_t bits() const { return values << kShift | units; }
  double fresh() const { return static_cast<double>(units) / kUnit; }
  bool nearly_all_new() const {
    return values >= kManyValues && units > kNearlyAll * static_cast<double>(values * std::uint64_t{kUnit});
  }
  void learn(bool is_new) {
    units += is_new ? kUnit : 0;
    if (values < kWindow)
      ++values;
    else
      units = static_cast<std::uint32_t>(std::uint64_t{units} * kWindow / (kWindow + 1));
  }

  std::uint32_t values;
  std::uint32_t units;
};
static_assert((kWindow << Rate::kShift | Rate::kMask) <= CountTable::kMostBits);

constexpr Channel kChannels[] = {
    {.name = "identity", .prior = {{0, 0, 0, 0, 0, .093, .699, 1.624, 2.118, 2.595, 3.223}}, .weight = 1.6},
    {.name = "egress",
     .prior = {{0, 0, 0, 0, 0, .126, .366, 1.236, 1.817, 2.344, 2.760}},
     .weight = 2.0,
     .alone_group = 2.8},
};

class ArgumentNovelty final : public Signal {
 public:
  explicit ArgumentNovelty(double new_for) : new_for_(new_for) {}

  std::string_view name() const override { return "argument_novelty"; }
  std::span<const Channel> channels() const override { return kChannels; }

  void measure(const Sight& sight, std::span<double> raw) override {
    double identity = 0;
    double most = 0;
    rate_ = 0;
    seen_ = 0;
    reach_ = kKnown;
    kind_ = ArgumentKind::kValue;
    double before = 0;
    double whose = 0;
    bool any_new = false;
    const ArgumentKey* first = nullptr;  // of the text
    for (const ArgumentKey& key : sight.arguments) {
      Reach reach = kKnown;
      const Rate rate(sight.levels.user->counts.bits(key.place));
      double said = passed_over(key, rate) ? 0 : surprise(sight.levels, key, rate, reach);
      any_new |= reach != kKnown;
      if (!key.second) {
        first = &key;
        whose = 0;
      }
      if (is_identity(key.kind)) {
        whose = together(said, whose);
        identity = std::max(identity, whose);
      }
      if (key.second) said = together(said, before);
      before = said;
      if (said <= most) continue;
      most = said;
      const Rate user(sight.levels.user->counts.bits(first->place));
      rate_ = user.values > 0 ? user.fresh() / user.values : 0;
      seen_ = user.values;
      reach_ = std::max(reach, key.second ? reach_ : kKnown);
      kind_ = first->kind;
    }
    score_ = most;
    held_ = 0;
    if (!sight.levels.user->held.empty() && any_new) held_ = held_risk(sight);
    raw[0] = identity;
    raw[1] = sight.tool->sends ? most : 0;
  }

  // The risk of the call in which something still new was first seen.
  double floor() const override { return held_; }

  Numbers numbers(const Sight&) const override {
    return {score_,
            rate_,
            {static_cast<float>(kind_), static_cast<float>(held_ > 0 ? kStillNew : static_cast<int>(reach_)),
             static_cast<float>(seen_), 0}};
  }

  void learn(const Ran& ran) override {
    const Levels& levels = ran.levels;
    const auto weight = static_cast<float>(ran.weight);
    struct Found {
      const ArgumentKey* key;
      float* cell;  // of the user, nullptr: not known
      Reach reach;
      bool stays_new;
      bool unshared;
    };
    std::array<Found, ArgumentFacts::kMost> found;
    std::size_t count = 0;
    std::uint32_t held = ran.held;
    for (const ArgumentKey& key : *ran.arguments) {
      const bool stays_new = (held & 1U) != 0;
      held >>= 1;
      if (key.again || passed_over(key, Rate(levels.user->counts.bits(key.place)))) continue;
      float* const cell = levels.user->counts.find(key.known);
      const bool unshared =
          !is_identity(key.kind) && key.known % kOneIn != 0 && levels.group->shares.get(key.place).unshared();
      found[count++] = {&key, cell,
                        cell != nullptr ? kKnown
                        : unshared      ? kUnshared
                                        : reach_beyond(levels, key),
                        stays_new, unshared};
    }
    const std::span<const Found> all(found.data(), count);
    for (const Found& one : all)  // while the cells are where they were
      if (one.cell != nullptr) *one.cell += weight;
    for (const Found& one : all) learn_rates(levels, *one.key, one.reach);
    for (const Found& one : all) {
      if (one.stays_new && one.cell == nullptr) continue;
      if (one.cell == nullptr) levels.user->counts.add(one.key->known, weight);
      if (one.unshared) continue;
      levels.group->counts.add(one.key->known, weight);
      if (levels.tenant != levels.group) levels.tenant->counts.add(one.key->known, weight);
    }
  }

  std::string explain(const Numbers& n, const Names& names) const override {
    const auto kind = static_cast<ArgumentKind>(
        whole(static_cast<double>(n.detail[0]), static_cast<int>(kLastArgumentKind)));
    const int reached = whole(static_cast<double>(n.detail[1]), kStillNew);
    const char* what = kind == ArgumentKind::kAddress     ? "an e-mail address"
                       : kind == ArgumentKind::kDomain    ? "a mail domain"
                       : kind == ArgumentKind::kHost      ? "a host"
                       : kind == ArgumentKind::kAccount   ? "an account number"
                       : kind == ArgumentKind::kFolder    ? "a folder"
                       : kind == ArgumentKind::kMagnitude ? "an amount of a size"
                                                          : "a value";
    const std::string host =
        kind == ArgumentKind::kHost && !names.destination.empty()
            ? phrase(" (%.*s)", static_cast<int>(names.destination.size()), names.destination.data())
            : "";
    if (reached == kStillNew)
      return phrase(
          "%.*s was given %s%s that is still new: first seen in a call of high risk and not accepted yet",
          static_cast<int>(names.tool.size()), names.tool.data(), what, host.c_str());
    const char* reach = reached == kNew             ? "this user, the peer group and the tenant"
                        : reached == kKnownToTenant ? "this user and the peer group"
                                                    : "this user";
    return phrase("%.*s was given %s%s that is new to %s; %s of the last %s values there were new",
                  static_cast<int>(names.tool.size()), names.tool.data(), what, host.c_str(), reach,
                  quantity(n.baseline * static_cast<double>(n.detail[2])).c_str(),
                  quantity(static_cast<double>(n.detail[2])).c_str());
  }

 private:
  // kUnshared: new to the user, and not looked for any further.
  enum Reach : std::uint8_t { kKnown, kUnshared, kKnownToGroup, kKnownToTenant, kNew };

  static bool passed_over(const ArgumentKey& key, const Rate& rate) {
    return !is_identity(key.kind) && rate.nearly_all_new() && key.known % kOneIn != 0;
  }

  static Reach reach_beyond(const Levels& levels, const ArgumentKey& key) {
    if (levels.group->counts.get(key.known) > 0) return kKnownToGroup;
    return levels.tenant != levels.group && levels.tenant->counts.get(key.known) > 0 ? kKnownToTenant : kNew;
  }

  static void learn_rates(const Levels& levels, const ArgumentKey& key, Reach reach) {
    std::uint32_t before = 0;
    levels.user->counts.change_bits(key.place, [&](std::uint32_t bits) {
      Rate rate(bits);
      before = rate.values;
      rate.learn(reach > kKnown);
      return rate.bits();
    });
    if (before < kTeachesFrom) return;
    Shares& group = levels.group->shares.at(key.place);
    group.new_to_user.learn(reach > kKnown, kGroupWindow);
    if (reach > kUnshared) group.new_to_group.learn(reach > kKnownToGroup, kNewWindow);
    if (reach > kKnownToGroup) group.new_to_tenant.learn(reach > kKnownToTenant, kNewWindow);
  }

  static double together(double one, double other) {
    return std::max(one, other) + kSecond * std::min(one, other);
  }

  double held_risk(const Sight& sight) const {
    double risk = 0;
    for (const ArgumentKey& key : sight.arguments)
      for (const HeldItem& one : sight.levels.user->held)
        if (one.cell == key.known && one.lasts(sight.now, new_for_)) risk = std::max(risk, one.risk);
    return risk;
  }

  static double surprise(const Levels& levels, const ArgumentKey& key, const Rate& user, Reach& reach) {
    if (levels.user->counts.get(key.known) > 0) return 0;
    const Shares& group = levels.group->shares.get(key.place);
    const bool unshared = !is_identity(key.kind) && key.known % kOneIn != 0 && group.unshared();
    reach = unshared ? kUnshared : reach_beyond(levels, key);
    double score = -std::log((user.fresh() + 4 * group.new_to_user.value() + 1) / (user.values + 5.));
    if (reach > kKnownToGroup) score -= std::log(group.new_to_group.value());
    if (reach > kKnownToTenant && is_identity(key.kind)) score -= std::log(group.new_to_tenant.value());
    return score < kLeast ? 0 : score;
  }

  static constexpr int kStillNew = kNew + 1;  // beside Reach, in Numbers::detail[1]

  double new_for_;
  double score_ = 0;
  double held_ = 0;
  double rate_ = 0;
  std::uint32_t seen_ = 0;
  Reach reach_ = kKnown;
  ArgumentKind kind_ = ArgumentKind::kValue;
};

}  // namespace

SignalPtr make_argument_novelty(const SignalSettings& settings) {
  return std::make_unique<ArgumentNovelty>(settings.new_for);
}

}  // namespace tool_firewall
