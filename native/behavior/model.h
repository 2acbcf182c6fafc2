// SPDX-License-Identifier: Apache-2.0
// The behaviour model: runs the signals over one call, calibrates, fuses, and learns.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "behavior/clock.h"
#include "behavior/decay.h"
#include "behavior/fusion.h"
#include "behavior/principals.h"
#include "behavior/signal.h"

namespace tool_firewall {

struct ModelSettings {
  SignalSettings signals;
  double half_life = 14 * 86400.0;  // s
  double new_for = 48 * 3600.0;     // s an item first seen at high risk stays new
  double session_idle = 1800;       // s
  std::size_t users_per_tenant = 100'000;
  std::size_t memory = 256U << 20;  // bytes; three quarters of it for what is learned
};

// One signal's share in a verdict.
struct Reason {
  std::uint8_t signal = 0;  // position in signals.def
  float p = 1;              // how rare its strongest channel is, 0..1
  Numbers numbers;
};

struct Score {
  double risk = 0;                 // 0..1
  std::vector<Reason> reasons;     // strongest first: what tipped a notable call, what is rare in another
  const Tool* previous = nullptr;  // tool before this one in the session
};

inline constexpr double kMostCost = 1e12;  // of a call; what is more, or less than 0, is not known

// How a call ended.
struct Ending {
  double at = -1;                                          // s; negative: not seen, it counts as done
  bool ok = true;                                          // no error of the tool
  double cost = std::numeric_limits<double>::quiet_NaN();  // NaN: not known
};

// What end() needs to know of a call that was scored: kept while the tool runs.
struct Scored {
  double now = 0;    // s, its own time
  double faded = 0;  // s, for Decay::weight()
  double risk = 0;
  Evidence evidence;  // of the channels that are not measured again
  double floor = 0;
  std::uint64_t session = 0;
  std::uint64_t digest = 0;
  std::uint64_t marks = 0;  // two bits a signal
  std::array<std::uint64_t, 2> identity{};
  Zone::Local local;
  bool starts_session = false;
  bool past = false;
  const Tool* tool = nullptr;
  PrincipalPtr user;
  Peers* group = nullptr;
  Peers* tenant = nullptr;
  std::array<ItemKey, Usage::kFirstSkip + kEarlierTools> items{};
  std::size_t item_count = 0;
  ArgumentKeys arguments;
};

class Model {
 public:
  // What is called, and in which conversation.
  struct Call {
    std::uint64_t session = 0;
    const Tool& tool;
    std::span<const ArgumentFact> facts;
    std::uint64_t arguments = 0;              // digest, 0 when unknown
    std::array<std::uint64_t, 2> identity{};  // of agent and token, 0 when unknown
  };

  Model(const ModelSettings& settings, const Hasher& hasher);

  Principals& principals() { return principals_; }
  const Principals& principals() const { return principals_; }
  const std::vector<SignalPtr>& signals() const { return signals_; }

  // Scores one call and counts what counts at once: rates, bursts, calibrators. `decide(risk)` is asked once
  // whether the call is blocked; what was blocked did not happen and moves no session. Fills `scored` when
  // not blocked.
  template <class Decide>
  Score score(const PrincipalPtr& user, Peers& group, Peers& tenant, const Call& call, const Moment& when,
              Scored& scored, const Decide& decide) {
    begin(user, group, tenant, call, when);
    Score score = measure();
    finish(user, score.risk, decide(score.risk), scored);
    settle(*user, group, tenant);
    return score;
  }

  // Scores a call once more with how it ended, and learns from it: tools, paths, hours, arguments, costs. The
  // risk is at least that of before; the reasons are those of what was measured now.
  Score end(const Scored& scored, const Ending& ending);

  // What an operator thinks of something new (its cell), at `now` (s): an accepted item is ordinary from now
  // on, with what was held only because of it; a rejected one leaves all counts and stays new until it is
  // accepted. False when the list has no such item.
  bool accept(Principal& user, Peers& group, Peers& tenant, std::uint64_t cell, double now);
  bool reject(Principal& user, Peers& group, Peers& tenant, std::uint64_t cell, double now);
  // From now on what a user does is ordinary: "burst", "cost".
  void accept_habit(Principal& user, std::string_view what);

  // Clocks jumped (s); see Decay::jump().
  void jump(double from, double to) { decay_.jump(from, to); }

  std::uint64_t held_refused() const { return held_refused_; }  // high-risk new items beyond kHeldPerUser
  std::uint64_t news_dropped() const { return news_dropped_; }  // listed items beyond it
  std::uint64_t sessions_dropped() const { return sessions_dropped_; }
  double new_for() const { return settings_.new_for; }
  const Hasher& hasher() const { return hasher_; }

  // What a principal's stored sums are divided by at `now` to get decayed counts; brings them up to date
  // first.
  double weight_for(Principal& user, double now) {
    const double weight = decay_.weight(decay_.faded(now));
    refresh(user.counts, user.epoch);
    return weight;
  }

 private:
  friend class SnapshotWriter;
  friend class SnapshotReader;

  struct Placed {
    const Channel* channel;
    std::size_t signal;
  };

  void begin(const PrincipalPtr& user, Peers& group, Peers& tenant, const Call& call, const Moment& when);
  Score measure();
  struct Reading {  // of one channel
    double prior;   // surprise
    Rarity rarity;
  };
  static Reading read(const Channel& channel, std::size_t at, double raw, const Levels& levels);
  std::vector<Reason> reasons(double risk) const;
  Score score_again(const Scored& scored, const Ran& ran);
  void learn(const Scored& scored, Ran& ran);
  void finish(const PrincipalPtr& user, double risk, bool blocked, Scored& scored);
  Session& session_of(Principal& user, std::uint64_t id, double now);
  static Session* find_session(Principal& user, std::uint64_t id);
  template <class Table>
  void refresh(Table& counts, std::uint32_t& epoch) {
    if (epoch == decay_.epoch()) return;
    counts.rescale(decay_.factor(epoch), Decay::kForgotten);
    epoch = decay_.epoch();
  }
  // Of the channels [first, last), each with its reading; those measured after the call, or the others.
  struct Lesson {
    std::size_t first, last;
    bool after;
    double now, risk;
  };
  void learn_calibrators(const Levels& levels, Session* session, const Lesson& lesson);
  void learn_calibrators(Calibrators& calibrators, const Session* session, const Lesson& lesson) const;
  // Whether an item the user does not know is not to be learned yet; notes it when the call is of high risk.
  struct Occasion {
    double now, risk;
    const Tool* tool;
  };
  bool full(Principal& user, const Occasion& call) const;
  bool hold(Principal& user, const ItemKey& item, const Occasion& call);
  void hold_again(Principal& user, const ItemKey& item, const Occasion& call);
  std::uint32_t hold_arguments(const Scored& scored);
  void learn_accepted(const HeldItem& held, const Levels& levels, double weight) const;
  // Counts anew what they use, whatever grew or shrank.
  void settle(Principal& user, Peers& group, Peers& tenant);

  ModelSettings settings_;
  const Hasher& hasher_;
  Decay decay_;
  std::vector<SignalPtr> signals_;
  std::size_t session_bytes_ = 0;  // of the signals' state
  std::vector<Placed> channels_;
  Principals principals_;
  std::uint64_t held_refused_ = 0;
  std::uint64_t news_dropped_ = 0;
  std::uint64_t sessions_dropped_ = 0;

  // Of the call in hand.
  Sight sight_;
  bool past_ = false;  // history, see clock.h
  double faded_ = 0;   // s, for Decay::weight()
  Session* session_ = nullptr;
  Evidence evidence_;  // see Scored
  double floor_ = 0;
  std::array<double, kMostChannels> raw_{};
  std::array<Reading, kMostChannels> readings_{};
  struct Said {
    double weight = 0;  // the most it adds to the evidence
    double rarest = 0;  // -ln p of its rarest channel
    void hear(const Reading& reading, double adds, double asserts) {
      weight = std::max({weight, adds, asserts});
      rarest = std::max(rarest, reading.rarity.group);
    }
  };
  std::array<Said, kMostSignals> said_{};
};

}  // namespace tool_firewall
