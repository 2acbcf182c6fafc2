// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "engine/learned_groups.h"
#include "engine/news.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace tool_firewall {
namespace {

constexpr std::uint64_t kIncidentKind = 1001;
constexpr std::uint64_t kCallerKind = 1002;
constexpr std::uint64_t kHistoryKind = 1003;
constexpr double kDay = 86400;
constexpr std::size_t kMostAppliedCallers = 1U << 14;
constexpr std::string_view kMoreTools = "(more tools)";

std::uint64_t digest_after(std::uint64_t before, std::string_view pack) {
  return XXH3_64bits_withSeed(pack.data(), pack.size(), before);
}

std::size_t index(auto value) { return static_cast<std::size_t>(value); }

void check_zone(const EngineSettings& settings, const std::string& what, const std::string& name) {
  if (name != "UTC" && !settings.zones.contains(name))
    throw std::invalid_argument(what + ": unknown time zone '" + name + "'");
}

}  // namespace

Engine::Engine(const EngineSettings& settings, std::span<const unsigned char> secret)
    : settings_(settings), hasher_(secret), seal_(secret), model_(settings_.model, hasher_) {
  check_zone(settings_, "default_zone", settings_.default_zone);
  for (const auto& [tenant, zone] : settings_.tenant_zones) check_zone(settings_, "tenant_zones", zone);
  for (const auto& [user, zone] : settings_.user_zones) check_zone(settings_, "user_zones", zone);
  for (auto& [name, zone] : settings_.zones) zone.name = name;
}

const Zone& Engine::zone_of(std::string_view tenant, std::string_view user) const {
  const std::string* name = &settings_.default_zone;
  if (const auto found = settings_.tenant_zones.find(std::string(tenant));
      found != settings_.tenant_zones.end())
    name = &found->second;
  if (const auto found = settings_.user_zones.find(std::string(user)); found != settings_.user_zones.end())
    name = &found->second;
  const auto zone = settings_.zones.find(*name);
  return zone == settings_.zones.end() ? utc_ : zone->second;
}

void Engine::resolve(Caller& caller) {
  if (caller.principal && !caller.principal->evicted) {
    if (caller.principal->group != caller.group) caller.principal->group = caller.group;
    if (settings_.learn_groups && caller.group.empty()) look_for_group(caller);
    return;
  }
  TenantState& tenant = model_.principals().tenant(caller.tenant);
  bool fresh = false;
  caller.principal = model_.principals().principal(tenant, caller.user, fresh);
  if (fresh) caller.principal->zone = &zone_of(caller.tenant, caller.user);
  caller.principal->group = caller.group;
  caller.tenant_level = &tenant.peers;
  caller.learned_group = caller.group.empty() ? caller.principal->learned_group : "";
  caller.group_level =
      &model_.principals().group(tenant, caller.group.empty() ? caller.learned_group : caller.group);
  caller.session_id = hasher_.text(caller.session);
  caller.identity = {caller.agent.empty() ? 0 : hasher_.text(caller.agent),
                     caller.token.empty() ? 0 : hasher_.text(caller.token)};
}

// Of users that are in no group. Another caller of the same user may have found one meanwhile.
void Engine::look_for_group(Caller& caller) {
  Principal& user = *caller.principal;
  TenantState& tenant = *user.home;
  if (LearnedGroups::due(user.calls)) [[unlikely]]
    user.learned_group = LearnedGroups::choose(tenant, user, tool_order_, hasher_);
  if (caller.learned_group == user.learned_group) return;
  caller.learned_group = user.learned_group;
  caller.group_level = &model_.principals().group(tenant, caller.learned_group);
}

const Tool& Engine::tool_named(std::string_view server, std::string_view name) {
  const std::uint64_t id = hasher_.text(server, name);
  if (const auto found = tools_.find(id); found != tools_.end()) return *found->second;
  if (tools_.size() >= kMostTools && name != kMoreTools) {
    ++counts_.tools_refused;
    return tool_named("", kMoreTools);
  }
  auto tool = std::make_unique<Tool>(hasher_, server, name);
  tool_order_.push_back(tool.get());
  return *tools_.emplace(id, std::move(tool)).first->second;
}

Mode Engine::mode_in_force(const InstancePolicy& policy, std::string_view tenant, std::string_view tool,
                           std::string_view user, double now) const {
  if (const ModeRecord* record = modes_.in_force(tenant, tool, user)) return record->mode;
  const bool learned =
      settings_.learning_days > 0 && first_call_ > 0 && now - first_call_ >= settings_.learning_days * kDay;
  return policy.mode == Mode::kLearning && learned ? Mode::kWarn : policy.mode;
}

void Engine::decide(const InstancePolicy& policy, const Caller& caller, std::string_view tool,
                    const Arguments& arguments, double now, Verdict& verdict) const {
  verdict.mode = mode_in_force(policy, caller.tenant, tool, caller.user, now);
  if (arguments.inspection != Inspection::kInspected && !policy.exempt_tools.contains(std::string(tool))) {
    verdict.inspection = arguments.inspection;
    verdict.decision = Decision::kDeny;
  } else {
    verdict.decision = decision_of(verdict.risk, threshold_for(policy, caller, tool));
    verdict.snoozed = snoozes_.active(caller.tenant, tool, caller.user, now);
  }
  verdict.blocked = verdict.decision == Decision::kDeny && verdict.mode == Mode::kBlock && !verdict.snoozed;
}

double Engine::threshold_for(const InstancePolicy& policy, const Caller& caller,
                             std::string_view tool) const {
  const auto said = [](const auto& thresholds, std::string_view name) {
    const auto found = thresholds.empty() ? thresholds.end() : thresholds.find(name);
    return found == thresholds.end() ? 0 : found->second;
  };
  if (const double of_user = said(settings_.user_thresholds, caller.user); of_user > 0) return of_user;
  if (const double of_tool = said(settings_.tool_thresholds, tool); of_tool > 0) return of_tool;
  if (policy.own_threshold) return policy.threshold;
  if (const double of_tenant = said(settings_.tenant_thresholds, caller.tenant); of_tenant > 0)
    return of_tenant;
  return policy.threshold;
}

Verdict Engine::check(const InstancePolicy& policy, const CallerPtr& caller, std::string_view server,
                      std::string_view tool, const Arguments& arguments, double now) {
  now = possible(now);
  const Moment when = read_clock(now, Clock::Origin::kLive);
  expire(when.everybody);
  resolve(*caller);
  saw_call(when);
  Verdict verdict;
  verdict.tool = &tool_named(server, tool);
  const RecordId id{settings_.worker, ++seq_, now};
  verdict.incident = hasher_.pair(kIncidentKind, id.worker, id.seq);
  InFlight::Call& call = next_call({id.worker, id.seq, when.everybody});
  Score score = model_.score(caller->principal, *caller->group_level, *caller->tenant_level,
                             {caller->session_id,
                              *verdict.tool,
                              {arguments.facts.begin(), arguments.facts.size()},
                              arguments.digest,
                              caller->identity},
                             when, call.scored, [&](double risk) {
                               verdict.risk = risk;
                               decide(policy, *caller, tool, arguments, when.everybody, verdict);
                               return verdict.blocked;
                             });
  verdict.reasons = std::move(score.reasons);
  verdict.previous = score.previous;

  ++counts_.verdicts[index(verdict.decision)][index(verdict.mode)];
  counts_.blocked += verdict.blocked ? 1 : 0;
  counts_.uninspectable += verdict.inspection != Inspection::kInspected ? 1 : 0;
  counts_.risk_sum += verdict.risk;
  const auto bucket = std::lower_bound(kRiskBuckets.begin(), kRiskBuckets.end(), verdict.risk);
  ++counts_.risk[static_cast<std::size_t>(bucket - kRiskBuckets.begin())];

  if (!verdict.blocked) {
    call.caller = caller;
    call.previous = verdict.previous;
    call.incident = verdict.incident;
    call.threshold = threshold_for(policy, *caller, tool);
    call.decision = verdict.decision;
    call.mode = verdict.mode;
    call.snoozed = verdict.snoozed;
    verdict.ticket = in_flight_.add(false);
  }
  if (settings_.journaling)
    push(verdict.decision != Decision::kAllow,
         QueuedCall{id,
                    verdict,
                    arguments.digest,
                    {arguments.facts.begin(), arguments.facts.end()},
                    settings_.record_destinations ? arguments.destinations : std::vector<std::string>(),
                    caller});
  return verdict;
}

Decision Engine::decision_of(double risk, double threshold) {
  return risk >= threshold ? Decision::kDeny : risk >= kNotable ? Decision::kAudit : Decision::kAllow;
}

Aftermath Engine::observe(std::uint64_t ticket, Outcome outcome, double cost, double now) {
  now = possible(now);
  expire(clock_.settled(now));
  Aftermath after;
  std::optional<InFlight::Call> call = in_flight_.take(ticket);
  if (!call) {
    ++counts_.unpaired;
    return after;
  }
  ++counts_.outcomes[index(outcome)];
  Score score = model_.end(call->scored, {clock_.settled(now), outcome == Outcome::kOk, cost});
  after.known = true;
  after.risk = score.risk;
  const Decision decision = decision_of(score.risk, call->threshold);
  const QueuedOutcome ended{{call->id.worker, call->id.seq, now}, outcome, cost, score.risk};
  if (decision == Decision::kAllow || score.risk <= call->scored.risk) {
    if (settings_.journaling) push(false, ended);
    return after;
  }
  after.told = call->decision == Decision::kDeny;
  after.decision = decision;
  after.mode = call->mode;
  after.snoozed = call->snoozed;
  after.incident = call->incident;
  after.reasons = std::move(score.reasons);
  after.tool = call->scored.tool;
  after.previous = call->previous;
  after.caller = std::move(call->caller);
  ++counts_.after[index(decision)];
  if (settings_.journaling) push(true, QueuedAftermath{ended, after});
  return after;
}

void Engine::expire(double now) {
  while (const std::optional<InFlight::Call> call = in_flight_.take_done(now)) {
    ++counts_.assumed_done;
    learn(*call);
  }
}

double Engine::possible(double now) const { return std::abs(now) < kMostTime ? now : clock_.newest(); }

Moment Engine::read_clock(double ts, Clock::Origin origin) {
  const Moment when = clock_.read(ts, origin);
  if (double from = 0; clock_.jumped(from)) [[unlikely]]
    model_.jump(from, clock_.newest());
  return when;
}

void Engine::saw_call(const Moment& when) {
  ++calls_;
  const double seen = when.past ? when.own : when.everybody;
  if (first_call_ <= 0 || seen < first_call_) first_call_ = seen;
}

InFlight::Call& Engine::next_call(const RecordId& id) {
  std::optional<InFlight::Call> overflow;
  InFlight::Call& call = in_flight_.next(overflow);
  call.id = id;
  if (overflow) {
    ++counts_.crowded_out;
    learn(*overflow);
  }
  return call;
}

void Engine::push(bool finding, Queueable what) {
  Queue& queue = finding ? findings_ : ordinary_;
  if (queue.size() >= kMostQueued) {
    queue.pop_front();
    ++(finding ? counts_.findings_lost : counts_.dropped);
  }
  queue.push_back({++order_, std::move(what)});
}

std::string Engine::encode_queued(const Queued& queued) {
  const auto about = [](Circumstances& record, const Caller& caller, const Tool& tool, const Tool* previous) {
    record.tenant = caller.tenant;
    record.user = caller.user;
    record.agent = caller.agent;
    record.group = caller.group;
    record.session = caller.session;
    record.token = caller.token;
    record.server = tool.server;
    record.tool = tool.name;
    record.previous = previous == nullptr ? "" : previous->name;
  };
  const auto told = [](Circumstances& record, const auto& by) {
    record.mode = by.mode;
    record.snoozed = by.snoozed;
    record.incident = by.incident;
    record.reasons = by.reasons;
  };
  const auto ended = [](const QueuedOutcome& outcome) {
    OutcomeRecord record;
    record.id = outcome.id;
    record.outcome = outcome.outcome;
    record.cost = outcome.cost;
    record.risk = outcome.risk;
    return record;
  };
  if (const auto* outcome = std::get_if<QueuedOutcome>(&queued.what)) return encode(ended(*outcome));
  if (const auto* control = std::get_if<ControlRecord>(&queued.what)) return encode(*control);
  if (const auto* after = std::get_if<QueuedAftermath>(&queued.what)) {
    OutcomeRecord record = ended(after->outcome);
    record.decision = after->aftermath.decision;
    told(record.found, after->aftermath);
    about(record.found, *after->aftermath.caller, *after->aftermath.tool, after->aftermath.previous);
    return encode(record);
  }
  const auto& call = std::get<QueuedCall>(queued.what);
  CallRecord record;
  record.id = call.id;
  record.blocked = call.verdict.blocked;
  record.decision = call.verdict.decision;
  record.inspection = call.verdict.inspection;
  record.risk = call.verdict.risk;
  record.arguments = call.arguments;
  record.facts = call.facts;
  record.destinations = call.destinations;
  told(record, call.verdict);
  about(record, *call.caller, *call.verdict.tool, call.verdict.previous);
  return encode(record);
}

std::vector<Pack> Engine::drain(std::size_t limit) {
  std::vector<Pack> packs;
  for (std::size_t taken = 0; taken < limit && queued() > 0; ++taken) {
    const bool from_findings =
        !findings_.empty() && (ordinary_.empty() || findings_.front().order < ordinary_.front().order);
    Queue& queue = from_findings ? findings_ : ordinary_;
    const std::string record = encode_queued(queue.front());
    queue.pop_front();
    const RecordClass worth = class_of(record);
    if (packs.empty() || !packs.back().takes(worth)) packs.emplace_back();
    packs.back().add(worth, record);
  }
  return packs;
}

void Engine::note(std::string action, std::string value, double now) {
  ControlRecord record;
  record.id = {settings_.worker, ++seq_, possible(now)};
  record.action = std::move(action);
  record.value = std::move(value);
  if (settings_.journaling) push(true, std::move(record));
}

std::size_t Engine::apply(std::string_view pack) {
  if (read_digest_ != 0) read_digest_ = std::max<std::uint64_t>(1, digest_after(read_digest_, pack));
  std::size_t applied = 0;
  try {
    PackReader records(pack);
    std::string_view record;
    while (records.next(record)) applied += apply_one(record) ? 1 : 0;
  } catch (const RecordError&) {
    ++counts_.unreadable;
  }
  return applied;
}

bool Engine::apply_one(std::string_view bytes) {
  try {
    if (settings_.worker != 0 && worker_of(bytes) == settings_.worker) return false;
    Record record = decode(bytes);
    const bool outcome = std::holds_alternative<OutcomeRecord>(record);  // has its call's number
    if (!outcome && seen(std::visit([](const auto& r) { return r.id; }, record))) return false;
    std::visit([this](auto& r) { apply_record(r); }, record);
  } catch (const RecordError&) {
    ++counts_.unreadable;
    return false;
  }
  ++counts_.applied;
  return true;
}

// Whether a record of this number was applied before; remembers that it is now.
bool Engine::seen(const RecordId& id) {
  const auto [found, fresh] = followed_.try_emplace(id.worker);
  if (!fresh && id.seq <= found->second.seq) {
    ++counts_.repeated;
    return true;
  }
  found->second = {id.seq, ++follow_order_};
  if (followed_.size() > kMostWorkers)
    followed_.erase(std::min_element(followed_.begin(), followed_.end(), [](const auto& a, const auto& b) {
      return a.second.order < b.second.order;
    }));
  return false;
}

void Engine::apply_record(CallRecord& record) {
  const Moment when =
      read_clock(record.id.ts, record.incident == 0 ? Clock::Origin::kImported : Clock::Origin::kLive);
  expire(when.everybody);
  auto caller = std::make_shared<Caller>();
  caller->tenant = std::move(record.tenant);
  caller->user = std::move(record.user);
  caller->agent = std::move(record.agent);
  caller->group = std::move(record.group);
  caller->session = std::move(record.session);
  caller->token = std::move(record.token);
  const std::uint64_t key = hasher_.pair(kCallerKind, hasher_.text(caller->tenant, caller->user),
                                         hasher_.pair(0, hasher_.text(caller->group, caller->session),
                                                      hasher_.text(caller->agent, caller->token)));
  const auto [found, fresh] = applied_callers_.try_emplace(key, std::move(caller));
  caller = found->second;
  if (fresh) {
    applied_order_.push_back(key);
    if (applied_order_.size() > kMostAppliedCallers) {  // one by one: freeing all at once takes long
      applied_callers_.erase(applied_order_.front());
      applied_order_.pop_front();
    }
  }
  resolve(*caller);
  saw_call(when);
  ++counts_.applied_verdicts[index(record.decision)][index(record.mode)];
  // History has conversations of its own.
  const std::uint64_t session =
      when.past ? hasher_.pair(kHistoryKind, caller->session_id) : caller->session_id;
  model_.score(
      caller->principal, *caller->group_level, *caller->tenant_level,
      {session, tool_named(record.server, record.tool), record.facts, record.arguments, caller->identity},
      when, next_call({record.id.worker, record.id.seq, when.everybody}).scored,
      [&](double) { return record.blocked; });
  if (!record.blocked) in_flight_.add(true);
}

void Engine::apply_record(OutcomeRecord& record) {
  expire(clock_.settled(record.id.ts));
  if (const auto call = in_flight_.take(record.id.worker, record.id.seq))
    model_.end(call->scored, {clock_.settled(record.id.ts), record.outcome == Outcome::kOk, record.cost});
}

void Engine::apply_record(ControlRecord& record) {
  if (record.action == "mode") set_mode(record);
  if (record.action == "snooze") set_snooze(record);
  if (record.action == "accept" || record.action == "reject") judge(record);
  // Anything else is for other readers, or of a newer version: not ours to judge.
}

void Engine::set_mode(ControlRecord& record) {
  Scope scope{std::move(record.tenant), std::move(record.tool), std::move(record.user)};
  if (record.value.empty()) {
    modes_.clear(scope);
    return;
  }
  const std::optional<Mode> mode = mode_named(record.value);
  if (!mode) throw RecordError("control record: unknown mode");
  modes_.set({std::move(scope), *mode, record.id.ts, std::move(record.by), std::move(record.why)});
}

void Engine::set_snooze(ControlRecord& record) {
  Scope scope{std::move(record.tenant), std::move(record.tool), std::move(record.user)};
  double until = 0;
  if (!record.value.empty()) {
    const char* const end = record.value.data() + record.value.size();
    const auto read = std::from_chars(record.value.data(), end, until);
    if (read.ec != std::errc() || read.ptr != end || !std::isfinite(until))
      throw RecordError("control record: no time to snooze until");
  }
  snoozes_.set({std::move(scope), until, 0, std::move(record.by), std::move(record.why)}, record.id.ts);
}

// accept and reject: of somebody and something that is not known (any more) there is nothing to say.
void Engine::judge(const ControlRecord& record) {
  const PrincipalPtr user = model_.principals().find(record.tenant, record.user);
  if (!user) return;
  const bool accepts = record.action == "accept";
  const std::optional<std::uint64_t> item = news_item(record.value);
  if (!item) {
    if (accepts) model_.accept_habit(*user, record.value);
    return;
  }
  Caller caller;
  caller.tenant = record.tenant;
  caller.user = record.user;
  caller.group = user->group;
  resolve(caller);
  if (accepts)
    model_.accept(*user, *caller.group_level, *caller.tenant_level, *item, clock_.newest());
  else
    model_.reject(*user, *caller.group_level, *caller.tenant_level, *item, clock_.newest());
}

}  // namespace tool_firewall
