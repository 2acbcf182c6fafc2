// SPDX-License-Identifier: Apache-2.0
// What a flood of names costs: memory, time, and what it does to somebody who has a history.
//
//   tool_firewall_soak [SCENARIO ...]      every scenario in a process of its own; all of them by default
//
// Prints one line a scenario, and exits with 1 when a promise is broken: memory at most 256 MiB, the victim's
// baseline the same to the last bit, and its score too when the flood is in other tenants, the p99 of the
// victims' calls at most twice what it is with 20,000 ordinary callers. SOAK_CALLS changes how long a flood
// is (1,000,000).
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/report.h"

namespace tool_firewall {
namespace {

constexpr std::array<unsigned char, 32> kKey{1, 2, 3};
constexpr double kNoCost = std::numeric_limits<double>::quiet_NaN();
constexpr double kStart = 1'772'409'600;  // 2026-03-02, a Monday
constexpr double kMebibyte = 1 << 20;
constexpr double kMostMebibytes = 256;
constexpr double kMostSlower = 2;
constexpr double kMostOfFlood = 20;  // us

double resident() {  // MiB
  std::ifstream in("/proc/self/statm");
  double total = 0, pages = 0;
  in >> total >> pages;
  return pages * static_cast<double>(sysconf(_SC_PAGESIZE)) / kMebibyte;
}

std::string text(const char* prefix, std::size_t i) { return prefix + std::to_string(i); }

struct Person {
  std::string tenant, user, group, session;
};

struct Site {
  Engine engine;
  InstancePolicy policy;
  double now = kStart;
  std::vector<double> times;  // us a call, when `timed`
  bool timed = false;

  Site() : engine(EngineSettings{}, kKey) {}

  static CallerPtr caller(const Person& who) {
    auto made = std::make_shared<Caller>();
    made->tenant = who.tenant;
    made->user = who.user;
    made->group = who.group;
    made->session = who.session;
    return made;
  }

  double call(const CallerPtr& who, const std::string& tool, double step) {
    now += step;
    const auto start = std::chrono::steady_clock::now();
    const Verdict verdict = engine.check(policy, who, "gateway", tool, {}, now);
    if (verdict.ticket != 0) engine.observe(verdict.ticket, Outcome::kOk, kNoCost, now);
    if (timed)
      times.push_back(
          std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
    return verdict.risk;
  }

  double p99() {
    if (times.empty()) return 0;
    const auto at = times.begin() + static_cast<std::ptrdiff_t>(times.size() * 99 / 100);
    std::nth_element(times.begin(), at, times.end());
    const double found = *at;
    times.clear();
    return found;
  }
};

// What a call costs when many people call, so that nothing of them is in the processor's caches: the p99, us.
double busy_p99() {
  Site site;
  std::vector<CallerPtr> people;
  for (std::size_t i = 0; i < 20'000; ++i) people.push_back(Site::caller({"busy", text("u", i), "", "s"}));
  for (std::size_t i = 0; i < 200'000; ++i) {
    site.timed = i >= 100'000;
    site.call(people[i * 7919 % people.size()], text("tool", i % 7), 1);
  }
  return site.p99();
}

// Fourteen days of one person and nine colleagues.
void learn(Site& site, std::vector<CallerPtr>& people) {
  for (int i = 0; i < 10; ++i)
    people.push_back(
        Site::caller({"victims", "person" + std::to_string(i), "", "session" + std::to_string(i)}));
  for (int day = 0; day < 14; ++day) {
    site.now = kStart + day * 86400 + 9 * 3600;
    for (int i = 0; i < 400; ++i)
      site.call(people[static_cast<std::size_t>(i) % 10], "tool" + std::to_string(i / 10 % 7), 30);
  }
}

bool same(const Baseline& a, const Baseline& b) {
  const auto tools = [](const BaselineTool& x, const BaselineTool& y) {
    return x.name == y.name && x.count == y.count && x.share == y.share;
  };
  const auto steps = [](const BaselineStep& x, const BaselineStep& y) {
    return x.from == y.from && x.to == y.to && x.count == y.count;
  };
  return a.calls == b.calls && a.hours == b.hours &&
         std::equal(a.tools.begin(), a.tools.end(), b.tools.begin(), b.tools.end(), tools) &&
         std::equal(a.steps.begin(), a.steps.end(), b.steps.begin(), b.steps.end(), steps);
}

struct Scenario {
  const char* name;
  bool same_tenant;  // as the victim: what colleagues do is then part of the victim's score
  std::function<std::pair<Person, std::string>(std::size_t)> flood;
};

const std::vector<Scenario>& scenarios() {
  static const std::vector<Scenario> all = {
      {"users, victim's tenant", true,
       [](std::size_t i) {
         return std::pair{Person{"victims", text("u", i), "", "s"}, text("tool", i % 7)};
       }},
      {"users, one tenant", false,
       [](std::size_t i) {
         return std::pair{Person{"flood", text("u", i), "", "s"}, text("tool", i % 7)};
       }},
      {"users, 1000 tenants", false,
       [](std::size_t i) {
         return std::pair{Person{text("flood", i % 1000), text("u", i), "", "s"}, text("tool", i % 7)};
       }},
      {"tenants", false,
       [](std::size_t i) {
         return std::pair{Person{text("flood", i), "u", "", "s"}, text("tool", i % 7)};
       }},
      {"groups", false,
       [](std::size_t i) {
         return std::pair{Person{text("flood", i / 5000), text("u", i % 100), text("g", i), "s"},
                          text("tool", i % 7)};
       }},
      {"tools, one user", false,
       [](std::size_t i) {
         return std::pair{Person{"flood", "u", "", "s"}, text("t", i)};
       }},
      {"tools, 1000 users", false,
       [](std::size_t i) {
         return std::pair{Person{"flood", text("u", i % 1000), "", "s"}, text("t", i)};
       }},
      {"tools, 100 groups", false,
       [](std::size_t i) {
         return std::pair{Person{"flood", text("u", i % 1000), text("g", i % 100), "s"},
                          text("t", i % 60'000)};
       }},
      {"sessions", false,
       [](std::size_t i) {
         return std::pair{Person{"flood", "u", "", text("s", i)}, text("tool", i % 7)};
       }},
      {"established users, one tenant", false,
       [](std::size_t i) {
         return std::pair{Person{"flood", text("u", i / 9), "", "s"}, text("tool", i % 7)};
       }},
      {"established users, 1000 tenants", false,
       [](std::size_t i) {
         return std::pair{Person{text("flood", i / 9 % 1000), text("u", i / 9), "", "s"},
                          text("tool", i % 7)};
       }},
  };
  return all;
}

bool run(const Scenario& scenario, std::size_t calls) {
  const double busy = busy_p99();
  Site flooded, quiet;
  std::vector<CallerPtr> people, twins;
  learn(flooded, people);
  learn(quiet, twins);
  // Tools that are known, if not to the victim: the names of tools are shared by all tenants.
  for (Site* site : {&flooded, &quiet}) {
    const CallerPtr somebody = Site::caller({"elsewhere", "somebody", "", "s"});
    for (std::size_t i = 0; i < 2000; i += 50) site->call(somebody, text("strange", i), 1);
  }
  flooded.times.reserve(calls);
  flooded.times.resize(calls);  // touched, so that it counts before
  flooded.times.clear();
  malloc_trim(0);
  const double held = resident();
  flooded.timed = true;
  for (std::size_t i = 0; i < 20'000; ++i) {
    flooded.call(people[i % 10], text("tool", i / 10 % 7), 1);
    quiet.call(twins[i % 10], text("tool", i / 10 % 7), 1);
  }
  const double idle = flooded.p99();
  std::vector<double> theirs;  // the victims' calls in the flood, us
  double furthest = 0;
  const auto both = [&](std::size_t i, const std::string& tool) {
    quiet.now = flooded.now;
    const double risk = flooded.call(people[i % 10], tool, 1);
    furthest = std::max(furthest, std::abs(risk - quiet.call(twins[i % 10], tool, 1)));
  };
  for (std::size_t i = 0; i < calls; ++i) {
    const auto [who, tool] = scenario.flood(i);
    flooded.call(Site::caller(who), tool, .001);
    if (i % 50 != 0) continue;
    both(i / 50, text("tool", i / 500 % 7));
    theirs.push_back(flooded.times.back());
    flooded.times.pop_back();
  }
  const double flood = flooded.p99();
  flooded.times = std::move(theirs);
  const double people_p99 = flooded.p99();
  const double grown = resident() - held;
  for (std::size_t i = 0; i < 2000; ++i) both(i, i % 50 == 0 ? text("strange", i) : text("tool", i / 10 % 7));
  const bool baseline = same(*baseline_of(flooded.engine, "victims", "person0"),
                             *baseline_of(quiet.engine, "victims", "person0"));
  const bool ok = grown <= kMostMebibytes && baseline && (scenario.same_tenant || furthest == 0) &&
                  people_p99 <= (scenario.same_tenant ? kMostOfFlood : kMostSlower * busy) &&
                  flood <= kMostOfFlood;
  const Principals& kept = flooded.engine.model().principals();
  std::printf(
      "%-32s %6.1f MiB (%.1f counted, %zu users), baseline %s, score off by %.2g, p99 %.1f us quiet, "
      "%.1f busy, %.1f in the flood; the flood itself %.1f: %s\n",
      scenario.name, grown, static_cast<double>(kept.bytes()) / kMebibyte, kept.size(),
      baseline ? "same" : "CHANGED", furthest, idle, busy, people_p99, flood, ok ? "ok" : "BROKEN");
  return ok;
}

// In a process of its own, because freed memory need not go back to the system.
bool run_apart(const Scenario& scenario, std::size_t calls) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    const bool ok = run(scenario, calls);
    std::fflush(stdout);
    _exit(ok ? 0 : 1);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) return false;
  if (!WIFEXITED(status)) std::printf("%-32s died\n", scenario.name);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace
}  // namespace tool_firewall

int main(int count, char** arguments) {
  using namespace tool_firewall;
  const char* wanted = std::getenv("SOAK_CALLS");
  const std::size_t calls = wanted == nullptr ? 1'000'000 : std::strtoull(wanted, nullptr, 10);
  bool ok = true;
  for (const Scenario& scenario : scenarios()) {
    const bool asked = count < 2 || std::any_of(arguments + 1, arguments + count, [&](const char* name) {
                         return std::string_view(name) == scenario.name;
                       });
    if (asked) ok &= run_apart(scenario, calls);
  }
  return ok ? 0 : 1;
}
