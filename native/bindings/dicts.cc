// SPDX-License-Identifier: Apache-2.0
#include "bindings/dicts.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <variant>

#include "bindings/arguments.h"
#include "engine/news.h"
#include "engine/report.h"
#include "text/phrase.h"

namespace py = pybind11;

namespace tool_firewall {
namespace {

py::dict reason_dict(const Reason& reason, const Names& names) {
  py::dict out;
  out["signal"] = to_python(signal_name(reason.signal));
  out["p"] = reason.p;
  out["value"] = reason.numbers.value;
  out["baseline"] = reason.numbers.baseline;
  const double z = z_score(reason.signal, reason.numbers);
  out["z_score"] = std::isnan(z) ? py::object(py::none()) : py::object(py::float_(z));
  out["explanation"] = to_python(explain(reason.signal, reason.numbers, names));
  return out;
}

py::dict base_dict(const char* kind, const RecordId& id) {
  py::dict out;
  out["kind"] = kind;
  out["ts"] = id.ts;
  out["worker"] = id.worker;
  out["seq"] = id.seq;
  return out;
}

void put_circumstances(py::dict& out, const Circumstances& c, const std::string& destination) {
  out["tenant"] = to_python(c.tenant);
  out["user"] = to_python(c.user);
  out["agent"] = to_python(c.agent);
  out["group"] = to_python(c.group);
  out["session"] = to_python(c.session);
  out["token"] = to_python(c.token);
  out["server"] = to_python(c.server);
  out["tool"] = to_python(c.tool);
  out["previous"] = to_python(c.previous);
  out["mode"] = to_python(name_of(c.mode));
  out["snoozed"] = c.snoozed;
  out["incident"] = c.incident == 0 ? "" : incident_name(c.incident);
  std::uint64_t loop = 0;
  for (const Reason& reason : c.reasons) loop = std::max(loop, incident_of(reason.signal, reason.numbers));
  out["loop"] = loop == 0 ? to_python("") : digits(loop);
  py::list reasons;
  for (const Reason& reason : c.reasons)
    reasons.append(reason_dict(reason, {c.user, c.tool, c.previous, destination}));
  out["reasons"] = reasons;
}

py::dict dict_of(const CallRecord& r) {
  py::dict out = base_dict("call", r.id);
  put_circumstances(out, r, r.destinations.empty() ? "" : r.destinations.front());
  out["blocked"] = r.blocked;
  out["decision"] = to_python(name_of(r.decision));
  out["uninspectable"] = to_python(name_of(r.inspection));
  out["risk"] = r.risk;
  out["arguments"] = digits(r.arguments);
  out["facts"] = to_python(to_text(r.facts));
  py::list destinations;
  for (const std::string& host : r.destinations) destinations.append(to_python(host));
  out["destinations"] = destinations;
  return out;
}

py::dict dict_of(const OutcomeRecord& r) {
  py::dict out = base_dict("outcome", r.id);
  out["outcome"] = to_python(name_of(r.outcome));
  out["cost"] = std::isnan(r.cost) ? py::object(py::none()) : py::object(py::float_(r.cost));
  out["risk"] = r.risk;
  out["decision"] = to_python(name_of(r.decision));
  if (r.decision != Decision::kAllow) put_circumstances(out, r.found, "");
  return out;
}

py::dict dict_of(const ControlRecord& r) {
  py::dict out = base_dict("control", r.id);
  out["action"] = to_python(r.action);
  out["tenant"] = to_python(r.tenant);
  out["tool"] = to_python(r.tool);
  out["user"] = to_python(r.user);
  out["value"] = to_python(r.value);
  out["by"] = to_python(r.by);
  out["why"] = to_python(r.why);
  return out;
}

py::dict scope_dict(const Scope& of) {
  py::dict scope;
  scope["tenant"] = to_python(of.tenant);
  scope["tool"] = to_python(of.tool);
  scope["user"] = to_python(of.user);
  return scope;
}

template <std::size_t A, std::size_t B>
py::dict verdicts_dict(const std::array<std::array<std::uint64_t, B>, A>& counts) {
  py::dict out;
  for (std::size_t decision = 0; decision < A; ++decision)
    for (std::size_t mode = 0; mode < B; ++mode)
      out[py::make_tuple(to_python(name_of(static_cast<Decision>(decision))),
                         to_python(name_of(static_cast<Mode>(mode))))] = counts[decision][mode];
  return out;
}

}  // namespace

py::str digits(std::uint64_t digest) {
  return to_python(phrase("%016llx", static_cast<unsigned long long>(digest)));
}

py::dict to_dict(const Record& record) {
  return std::visit([](const auto& r) { return dict_of(r); }, record);
}

py::list news_list(const Engine& engine, std::string_view tenant, std::string_view user) {
  py::list out;
  for (const NewsItem& news : news_of(engine, tenant, user)) {
    py::dict entry;
    entry["tenant"] = to_python(news.tenant);
    entry["user"] = to_python(news.user);
    entry["id"] = to_python(news.id);
    entry["kind"] = to_python(news.kind);
    entry["what"] = to_python(news.what);
    entry["tool"] = to_python(news.tool);
    entry["from"] = to_python(news.from);
    entry["since"] = news.since;
    entry["risk"] = news.risk;
    entry["state"] = to_python(news.state);
    entry["until"] = news.until;
    out.append(entry);
  }
  return out;
}

py::list snoozes_list(const Engine& engine) {
  py::list out;
  for (const Snooze& snooze : engine.snoozes().all()) {
    py::dict entry;
    entry["scope"] = scope_dict(snooze.scope);
    entry["until"] = snooze.until;
    entry["first"] = snooze.first;
    entry["by"] = to_python(snooze.by);
    entry["why"] = to_python(snooze.why);
    out.append(entry);
  }
  return out;
}

py::list modes_list(const Engine& engine) {
  py::list out;
  for (const ModeRecord& record : engine.modes().all()) {
    py::dict entry;
    entry["scope"] = scope_dict(record.scope);
    entry["mode"] = to_python(name_of(record.mode));
    entry["since"] = record.since;
    entry["by"] = to_python(record.by);
    entry["why"] = to_python(record.why);
    out.append(entry);
  }
  return out;
}

py::dict summary_dict(const Engine& engine) {
  py::dict out;
  out["calls"] = engine.calls();
  out["users"] = engine.model().principals().size();
  out["tools"] = engine.tools().size();
  out["tenants"] = engine.model().principals().tenants().size();
  out["memory_bytes"] = engine.model().principals().bytes();
  out["since"] = engine.first_call();
  out["last"] = engine.last_call();
  out["in_flight"] = engine.in_flight().size();
  py::dict decisions;
  for (std::size_t i = 0; i < engine.counts().verdicts.size(); ++i) {
    std::uint64_t sum = 0;
    for (const std::uint64_t count : engine.counts().verdicts[i]) sum += count;
    for (const std::uint64_t count : engine.counts().applied_verdicts[i]) sum += count;
    decisions[to_python(name_of(static_cast<Decision>(i)))] = sum;
  }
  out["decisions"] = decisions;
  return out;
}

py::dict counters_dict(const Engine& engine) {
  const Engine::Counts& counts = engine.counts();
  py::dict out;
  out["blocked"] = counts.blocked;
  out["uninspectable"] = counts.uninspectable;
  for (std::size_t i = 0; i < counts.outcomes.size(); ++i)
    out[py::str("outcome_" + std::string(name_of(static_cast<Outcome>(i))))] = counts.outcomes[i];
  out["after_audit"] = counts.after[static_cast<std::size_t>(Decision::kAudit)];
  out["after_deny"] = counts.after[static_cast<std::size_t>(Decision::kDeny)];
  out["assumed_done"] = counts.assumed_done;
  out["crowded_out"] = counts.crowded_out;
  out["unpaired"] = counts.unpaired;
  out["records_dropped"] = counts.dropped;
  out["findings_lost"] = counts.findings_lost;
  out["records_unreadable"] = counts.unreadable;
  out["records_repeated"] = counts.repeated;
  out["records_applied"] = counts.applied;
  out["clock_ahead"] = engine.clock().state().ahead;
  out["clock_behind"] = engine.clock().state().behind;
  out["clock_moved"] = engine.clock().state().moved;
  out["records_queued"] = engine.queued();
  out["users_evicted"] = engine.model().principals().evicted();
  out["evicted_for_memory"] = engine.model().principals().evicted_for_memory();
  out["tables_stopped"] = engine.model().principals().tables_stopped();
  out["groups_refused"] = engine.model().principals().groups_refused();
  out["tools_refused"] = counts.tools_refused;
  out["held_refused"] = engine.model().held_refused();
  out["news_dropped"] = engine.model().news_dropped();
  out["sessions_dropped"] = engine.model().sessions_dropped();
  return out;
}

py::dict metrics_dict(const Engine& engine) {
  py::dict out;
  out["verdicts"] = verdicts_dict(engine.counts().verdicts);
  py::list buckets;
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < Engine::kRiskBuckets.size(); ++i) {
    sum += engine.counts().risk[i];
    buckets.append(py::make_tuple(Engine::kRiskBuckets[i], sum));
  }
  buckets.append(py::make_tuple(std::numeric_limits<double>::infinity(), sum));
  out["risk_buckets"] = buckets;
  out["risk_sum"] = engine.counts().risk_sum;
  return out;
}

py::list principals_list(const Engine& engine) {
  py::list out;
  for (const auto& [tenant, state] : engine.model().principals().tenants()) {
    for (const auto& [user, principal] : state->principals) {
      py::dict entry;
      entry["tenant"] = to_python(tenant);
      entry["user"] = to_python(user);
      entry["group"] = to_python(principal->group);
      entry["calls"] = principal->calls;
      entry["first"] = principal->first;
      entry["last"] = principal->last;
      entry["bytes"] = principal->bytes;
      out.append(entry);
    }
  }
  return out;
}

py::object baseline_dict(Engine& engine, std::string_view tenant, std::string_view user) {
  const std::optional<Baseline> baseline = baseline_of(engine, tenant, user);
  if (!baseline) return py::none();
  py::dict out;
  out["tenant"] = to_python(baseline->tenant);
  out["user"] = to_python(baseline->user);
  out["group"] = to_python(baseline->group);
  out["group_from"] = to_python(baseline->group_from);
  out["zone"] = to_python(baseline->zone);
  out["calls"] = baseline->calls;
  out["first"] = baseline->first;
  out["last"] = baseline->last;
  py::list tools;
  for (const BaselineTool& tool : baseline->tools) {
    py::dict entry;
    entry["tool"] = to_python(tool.name);
    entry["server"] = to_python(tool.server);
    entry["count"] = tool.count;
    entry["share"] = tool.share;
    tools.append(entry);
  }
  out["tools"] = tools;
  py::list steps;
  for (const BaselineStep& step : baseline->steps) {
    py::dict entry;
    entry["from"] = to_python(step.from);
    entry["to"] = to_python(step.to);
    entry["count"] = step.count;
    steps.append(entry);
  }
  out["steps"] = steps;
  out["hours"] = py::cast(baseline->hours);
  py::list held;
  for (const BaselineHeld& item : baseline->held) {
    py::dict entry;
    entry["kind"] = to_python(item.kind);
    entry["tool"] = to_python(item.tool);
    entry["from"] = to_python(item.from);
    entry["until"] = item.until;
    held.append(entry);
  }
  out["held"] = held;
  py::dict signals;
  for (const BaselineSignal& signal : baseline->signals) {
    py::dict facts;
    for (const Fact& fact : signal.facts) facts[to_python(fact.name)] = fact.value;
    signals[to_python(signal.name)] = facts;
  }
  out["signals"] = signals;
  return out;
}

}  // namespace tool_firewall
