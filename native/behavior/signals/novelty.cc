// SPDX-License-Identifier: Apache-2.0
// novelty (m3: nps): steps and skips nobody has seen, weighed by how often this user, the peer group and the
// tenant meet new ones. A new step of somebody who does something new every day says little; the first in two
// weeks says a lot.
//
//   new to the user:    -ln (w_u + 4 r_g + 1) / (n_u + 5)   n_u calls, w_u of them new; r_g the peer group's
//   rate
//   ... and the group:  -ln r2                              of what is new to its user, the share new to the
//   group
//   ... and the tenant: -ln r3                              of what is new to the group, the share new to the
//   tenant
//
// A tool or step first seen at high risk insists on that risk until it is accepted or its time is up
// (HeldItem): otherwise the calibrators, which learn from every call, would make the second one look
// ordinary.
#include <algorithm>
#include <array>
#include <cmath>

#include "behavior/signal.h"
#include "text/phrase.h"

namespace tool_firewall {
namespace {

constexpr double kUserWindow = 60;    // calls after which old ones fade
constexpr double kGroupWindow = 400;  // calls
constexpr double kNewWindow = 200;    // new items
constexpr double kEnough = 5;         // calls of a user before it teaches the group

constexpr float kStillNew = 4;  // in Numbers::detail[1]

enum Kind : std::uint8_t { kStep, kSkip, kKinds };

struct UserRates {
  struct {
    double calls, fresh;
  } of[kKinds];
};

// A share with its prior, zero-initialised until first used.
struct Share {
  double hits, total;
  double rate(double prior_hits, double prior_total) const {
    return total > 0 ? hits / total : prior_hits / prior_total;
  }
  void learn(bool hit, double prior_hits, double prior_total, double window) {
    if (total <= 0) {
      hits = prior_hits;
      total = prior_total;
    }
    if (total > window) {
      hits *= window / (total + 1);
      total *= window / (total + 1);
    }
    hits += hit ? 1 : 0;
    total += 1;
  }
};

struct GroupRates {
  struct {
    Share new_to_user, new_to_group, new_to_tenant;
  } of[kKinds];
};

constexpr Channel kChannels[] = {
    {.name = "novelty",
     .prior = {{0, 0, 0, 0, 2.230, 4.012, 5.956, 7.542, 8.409, 9.474, 10.222}},
     .weight = 1.2},
};

class Novelty final : public Signal {
 public:
  explicit Novelty(double new_for) : new_for_(new_for) {}

  std::string_view name() const override { return "novelty"; }
  std::span<const Channel> channels() const override { return kChannels; }
  StateSize state() const override { return {sizeof(UserRates), sizeof(GroupRates)}; }

  void measure(const Sight& sight, std::span<double> raw) override {
    double skips = 0;
    for (const Item& skip : sight.usage.skips()) skips = std::max(skips, surprise(sight, skip, kSkip));
    raw[0] = score_ = surprise(sight, sight.usage.step(), kStep) + skips;
    held_ = std::max(held_risk(sight, sight.usage.tool()), held_risk(sight, sight.usage.step()));
  }

  double floor() const override { return held_; }

  Numbers numbers(const Sight& sight) const override {
    const auto& user = of<UserRates>(*sight.levels.user).of[kStep];
    const Item& tool = sight.usage.tool();
    const Item& subject = tool.known(Level::kUser) ? sight.usage.step() : tool;
    const float reach = held_ > 0                       ? kStillNew
                        : subject.known(Level::kUser)   ? 0.0F
                        : subject.known(Level::kGroup)  ? 1.0F
                        : subject.known(Level::kTenant) ? 2.0F
                                                        : 3.0F;
    return {score_,
            user.calls > 0 ? user.fresh / user.calls : 0,
            {tool.known(Level::kUser) ? 0.0F : 1.0F, reach, static_cast<float>(user.fresh),
             static_cast<float>(user.calls)}};
  }

  void learn(const Ran& ran) override {
    learn_kind(ran, ran.learned.kind(ItemKind::kStep), kStep);
    learn_kind(ran, ran.learned.kind(ItemKind::kSkip), kSkip);
  }

  std::vector<Fact> facts(const Levels& levels, double) const override {
    const auto& user = of<UserRates>(*levels.user).of[kStep];
    return {{"recent_calls", user.calls}, {"recent_new", user.fresh}};
  }

  std::string explain(const Numbers& n, const Names& names) const override {
    const bool new_tool = n.detail[0] > 0;
    const std::string step =
        names.previous.empty()
            ? phrase("a session that starts with %.*s", static_cast<int>(names.tool.size()),
                     names.tool.data())
            : phrase("%.*s after %.*s", static_cast<int>(names.tool.size()), names.tool.data(),
                     static_cast<int>(names.previous.size()), names.previous.data());
    const std::string what =
        new_tool ? phrase("the tool %.*s", static_cast<int>(names.tool.size()), names.tool.data()) : step;
    const char* reach = n.detail[1] >= kStillNew
                            ? "still new: first seen in a call of high risk and not accepted yet"
                        : n.detail[1] >= 3 ? "new to this user, the peer group and the tenant"
                        : n.detail[1] >= 2 ? "new to this user and the peer group"
                        : n.detail[1] >= 1 ? "new to this user"
                                           : "known, but not together with the earlier tools of this session";
    return phrase("%s is %s; %s of the user's last %s calls brought something new", what.c_str(), reach,
                  quantity(n.detail[2]).c_str(), quantity(n.detail[3]).c_str());
  }

 private:
  double surprise(const Sight& sight, const Item& item, Kind kind) const {
    if (item.known(Level::kUser)) return 0;
    const auto& user = of<UserRates>(*sight.levels.user).of[kind];
    const auto& group = of<GroupRates>(*sight.levels.group).of[kind];
    double score = -std::log((user.fresh + 4 * group.new_to_user.rate(1, 4) + 1) / (user.calls + 5));
    if (item.known(Level::kGroup)) return score;
    score -= std::log(group.new_to_group.rate(1, 2));
    if (!item.known(Level::kTenant)) score -= std::log(group.new_to_tenant.rate(1, 2));
    return score;
  }

  void learn_kind(const Ran& ran, const News& news, Kind kind) const {
    if (!news.any) return;
    auto& user = of<UserRates>(*ran.levels.user).of[kind];
    const bool taught = user.calls >= kEnough;
    const double fade = user.calls < kUserWindow ? 1 : kUserWindow / (user.calls + 1);
    user.calls = (user.calls + 1) * fade;
    user.fresh = (user.fresh + (news.user ? 1 : 0)) * fade;
    if (!taught) return;
    auto& group = of<GroupRates>(*ran.levels.group).of[kind];
    group.new_to_user.learn(news.user, 1, 4, kGroupWindow);
    if (!news.user) return;
    group.new_to_group.learn(news.group, 1, 2, kNewWindow);
    if (news.group) group.new_to_tenant.learn(news.tenant, 1, 2, kNewWindow);
  }

  // The risk of the call in which a still new item was first seen, 0 for any other item.
  double held_risk(const Sight& sight, const Item& item) const {
    if (item.known(Level::kUser)) return 0;
    for (const HeldItem& one : sight.levels.user->held)
      if (one.cell == item.cell && one.lasts(sight.now, new_for_)) return one.risk;
    return 0;
  }

  double new_for_;
  double score_ = 0;
  double held_ = 0;
};

}  // namespace

SignalPtr make_novelty(const SignalSettings& settings) { return std::make_unique<Novelty>(settings.new_for); }

}  // namespace tool_firewall
