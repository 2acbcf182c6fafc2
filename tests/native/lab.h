// SPDX-License-Identifier: Apache-2.0
// What the native tests share: an engine with callers and a way to make traffic, and one signal on a bench of
// its own.
#pragma once

#include <array>
#include <initializer_list>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace tool_firewall {

inline constexpr std::array<unsigned char, 32> kKey = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11,
                                                       12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
                                                       23, 24, 25, 26, 27, 28, 29, 30, 31, 32};
inline constexpr double kMinute = 60;
inline constexpr double kHour = 3600;
inline constexpr double kDay = 86400;
inline constexpr double kMonday = 1'772'409'600;  // 2026-03-02 00:00 UTC

inline constexpr double kNoCost = std::numeric_limits<double>::quiet_NaN();

struct Who {
  std::string user = "alice@example.com";
  std::string tenant = "acme";
  std::string session = "s";
  std::string group = "";
  std::string agent = "";
  std::string token = "";
};

// Texts by argument name, read as the bindings read them.
using Texts = std::initializer_list<std::pair<std::string_view, std::string_view>>;
inline Arguments arguments_of(const Hasher& hasher, const Texts& texts) {
  Arguments arguments;
  ArgumentReader reader(hasher, arguments.facts, arguments.destinations);
  for (const auto& [name, value] : texts) reader.text(reader.member({}, name), value);
  reader.structure({}, 'o');
  arguments.digest = reader.result();
  return arguments;
}

inline InstancePolicy policy_of(Mode mode) {
  InstancePolicy policy;
  policy.mode = mode;
  return policy;
}

// An engine and its callers. Times are s, UTC.
struct Lab {
  explicit Lab(const EngineSettings& settings = {}) : engine(settings, kKey) {}

  const CallerPtr& caller(const Who& who) {
    CallerPtr& made = callers[{who.tenant, who.user, who.session, who.group, who.agent, who.token}];
    if (!made) {
      made = std::make_shared<Caller>();
      made->tenant = who.tenant;
      made->user = who.user;
      made->session = who.session;
      made->group = who.group;
      made->agent = who.agent;
      made->token = who.token;
    }
    return made;
  }

  Verdict check(const Who& who, std::string_view tool, double now, const Arguments& arguments = {}) {
    return engine.check(policy, caller(who), "upstream", tool, arguments, now);
  }

  // A call that ends at once, unless it was blocked.
  Verdict run(const Who& who, std::string_view tool, double now, const Arguments& arguments = {}) {
    Verdict verdict = check(who, tool, now, arguments);
    if (verdict.ticket != 0) end(verdict, now);
    return verdict;
  }

  Aftermath end(const Verdict& verdict, double now, double cost = kNoCost, Outcome outcome = Outcome::kOk) {
    return engine.observe(verdict.ticket, outcome, cost, now);
  }

  // A call that ends at once; what its end showed.
  Aftermath complete(const Who& who, std::string_view tool, double now, double cost,
                     const Arguments& arguments = {}, Outcome outcome = Outcome::kOk) {
    return end(check(who, tool, now, arguments), now, cost, outcome);
  }

  Arguments arguments(const Texts& texts) const { return arguments_of(engine.hasher(), texts); }

  // `calls` calls a day on `days` days from `first`, ten minutes apart from 09:00 on, the tools in turn.
  double history(const Who& who, const std::vector<std::string>& tools, int days, int calls,
                 double first = kMonday) {
    double now = first;
    std::size_t turn = 0;
    for (int day = 0; day < days; ++day) {
      for (int i = 0; i < calls; ++i) {
        now = first + day * kDay + 9 * kHour + i * 10 * kMinute;
        run(who, tools[turn++ % tools.size()], now);
      }
    }
    return now;
  }

  // One fact of `tool-firewall baseline show`, -1 when there is none of this name.
  double fact(const Who& who, std::string_view name, double now) {
    const CallerPtr& one = caller(who);
    engine.resolve(*one);
    for (const SignalPtr& signal : engine.model().signals())
      for (const Fact& fact : signal->facts({one->principal.get(), one->group_level, one->tenant_level}, now))
        if (fact.name == name) return fact.value;
    return -1;
  }

  // Everything queued, record by record.
  std::vector<std::string> journal(std::size_t limit = 1'000'000) {
    std::vector<std::string> records;
    for (const Pack& pack : engine.drain(limit)) {
      PackReader reader(pack.bytes);
      for (std::string_view record; reader.next(record);) records.emplace_back(record);
    }
    return records;
  }

  Engine engine;
  InstancePolicy policy;
  std::map<std::tuple<std::string, std::string, std::string, std::string, std::string, std::string>,
           CallerPtr>
      callers;
};

// Applies one record; whether it was new.
inline bool feed(Engine& engine, std::string_view record) {
  Pack pack;
  pack.add(RecordClass::kOrdinary, record);
  return engine.apply(pack.bytes) == 1;
}

inline Arguments unreadable(Inspection why) {
  Arguments arguments;
  arguments.inspection = why;
  return arguments;
}

inline OutcomeRecord ended(const RecordId& id, Outcome outcome = Outcome::kOk) {
  OutcomeRecord record;
  record.id = id;
  record.outcome = outcome;
  return record;
}

inline EngineSettings journaling(std::uint64_t worker) {
  EngineSettings settings;
  settings.worker = worker;
  settings.journaling = true;
  return settings;
}

// The position of a signal in signals.def, 255 when there is none of this name.
inline std::uint8_t position_of(std::string_view signal) {
  for (std::uint8_t i = 0; !signal_name(i).empty(); ++i)
    if (signal_name(i) == signal) return i;
  return 255;
}

// Of a Verdict or an Aftermath.
template <class Said>
const Reason* reason_of(const Said& verdict, std::string_view signal) {
  for (const Reason& reason : verdict.reasons)
    if (signal_name(reason.signal) == signal) return &reason;
  return nullptr;
}

// The items of a call of `tool` next in `session`, with what the levels have counted.
inline Usage usage_of(const Hasher& hasher, const Tool& tool, const Session& session, const Levels& levels) {
  Usage usage;
  usage.set(hasher, tool, session);
  usage.read(levels);
  return usage;
}

// Adds one event to an item at all levels, as the model does with what it does not hold.
inline News learn_item(const ItemKey& key, const Levels& levels, double weight) {
  const News known = learn_known(key, levels, weight);
  return known.any ? known : learn_new(key, levels, weight);
}

// One signal with a user, a group and a tenant, and no engine.
struct SignalBench {
  using Maker = SignalPtr (*)(const SignalSettings&);
  static constexpr std::size_t kState = 4096;  // bytes

  explicit SignalBench(Maker make, SignalSettings settings = {})
      : hasher(kKey),
        signal(make(with_hasher(settings))),
        user("acme", "alice", kState),
        group("analysts", 0, kState),
        tenant("acme", 0, kState),
        levels{&user, &group, &tenant} {
    user.zone = &utc;
    session.begin(1, kState);
  }

  SignalSettings with_hasher(SignalSettings settings) const {
    settings.hasher = &hasher;
    return settings;
  }

  const Tool* tool(const std::string& name) {
    auto& made = tools[name];
    if (!made) made = std::make_unique<Tool>(hasher, "", name);
    return made.get();
  }

  Sight sight(double now, const std::string& name = "query") {
    Sight sight;
    sight.now = sight.everybody = now;
    sight.local = utc.local(now);
    sight.tool = tool(name);
    sight.levels = levels;
    sight.session = &session;
    sight.usage = usage_of(hasher, *sight.tool, session, levels);
    sight.digest = sight.tool->id;
    return sight;
  }

  // What the model makes of a call that ended at once, unless told otherwise.
  static Ran ran(const Sight& sight) {
    Ran ran;
    ran.now = ran.ended = sight.now;
    ran.weight = sight.weight;
    ran.local = sight.local;
    ran.tool = sight.tool;
    ran.session = sight.session;
    ran.levels = sight.levels;
    ran.arguments = &sight.arguments;
    ran.digest = sight.digest;
    ran.identity = sight.identity;
    return ran;
  }

  std::vector<double> measure(const Sight& sight) {
    std::vector<double> raw(signal->channels().size());
    signal->measure(sight, raw);
    return raw;
  }

  // Measures, counts, and gives the floor before counting.
  double call(double now, bool blocked = false) {
    const Sight here = sight(now);
    measure(here);
    const double floor = signal->floor();
    signal->count(here, blocked);
    return floor;
  }

  // What is said of numbers().
  std::string said(const Sight& here, const Names& names) const {
    return signal->explain(signal->numbers(here), names);
  }

  double fact(std::string_view name, double now) const {
    for (const Fact& fact : signal->facts(levels, now))
      if (fact.name == name) return fact.value;
    return -1;
  }

  Hasher hasher;
  Zone utc;
  SignalPtr signal;
  Principal user;
  Peers group, tenant;
  Levels levels;
  Session session;
  std::map<std::string, std::unique_ptr<Tool>> tools;
};

#define TOOL_FIREWALL_SIGNAL(name) SignalPtr make_##name(const SignalSettings& settings);
#include "behavior/signals.def"
#undef TOOL_FIREWALL_SIGNAL

}  // namespace tool_firewall
