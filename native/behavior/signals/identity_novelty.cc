// SPDX-License-Identifier: Apache-2.0
// identity_novelty: an agent or a token this user was never seen with. How often a user's sessions bring a
// new one is learned, as for tools: tokens that are made for every session say nothing, a second agent after
// weeks with one does. The first agent and the first token of a user are new to nobody.
#include <array>
#include <cmath>

#include "behavior/rate.h"
#include "behavior/signal.h"
#include "text/phrase.h"

namespace tool_firewall {
namespace {

constexpr double kWindow = 60;              // sessions of a user
constexpr RatePrior kBringsNew{1, 4, 400};  // sessions of a peer group
constexpr double kTeachesFrom = 5;          // sessions of a user before it teaches the group

enum Which : std::uint8_t { kAgent, kToken, kWhich };

struct UserIdentities {
  struct {
    double sessions, fresh;
  } of[kWhich];
};

struct PeersIdentities {
  Rate brings_new[kWhich];
};

constexpr Channel kChannels[] = {
    {.name = "identity_novelty", .prior = {{0, 0, 0, 0, .5, 1.2, 1.8, 2.4, 2.8, 3.2, 3.7}}, .weight = 1.2},
};

class IdentityNovelty final : public Signal {
 public:
  explicit IdentityNovelty(const Hasher& hasher) : hasher_(hasher) {}

  std::string_view name() const override { return "identity_novelty"; }
  std::span<const Channel> channels() const override { return kChannels; }
  StateSize state() const override { return {sizeof(UserIdentities), sizeof(PeersIdentities), 0}; }

  void measure(const Sight& sight, std::span<double> raw) override {
    score_ = 0;
    which_ = kAgent;
    const auto& user = of<UserIdentities>(*sight.levels.user);
    const auto& peers = of<PeersIdentities>(*sight.levels.group);
    for (const Which which : {kAgent, kToken}) {
      const std::uint64_t id = sight.identity[which];
      const auto& own = user.of[which];
      if (id == 0 || own.sessions <= 0 || sight.levels.user->counts.get(key(which, id)) > 0) continue;
      const double share = peers.brings_new[which].value(kBringsNew);
      const double score = -std::log((own.fresh + 4 * share + 1) / (own.sessions + 5));
      if (score <= score_) continue;
      score_ = score;
      which_ = which;
    }
    raw[0] = score_;
  }

  Numbers numbers(const Sight& sight) const override {
    const auto& user = of<UserIdentities>(*sight.levels.user).of[which_];
    return {
        score_,
        user.sessions > 0 ? user.fresh / user.sessions : 0,
        {static_cast<float>(which_), static_cast<float>(user.fresh), static_cast<float>(user.sessions), 0}};
  }

  void learn(const Ran& ran) override {
    auto& user = of<UserIdentities>(*ran.levels.user);
    auto& peers = of<PeersIdentities>(*ran.levels.group);
    for (const Which which : {kAgent, kToken}) {
      const std::uint64_t id = ran.identity[which];
      if (id == 0) continue;
      CountTable& counts = ran.levels.user->counts;
      const bool is_new = !counts.bump(key(which, id), static_cast<float>(ran.weight));
      if (is_new) counts.add(key(which, id), static_cast<float>(ran.weight));
      if (!is_new && !ran.starts_session) continue;
      auto& own = user.of[which];
      if (own.sessions >= kTeachesFrom) peers.brings_new[which].learn(is_new, kBringsNew);
      const double fade = own.sessions < kWindow ? 1 : kWindow / (own.sessions + 1);
      own.sessions = (own.sessions + 1) * fade;
      own.fresh = (own.fresh + (is_new ? 1 : 0)) * fade;
    }
  }

  std::string explain(const Numbers& n, const Names&) const override {
    return phrase("the user was never seen with this %s; %s of the last %s sessions brought a new one",
                  n.detail[0] > 0 ? "token" : "agent", quantity(static_cast<double>(n.detail[1])).c_str(),
                  quantity(static_cast<double>(n.detail[2])).c_str());
  }

 private:
  std::uint64_t key(Which which, std::uint64_t id) const {
    return hasher_.pair(static_cast<std::uint64_t>(KeyKind::kCallerIdentity), which, id);
  }

  const Hasher& hasher_;
  double score_ = 0;
  Which which_ = kAgent;
};

}  // namespace

SignalPtr make_identity_novelty(const SignalSettings& settings) {
  return std::make_unique<IdentityNovelty>(*settings.hasher);
}

}  // namespace tool_firewall
