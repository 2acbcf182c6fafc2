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

constexpr std::uint64_t kCallKind = 3000;  // of Hasher::pair(): tool and arguments

// A floor is a risk; on the scale of the bands (risk = -log10(p) / 6) it has a rarity too.
const double kNatsPerRisk = 6 * std::log(10.);

constexpr double kWorthListing = 3;  // -ln p: the rarest 5 % of a signal's values

std::vector<HeldItem>::iterator held_as(Principal& user, const ItemKey& item) {
  return std::find_if(user.held.begin(), user.held.end(),
                      [&](const HeldItem& held) { return held.cell == item.cell; });
}

// Whether people are asked about it. Skips go with their tools; of the arguments only those that say where
// something goes: domains come with their addresses, folders are too many.
bool worth_listing(const ItemKey& item) {
  if (item.kind != ItemKind::kArgument) return item.kind != ItemKind::kSkip;
  return item.argument == ArgumentKind::kAddress || item.argument == ArgumentKind::kHost ||
         item.argument == ArgumentKind::kAccount;
}

ItemKey argument_item(const ArgumentKey& key) {
  ItemKey item;
  item.cell = key.known;
  item.kind = ItemKind::kArgument;
  item.argument = key.kind;
  return item;
}

std::size_t align(std::size_t bytes) {
  constexpr std::size_t to = alignof(std::max_align_t);
  return (bytes + to - 1) / to * to;
}

// Gives every signal its place in the state blocks; returns the sizes of the blocks.
StateSize place(const std::vector<SignalPtr>& signals) {
  StateSize total;
  for (const SignalPtr& signal : signals) {
    signal->place(total);
    const StateSize size = signal->state();
    total.user += align(size.user);
    total.peers += align(size.peers);
    total.session += align(size.session);
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
  return {count_channels(signals), state};
}

}  // namespace

Model::Model(const ModelSettings& settings, const Hasher& hasher)
    : settings_(settings),
      hasher_(hasher),
      decay_(settings.half_life),
      signals_(signals_with(settings, hasher)),
      session_bytes_(place(signals_).session),
      principals_(sizes_of(signals_), settings.users_per_tenant, hasher, settings.memory / 4 * 3) {
  for (std::size_t i = 0; i < signals_.size(); ++i)
    for (const Channel& channel : signals_[i]->channels()) channels_.push_back({&channel, i});
}

Session& Model::session_of(Principal& user, std::uint64_t id, double now) {
  Session* reusable = nullptr;
  for (const auto& session : user.sessions) {
    const bool idle = now - session->last > settings_.session_idle;
    if (session->id == id) {
      if (idle) session->begin(id, session_bytes_);
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
  reusable->begin(id, session_bytes_);
  return *reusable;
}

Session* Model::find_session(Principal& user, std::uint64_t id) {
  for (const auto& session : user.sessions)
    if (session->id == id) return session.get();
  return nullptr;
}

void Model::begin(const PrincipalPtr& user, Peers& group, Peers& tenant, const Call& call,
                  const Moment& when) {
  past_ = when.past;
  // History has faded by its age, whatever that is.
  faded_ = when.past ? decay_.faded(when.own) : decay_.faded(when.own, when.everybody);
  sight_.now = when.own;
  sight_.everybody = when.everybody;
  sight_.weight = decay_.weight(faded_);
  refresh(user->counts, user->epoch);
  refresh(group.counts, group.epoch);
  refresh(tenant.counts, tenant.epoch);
  sight_.levels = {user.get(), &group, &tenant};
  sight_.local = user->zone->local(when.own);
  sight_.tool = &call.tool;
  sight_.identity = call.identity;
  sight_.digest = call.arguments == 0 ? 0 : hasher_.pair(kCallKind, call.tool.id, call.arguments);
  session_ = &session_of(*user, call.session, when.own);
  sight_.session = session_;
  sight_.arguments.set(hasher_, call.tool, call.facts);
  sight_.arguments.prefetch(sight_.levels);
  sight_.usage.set(hasher_, call.tool, *session_);
  sight_.usage.read(sight_.levels);
}

Model::Reading Model::read(const Channel& channel, std::size_t at, double raw, const Levels& levels) {
  const double prior = channel.prior.surprise(raw);
  if (prior <= 0) return {0, {}};  // nothing is larger than everything
  const double in_tenant =
      levels.tenant->calibrators.of(at).tail(prior, std::exp(-prior), kPriorStrength * channel.strength);
  const double in_group =
      levels.group->calibrators.of(at).tail(prior, in_tenant, kTenantStrength * channel.strength);
  return {prior, rarity_of(channel, in_group, in_tenant)};
}

Score Model::measure() {
  evidence_ = {};
  floor_ = 0;
  Evidence now;  // with what will be measured again
  bool listed = false;
  std::size_t channel = 0;
  for (std::size_t i = 0; i < signals_.size(); ++i) {
    const std::span<const Channel> own = signals_[i]->channels();
    signals_[i]->measure(sight_, {raw_.data() + channel, own.size()});
    Said& said = said_[i];
    said = {};
    for (const Channel& definition : own) {
      const Reading reading = read(definition, channel, raw_[channel], sight_.levels);
      const double adds = share(definition, reading.rarity);
      const double asserts = alone(definition, reading.rarity);
      said.hear(reading, adds, asserts);
      now.hear(definition, adds, asserts);
      if (!definition.after) evidence_.hear(definition, adds, asserts);
      readings_[channel++] = reading;
    }
    if (const double insists = signals_[i]->floor(); insists > 0) {
      floor_ = std::max(floor_, insists);
      said.rarest = std::max(said.rarest, insists * kNatsPerRisk);
      said.weight = std::max(said.weight, said.rarest * 2);
    }
    listed |= said.rarest > kWorthListing;
  }
  Score score;
  score.risk = std::max(risk_of(now.total()), floor_);
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

void Model::learn_calibrators(const Levels& levels, Session* session, const Lesson& lesson) {
  learn_calibrators(levels.group->calibrators, session, lesson);
  if (levels.tenant != levels.group) learn_calibrators(levels.tenant->calibrators, session, lesson);
  if (session == nullptr) return;
  for (std::size_t i = lesson.first; i < lesson.last; ++i)
    if (channels_[i].channel->after == lesson.after && readings_[i].rarity.group > kRareSurprise)
      session->rare_at[i] = lesson.now;
}

void Model::learn_calibrators(Calibrators& calibrators, const Session* session, const Lesson& lesson) const {
  calibrators.catch_up(lesson.now);
  for (std::size_t i = lesson.first; i < lesson.last; ++i) {
    if (channels_[i].channel->after != lesson.after) continue;
    if (readings_[i].rarity.group <= kRareSurprise) {
      calibrators.learn(i, readings_[i].prior);
      continue;
    }
    const double rare_at = session == nullptr ? 0 : session->rare_at[i];
    const bool again = rare_at > 0 && lesson.now - rare_at < kRareOnce;
    if (again && calibrators.of(i).samples() > kRareSamples) continue;
    if (lesson.risk >= kHighRisk)
      calibrators.learn_later(i, readings_[i].prior, lesson.now);
    else
      calibrators.learn(i, readings_[i].prior);
  }
}

void Model::finish(const PrincipalPtr& user, double risk, bool blocked, Scored& scored) {
  session_->last = later(session_->last, sight_.now);
  if (user->first <= 0) user->first = sight_.now;
  if (past_) {
    user->first = std::min(user->first, sight_.now);
    user->last = std::max(user->last, sight_.now);
  } else {
    learn_calibrators(sight_.levels, session_, {0, channels_.size(), false, sight_.now, risk});
    for (const SignalPtr& signal : signals_) signal->count(sight_, blocked);
    user->last = later(user->last, sight_.now);
  }
  user->used = true;
  ++user->calls;
  if (blocked) {
    // It teaches nothing, but what was new in it stays new as after a warning: or the calibrators, which
    // learn from every call, would let a retry pass.
    const Occasion call{sight_.now, risk, sight_.tool};
    for (const Item& item : {sight_.usage.tool(), sight_.usage.step()})
      if (!item.known(Level::kUser)) hold_again(*user, item, call);
    for (const ArgumentKey& key : sight_.arguments) {
      const ItemKey item = argument_item(key);
      if (worth_listing(item) && !(user->counts.get(key.known) > 0)) hold_again(*user, item, call);
    }
    return;
  }

  scored.now = sight_.now;
  scored.faded = faded_;
  scored.risk = risk;
  scored.evidence = evidence_;
  scored.floor = floor_;
  scored.session = session_->id;
  scored.digest = sight_.digest;
  scored.identity = sight_.identity;
  scored.marks = 0;
  for (std::size_t i = 0; i < signals_.size(); ++i)
    scored.marks |= std::uint64_t{signals_[i]->mark()} << (2 * i);
  scored.past = past_;
  scored.arguments = sight_.arguments;
  scored.starts_session = session_->previous == nullptr;
  scored.local = sight_.local;
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

// Whether the list has no room for one more; makes some where it can.
bool Model::full(Principal& user, const Occasion& call) const {
  if (user.held.size() < kHeldPerUser) return false;
  const auto oldest = std::find_if(user.held.begin(), user.held.end(), [&](const HeldItem& held) {
    return !held.lasts(call.now, settings_.new_for);
  });
  if (oldest == user.held.end()) return true;
  user.held.erase(oldest);
  return false;
}

bool Model::hold(Principal& user, const ItemKey& item, const Occasion& call) {
  const auto found = held_as(user, item);
  if (found != user.held.end()) {
    if (found->lasts(call.now, settings_.new_for)) return true;
    found->state = HeldItem::State::kListed;
    return false;
  }
  const bool hold = settings_.new_for > 0 && call.risk >= kHighRisk;
  if (!hold && !(call.risk >= kNotable && worth_listing(item))) {
    // While nothing can be held nothing new is learned, whatever the risk of this call: what finds no room is
    // not known the second time, and a full list must not be a way to become known.
    return settings_.new_for > 0 && full(user, call);
  }
  HeldItem made{item.cell,    call.now, call.risk, call.tool, item.from, item.kind, HeldItem::State::kListed,
                item.argument};
  if (full(user, call)) {
    ++(hold ? held_refused_ : news_dropped_);
    return settings_.new_for > 0;
  }
  if (hold) made.state = HeldItem::State::kHeld;
  user.held.push_back(made);
  return hold;
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
    if (found->state == HeldItem::State::kListed) found->state = HeldItem::State::kHeld;
  }
}

Score Model::end(const Scored& scored, const Ending& ending) {
  Ran ran;
  ran.now = scored.now;
  ran.weight = decay_.weight(scored.faded);
  ran.starts_session = scored.starts_session;
  ran.local = scored.local;
  ran.past = scored.past;
  // No call ends before it began, though after a pause the newest time believed may be from before it.
  ran.ended = ending.at < 0 ? ending.at : std::max(ending.at, scored.now);
  ran.ok = ending.ok;
  ran.cost = ending.cost >= 0 && ending.cost <= kMostCost ? ending.cost : Ending{}.cost;
  ran.tool = scored.tool;
  ran.session = find_session(*scored.user, scored.session);
  ran.levels = {scored.user.get(), scored.group, scored.tenant};
  ran.arguments = &scored.arguments;
  ran.digest = scored.digest;
  ran.identity = scored.identity;
  refresh(scored.user->counts, scored.user->epoch);
  refresh(scored.group->counts, scored.group->epoch);
  refresh(scored.tenant->counts, scored.tenant->epoch);
  scored.arguments.prefetch(ran.levels);
  Score score = score_again(scored, ran);
  learn(scored, ran);
  return score;
}

Score Model::score_again(const Scored& scored, const Ran& ran) {
  Score score;
  score.risk = scored.risk;
  Evidence evidence = scored.evidence;
  bool measured = false;
  bool listed = false;
  std::size_t channel = 0;
  for (std::size_t i = 0; i < signals_.size(); ++i) {
    const std::span<const Channel> own = signals_[i]->channels();
    const std::size_t first = std::exchange(channel, channel + own.size());
    said_[i] = {};
    if (scored.past || !signals_[i]->measure_after(ran, {raw_.data() + first, own.size()})) continue;
    measured = true;
    for (std::size_t at = first; at < channel; ++at) {
      const Channel& definition = own[at - first];
      if (!definition.after) continue;
      const Reading reading = read(definition, at, raw_[at], ran.levels);
      const double adds = share(definition, reading.rarity);
      const double asserts = alone(definition, reading.rarity);
      said_[i].hear(reading, adds, asserts);
      evidence.hear(definition, adds, asserts);
      readings_[at] = reading;
    }
    if (const double insists = signals_[i]->floor_after(); insists > 0) {
      said_[i].rarest = std::max(said_[i].rarest, insists * kNatsPerRisk);
      said_[i].weight = std::max(said_[i].weight, said_[i].rarest * 2);
      score.risk = std::max(score.risk, insists);
    }
    score.risk = std::max({score.risk, risk_of(evidence.total()), scored.floor});
    learn_calibrators(ran.levels, ran.session, {first, channel, true, ran.now, score.risk});
    listed |= said_[i].rarest > kWorthListing;
  }
  if (measured && (listed || score.risk >= kNotable)) {
    score.reasons = reasons(score.risk);
    for (Reason& reason : score.reasons) reason.numbers = signals_[reason.signal]->numbers_after();
  }
  return score;
}

// Which of the arguments stay new, by position.
std::uint32_t Model::hold_arguments(const Scored& scored) {
  std::uint32_t held = 0;
  std::uint32_t bit = 1;
  for (const ArgumentKey& key : scored.arguments) {
    const ItemKey item = argument_item(key);
    if (worth_listing(item) && !(scored.user->counts.get(key.known) > 0) &&
        hold(*scored.user, item, {scored.now, scored.risk, scored.tool}))
      held |= bit;
    bit <<= 1;
  }
  return held;
}

bool Model::accept(Principal& user, Peers& group, Peers& tenant, std::uint64_t cell, double now) {
  const auto found = std::find_if(user.held.begin(), user.held.end(),
                                  [&](const HeldItem& held) { return held.cell == cell; });
  if (found == user.held.end()) return false;
  const HeldItem accepted = *found;
  const Levels levels{&user, &group, &tenant};
  refresh(user.counts, user.epoch);
  refresh(group.counts, group.epoch);
  refresh(tenant.counts, tenant.epoch);
  const double weight = decay_.weight(decay_.faded(now));
  // With a tool go the steps and skips to it, with a step the skips: nobody is asked about those.
  const auto goes = [&](const HeldItem& held) {
    return held.cell == accepted.cell ||
           (held.state == HeldItem::State::kHeld && held.tool == accepted.tool &&
            ((accepted.kind == ItemKind::kTool && held.kind != ItemKind::kArgument) ||
             (accepted.kind == ItemKind::kStep && held.kind == ItemKind::kSkip)));
  };
  for (const HeldItem& held : user.held)
    if (goes(held) && held.state != HeldItem::State::kListed) learn_accepted(held, levels, weight);
  std::erase_if(user.held, goes);
  settle(user, group, tenant);
  return true;
}

void Model::learn_accepted(const HeldItem& held, const Levels& levels, double weight) const {
  if (levels.user->counts.get(held.cell) > 0) return;
  if (held.kind != ItemKind::kArgument) {
    learn_new(item_key(hasher_, held.kind, held.from, *held.tool), levels, weight);
    return;
  }
  levels.user->counts.add(held.cell, static_cast<float>(weight));
  levels.group->counts.add(held.cell, static_cast<float>(weight));
  if (levels.tenant != levels.group) levels.tenant->counts.add(held.cell, static_cast<float>(weight));
}

bool Model::reject(Principal& user, Peers& group, Peers& tenant, std::uint64_t cell, double now) {
  const auto found = std::find_if(user.held.begin(), user.held.end(),
                                  [&](const HeldItem& held) { return held.cell == cell; });
  if (found == user.held.end()) return false;
  refresh(user.counts, user.epoch);
  refresh(group.counts, group.epoch);
  refresh(tenant.counts, tenant.epoch);
  ItemKey key;
  key.kind = found->kind;
  if (key.kind != ItemKind::kArgument) key = item_key(hasher_, found->kind, found->from, *found->tool);
  key.cell = cell;
  unlearn(key, {&user, &group, &tenant});
  found->state = HeldItem::State::kRejected;
  found->risk = std::max(found->risk, kHighRisk);
  found->since = now;
  settle(user, group, tenant);
  return true;
}

void Model::accept_habit(Principal& user, std::string_view what) {
  for (const SignalPtr& signal : signals_) signal->accept(user, what);
}

void Model::learn(const Scored& scored, Ran& ran) {
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
  ran.held = hold_arguments(scored);
  // Of the newest call, not of this one: a call that comes long after it was checked, or from a record far in
  // the past, weighs next to nothing, and would halve everybody's counts.
  const double most = kMostCalls * std::max(1., decay_.newest());
  const std::uint64_t row = scored.items[0].row;
  if (scored.user->counts.get(row) > most) scored.user->counts.rescale(.5F, 0);
  if (scored.group->counts.get(row) > most) scored.group->counts.rescale(.5F, 0);
  if (scored.tenant->counts.get(row) > most) scored.tenant->counts.rescale(.5F, 0);
  for (std::size_t i = 0; i < signals_.size(); ++i) {
    ran.mark = static_cast<std::uint8_t>(scored.marks >> (2 * i) & 3U);
    signals_[i]->learn(ran);
  }
  settle(*scored.user, *scored.group, *scored.tenant);
}

void Model::settle(Principal& user, Peers& group, Peers& tenant) {
  TenantState& home = *user.home;
  principals_.settle(home, group);
  if (&tenant != &group) principals_.settle(home, tenant);
  principals_.settle(user);
}

}  // namespace tool_firewall
