// SPDX-License-Identifier: Apache-2.0
#include "behavior/model.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace tool_firewall {
namespace {

// Beyond this many decayed calls float sums stop growing evenly; halving them all keeps every share as it is.
constexpr double kMostCalls = 1 << 22;

constexpr double kWorthListing = 3;  // -ln p: the rarest 5 % of a signal's values

std::vector<HeldItem>::iterator held_as(Principal& user, const ItemKey& item) {
  return std::find_if(user.held.begin(), user.held.end(),
                      [&](const HeldItem& held) { return held.cell == item.cell; });
}

std::size_t align(std::size_t bytes) {
  constexpr std::size_t to = alignof(std::max_align_t);
  return (bytes + to - 1) / to * to;
}

// Gives every signal its place in the state blocks; returns the sizes of the blocks.
StateSize place(const std::vector<SignalPtr>& signals) {
  StateSize total;
  for (const SignalPtr& signal : signals) {
    signal->place(total.user, total.peers);
    const StateSize size = signal->state();
    total.user += align(size.user);
    total.peers += align(size.peers);
  }
  return total;
}

std::size_t count_channels(const std::vector<SignalPtr>& signals) {
  std::size_t count = 0;
  for (const SignalPtr& signal : signals) count += signal->channels().size();
  if (count > kMostChannels) throw std::logic_error("signals.def: more channels than kMostChannels");
  if (signals.size() > kMostSignals) throw std::logic_error("signals.def: more signals than kMostSignals");
  return count;
}

std::vector<SignalPtr> signals_with(const ModelSettings& settings, const Hasher& hasher) {
  SignalSettings own = settings.signals;
  own.hasher = &hasher;
  own.new_for = settings.new_for;
  return make_signals(own);
}

Principals::Sizes sizes_of(const std::vector<SignalPtr>& signals) {
  const StateSize state = place(signals);
  return {count_channels(signals), state.user, state.peers};
}

}  // namespace

Model::Model(const ModelSettings& settings, const Hasher& hasher)
    : settings_(settings),
      hasher_(hasher),
      decay_(settings.half_life),
      signals_(signals_with(settings, hasher)),
      principals_(sizes_of(signals_), settings.users_per_tenant, hasher, settings.memory / 4 * 3) {
  for (std::size_t i = 0; i < signals_.size(); ++i)
    for (const Channel& channel : signals_[i]->channels()) channels_.push_back({&channel, i});
}

Session& Model::session_of(Principal& user, std::uint64_t id, double now) {
  Session* reusable = nullptr;
  for (const auto& session : user.sessions) {
    const bool idle = now - session->last > settings_.session_idle;
    if (session->id == id) {
      if (idle) *session = Session{.id = id};
      return *session;
    }
    if (idle ||
        (user.sessions.size() >= kSessionsPerUser && (reusable == nullptr || session->last < reusable->last)))
      reusable = session.get();
  }
  if (reusable == nullptr) {
    user.sessions.push_back(std::make_unique<Session>());
    reusable = user.sessions.back().get();
  } else if (now - reusable->last <= settings_.session_idle) {
    ++sessions_dropped_;
  }
  *reusable = Session{.id = id};
  return *reusable;
}

void Model::begin(const PrincipalPtr& user, Peers& group, Peers& tenant, std::uint64_t session,
                  const Tool& tool, const Moment& when) {
  past_ = when.past;
  // History has faded by its age, whatever that is.
  faded_ = when.past ? decay_.faded(when.own) : decay_.faded(when.own, when.everybody);
  sight_.now = when.own;
  sight_.weight = decay_.weight(faded_);
  refresh(user->counts, user->epoch);
  refresh(group.counts, group.epoch);
  refresh(tenant.counts, tenant.epoch);
  sight_.levels = {user.get(), &group, &tenant};
  sight_.hour_bin = user->zone->hour_bin(when.own);
  sight_.tool = &tool;
  session_ = &session_of(*user, session, when.own);
  sight_.session = session_;
  sight_.usage.set(hasher_, tool, *session_);
  sight_.usage.read(sight_.levels);
}

Score Model::measure() {
  double sum = 0;
  double strongest = 0;
  double floor = 0;
  bool listed = false;
  std::size_t channel = 0;
  for (std::size_t i = 0; i < signals_.size(); ++i) {
    const std::span<const Channel> own = signals_[i]->channels();
    signals_[i]->measure(sight_, {raw_.data() + channel, own.size()});
    Said& said = said_[i];
    said = {};
    for (const Channel& definition : own) {
      const double prior = definition.prior.surprise(raw_[channel]);
      const double in_tenant =
          sight_.levels.tenant->calibrators.of(channel).tail(prior, std::exp(-prior), kPriorStrength);
      const double in_group =
          sight_.levels.group->calibrators.of(channel).tail(prior, in_tenant, kTenantStrength);
      const Rarity rarity = rarity_of(definition, in_group, in_tenant);
      const double adds = share(definition, rarity);
      const double asserts = alone(definition, rarity);
      sum += adds;
      strongest = std::max(strongest, asserts);
      said.weight = std::max({said.weight, adds, asserts});
      said.rarest = std::max(said.rarest, rarity.group);
      prior_[channel] = prior;
      rarity_[channel] = rarity;
      ++channel;
    }
    if (const double insists = signals_[i]->floor(); insists > 0) {
      floor = std::max(floor, insists);
      // A floor is a risk; on the scale of the bands (risk = -log10(p) / 6) it has a rarity too.
      said.rarest = std::max(said.rarest, insists * 6 * std::log(10.));
      said.weight = std::max(said.weight, said.rarest * 2);
    }
    listed |= said.rarest > kWorthListing;
  }
  Score score;
  score.risk = std::max(risk_of(std::max(sum, strongest)), floor);
  score.previous = session_->previous;
  if (listed || score.risk >= kNotable) score.reasons = reasons(score.risk);
  return score;
}

std::vector<Reason> Model::reasons(double risk) const {
  std::vector<std::uint8_t> ranked;
  for (std::size_t i = 0; i < signals_.size(); ++i) {
    // What tipped a notable call is listed in full; an ordinary call lists only what is rare by itself.
    if (said_[i].rarest <= (risk < kNotable ? kWorthListing : kTruncated)) continue;
    ranked.push_back(static_cast<std::uint8_t>(i));
  }
  std::stable_sort(ranked.begin(), ranked.end(),
                   [&](std::uint8_t a, std::uint8_t b) { return said_[a].weight > said_[b].weight; });
  std::vector<Reason> reasons;
  reasons.reserve(ranked.size());
  for (const std::uint8_t i : ranked)
    reasons.push_back({i, static_cast<float>(std::exp(-said_[i].rarest)), signals_[i]->numbers(sight_)});
  return reasons;
}

void Model::learn_calibrators(double risk) {
  learn_calibrators(sight_.levels.group->calibrators, risk);
  if (sight_.levels.tenant != sight_.levels.group) learn_calibrators(sight_.levels.tenant->calibrators, risk);
  for (std::size_t i = 0; i < channels_.size(); ++i)
    if (rarity_[i].group > kRareSurprise) session_->rare_at[i] = sight_.now;
}

void Model::learn_calibrators(Calibrators& calibrators, double risk) const {
  calibrators.catch_up(sight_.now);
  for (std::size_t i = 0; i < channels_.size(); ++i) {
    if (rarity_[i].group <= kRareSurprise) {
      calibrators.learn(i, prior_[i]);
      continue;
    }
    const bool again = session_->rare_at[i] > 0 && sight_.now - session_->rare_at[i] < kRareOnce;
    if (again && calibrators.of(i).samples() > kRareSamples) continue;
    if (risk >= kHighRisk)
      calibrators.learn_later(i, prior_[i], sight_.now);
    else
      calibrators.learn(i, prior_[i]);
  }
}

void Model::finish(const PrincipalPtr& user, double risk, bool blocked, Scored& scored) {
  session_->last = later(session_->last, sight_.now);
  if (user->first <= 0) user->first = sight_.now;
  if (past_) {
    user->first = std::min(user->first, sight_.now);
    user->last = std::max(user->last, sight_.now);
  } else {
    learn_calibrators(risk);
    for (const SignalPtr& signal : signals_) signal->count(sight_, blocked);
    user->last = later(user->last, sight_.now);
  }
  user->used = true;
  ++user->calls;
  if (blocked) {
    // It teaches nothing, but what was new in it stays new as after a warning: or the calibrators, which
    // learn from every call, would let a retry pass.
    for (const Item& item : {sight_.usage.tool(), sight_.usage.step()})
      if (!item.known(Level::kUser)) hold_again(*user, item, {sight_.now, risk, sight_.tool});
    return;
  }

  scored.now = sight_.now;
  scored.faded = faded_;
  scored.risk = risk;
  scored.starts_session = session_->previous == nullptr;
  scored.hour_bin = sight_.hour_bin;
  scored.tool = sight_.tool;
  scored.user = user;
  scored.group = sight_.levels.group;
  scored.tenant = sight_.levels.tenant;
  scored.item_count = sight_.usage.count;
  for (std::size_t i = 0; i < scored.item_count; ++i) scored.items[i] = sight_.usage.items[i];

  session_->previous = sight_.tool;
  const auto begin = session_->earlier.begin();
  const auto end = begin + session_->earlier_count;
  if (std::find(begin, end, sight_.tool) != end) return;
  if (session_->earlier_count == kEarlierTools) {
    std::move(begin + 1, end, begin);
    --session_->earlier_count;
  }
  session_->earlier[session_->earlier_count++] = sight_.tool;
}

bool Model::hold(Principal& user, const ItemKey& item, const Occasion& call) {
  const auto found = held_as(user, item);
  if (found != user.held.end()) {
    if (found->lasts(call.now, settings_.new_for)) return true;
    user.held.erase(found);
    return false;
  }
  if (settings_.new_for <= 0) return false;
  if (user.held.size() >= kHeldPerUser) {
    std::erase_if(user.held, [&](const HeldItem& held) { return !held.lasts(call.now, settings_.new_for); });
    if (user.held.size() >= kHeldPerUser) {
      // Not learned either, whatever the risk of this call: what finds no room is not known the second time,
      // and a full list must not be a way to become known.
      if (call.risk >= kHighRisk) ++held_refused_;
      return true;
    }
  }
  if (call.risk < kHighRisk) return false;
  user.held.push_back({item.cell, call.now, call.risk, call.tool, item.from, item.kind});
  return true;
}

// As hold(), for a call that was stopped: every try begins the time anew, or the first try after it would
// pass.
void Model::hold_again(Principal& user, const ItemKey& item, const Occasion& call) {
  const auto found = held_as(user, item);
  if (found == user.held.end()) {
    hold(user, item, call);
  } else if (call.risk >= kHighRisk) {
    found->since = call.now;
    found->risk = std::max(found->risk, call.risk);
  }
}

void Model::learn(const Scored& scored) {
  Ran ran;
  ran.now = scored.now;
  ran.weight = decay_.weight(scored.faded);
  ran.starts_session = scored.starts_session;
  ran.hour_bin = scored.hour_bin;
  ran.levels = {scored.user.get(), scored.group, scored.tenant};
  refresh(scored.user->counts, scored.user->epoch);
  refresh(scored.group->counts, scored.group->epoch);
  refresh(scored.tenant->counts, scored.tenant->epoch);
  for (std::size_t i = 0; i < scored.item_count; ++i) {
    const ItemKey& item = scored.items[i];
    News learned = learn_known(item, ran.levels, ran.weight);
    if (!learned.any) {
      if (hold(*scored.user, item, {scored.now, scored.risk, scored.tool})) continue;
      learned = learn_new(item, ran.levels, ran.weight);
    }
    News& news = ran.learned.of[static_cast<std::size_t>(item.kind)];
    news.any = true;
    news.user |= learned.user;
    news.group |= learned.group;
    news.tenant |= learned.tenant;
  }
  // Of the newest call, not of this one: a call that comes long after it was checked, or from a record far in
  // the past, weighs next to nothing, and would halve everybody's counts.
  const double most = kMostCalls * std::max(1., decay_.newest());
  const std::uint64_t row = scored.items[0].row;
  if (scored.user->counts.get(row) > most) scored.user->counts.rescale(.5F, 0);
  if (scored.group->counts.get(row) > most) scored.group->counts.rescale(.5F, 0);
  if (scored.tenant->counts.get(row) > most) scored.tenant->counts.rescale(.5F, 0);
  for (const SignalPtr& signal : signals_) signal->learn(ran);
  TenantState& home = *scored.user->home;
  principals_.settle(home, *scored.group);
  if (scored.tenant != scored.group) principals_.settle(home, *scored.tenant);
  principals_.settle(*scored.user);
}

}  // namespace tool_firewall
