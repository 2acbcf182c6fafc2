// SPDX-License-Identifier: Apache-2.0
#include "engine/report.h"

#include <algorithm>

namespace tool_firewall {
namespace {

constexpr std::string_view kHourFact = "hour_";  // of off_hours

std::size_t hour_of(std::string_view fact) {
  return static_cast<std::size_t>(std::stoi(std::string(fact.substr(kHourFact.size())))) % 24;
}

std::string_view name_of(ItemKind kind) {
  switch (kind) {
    case ItemKind::kTool:
      return "tool";
    case ItemKind::kStep:
      return "step";
    case ItemKind::kSkip:
      return "skip";
    case ItemKind::kArgument:
      break;
  }
  return "argument";
}

std::string name_or_empty(const Tool* tool) { return tool == nullptr ? "" : tool->name; }

std::vector<BaselineStep> steps_between(const Engine& engine, const Levels& levels,
                                        const std::vector<const Tool*>& used, double weight) {
  std::vector<const Tool*> origins = used;
  origins.push_back(nullptr);
  std::vector<BaselineStep> steps;
  for (const Tool* from : origins) {
    Session session;
    session.previous = from;
    for (const Tool* to : used) {
      Usage usage;
      usage.set(engine.hasher(), *to, session);
      usage.read(levels);
      const Item& item = usage.step();
      if (item.known(Level::kUser))
        steps.push_back({name_or_empty(from), to->name, item.level(Level::kUser).count / weight});
    }
  }
  std::sort(steps.begin(), steps.end(), [](const auto& a, const auto& b) { return a.count > b.count; });
  if (steps.size() > kMostSteps) steps.resize(kMostSteps);
  return steps;
}

}  // namespace

std::optional<Baseline> baseline_of(Engine& engine, std::string_view tenant, std::string_view user) {
  const PrincipalPtr principal = engine.model().principals().find(tenant, user);
  if (!principal) return std::nullopt;
  Caller caller;
  caller.tenant = tenant;
  caller.user = user;
  caller.group = principal->group;
  engine.resolve(caller);
  const Levels levels{principal.get(), caller.group_level, caller.tenant_level};
  const double weight = engine.model().weight_for(*principal, engine.last_call());

  Baseline out;
  out.tenant = principal->tenant;
  out.user = principal->user;
  out.group = principal->group.empty() ? principal->learned_group : principal->group;
  out.group_from = !principal->group.empty() ? "configuration" : out.group.empty() ? "tenant" : "learned";
  out.zone = principal->zone->name;
  out.calls = principal->calls;
  out.first = principal->first;
  out.last = principal->last;

  std::vector<const Tool*> used;
  for (const Tool* tool : engine.tools()) {
    Usage usage;
    usage.set(engine.hasher(), *tool, Session{});
    usage.read(levels);
    const Item& item = usage.tool();
    if (!item.known(Level::kUser)) continue;
    const Tally& tally = item.level(Level::kUser);
    out.tools.push_back({tool->server, tool->name, tally.count / weight,
                         std::min(1., tally.count / std::max(1e-12, static_cast<double>(tally.total)))});
    used.push_back(tool);
  }
  std::sort(out.tools.begin(), out.tools.end(),
            [](const auto& a, const auto& b) { return a.count > b.count; });
  out.steps = steps_between(engine, levels, used, weight);
  for (const HeldItem& held : principal->held) {
    if (held.state != HeldItem::State::kHeld) continue;
    const double until = held.since + engine.model().new_for();
    if (until > engine.last_call())
      out.held.push_back(
          {std::string(name_of(held.kind)), name_or_empty(held.tool), name_or_empty(held.from), until});
  }
  for (const SignalPtr& signal : engine.model().signals()) {
    std::vector<Fact> facts = signal->facts(levels, engine.last_call());
    if (signal->name() == "off_hours") {
      for (const Fact& fact : facts)
        if (fact.name.starts_with(kHourFact)) out.hours[hour_of(fact.name)] = fact.value;
      std::erase_if(facts, [](const Fact& fact) { return fact.name.starts_with(kHourFact); });
    }
    if (!facts.empty()) out.signals.push_back({std::string(signal->name()), std::move(facts)});
  }
  return out;
}

}  // namespace tool_firewall
