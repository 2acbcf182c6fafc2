// SPDX-License-Identifier: Apache-2.0
// What one call costs inside the engine: check + observe, without Python. `make bench` prints it.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <random>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace tool_firewall {
namespace {

constexpr std::array<unsigned char, 32> kKey{1, 2, 3};
constexpr double kStart = 1'772'409'600;  // 2026-03-02, a Monday
constexpr int kTools = 20;

struct Traffic {
  Engine engine;
  std::vector<CallerPtr> callers;
  std::vector<std::string> tools;
  struct Event {
    const CallerPtr* caller;
    const std::string* tool;
    std::vector<std::string> values;  // of its arguments
    double cost;
  };
  std::vector<std::string> keys;
  std::vector<Event> events;  // made beforehand, so that only the engine is timed
  std::size_t next = 0;
  double now = kStart;
  InstancePolicy policy;

  Traffic(int users, bool journaling, int leaves) : engine(settings(journaling), kKey) {
    for (int i = 0; i < users; ++i) {
      auto caller = std::make_shared<Caller>();
      caller->tenant = "team";
      caller->user = "user" + std::to_string(i) + "@example.com";
      caller->group = "role" + std::to_string(i % 10);
      caller->session = "session" + std::to_string(i);
      callers.push_back(std::move(caller));
    }
    for (int i = 0; i < kTools; ++i) tools.push_back("tool_number_" + std::to_string(i));
    std::mt19937 random{7};
    events.resize(1U << 17);
    for (Event& event : events) {
      event.caller = &callers[random() % callers.size()];
      // Everybody has six tools of their own out of twenty, as people do.
      const std::size_t own = std::hash<std::string>{}((*event.caller)->user) % kTools;
      event.tool = &tools[(own + random() % 6) % kTools];
      event.cost = .001 * static_cast<double>(1 + random() % 9);
      // An address out of twenty of the user's, a value out of five, an id that is always new, a path.
      for (int leaf = 0; leaf < leaves; ++leaf) {
        const auto number = [&](std::size_t most) { return std::to_string(random() % most); };
        event.values.push_back(leaf % 4 == 0   ? "someone" + number(20) + "@example.com"
                               : leaf % 4 == 1 ? "choice " + number(5)
                               : leaf % 4 == 2 ? "id " + number(1U << 30)
                                               : "/srv/data/" + number(8) + "/report.pdf");
      }
    }
    for (int leaf = 0; leaf < leaves; ++leaf) keys.push_back("argument" + std::to_string(leaf));
    for (int i = 0; i < users * 40; ++i) call();
    engine.drain(engine.queued());
  }

  static EngineSettings settings(bool journaling) {
    EngineSettings settings;
    settings.worker = 1;
    settings.journaling = journaling;
    return settings;
  }

  void call() {
    now += 1.7;
    const Event& event = events[next++ % events.size()];
    Arguments arguments;
    if (!keys.empty()) {
      ArgumentReader reader(engine.hasher(), arguments.facts, arguments.destinations);
      for (std::size_t i = 0; i < keys.size(); ++i) reader.text(reader.member({}, keys[i]), event.values[i]);
      reader.structure({}, 'o');
      arguments.digest = reader.result();
    }
    const Verdict verdict = engine.check(policy, *event.caller, "gateway", *event.tool, arguments, now);
    benchmark::DoNotOptimize(verdict.risk);
    engine.observe(verdict.ticket, Outcome::kOk, event.cost, now);
  }
};

// Mean over batches, as google-benchmark measures.
void check_and_observe(benchmark::State& state) {
  Traffic traffic(static_cast<int>(state.range(0)), false, static_cast<int>(state.range(1)));
  for (auto _ : state) traffic.call();
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(check_and_observe)
    ->ArgNames({"users", "leaves"})
    ->Args({1, 4})
    ->Args({500, 0})
    ->Args({500, 4})
    ->Args({500, 16})
    ->Args({20'000, 4});

// Percentiles of single calls; one clock read (about 25 ns) is inside each.
void percentiles(benchmark::State& state) {
  Traffic traffic(static_cast<int>(state.range(0)), state.range(1) != 0, static_cast<int>(state.range(2)));
  std::vector<double> times;
  for (auto _ : state) {
    const auto start = std::chrono::steady_clock::now();
    traffic.call();
    times.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
    if (traffic.engine.queued() >= 1000)
      traffic.engine.drain(1000);  // the journal thread's work, not the call's
  }
  std::sort(times.begin(), times.end());
  const auto at = [&](double q) {
    return times[static_cast<std::size_t>(q * static_cast<double>(times.size() - 1))];
  };
  state.counters["p50_us"] = at(.5);
  state.counters["p99_us"] = at(.99);
  state.counters["p999_us"] = at(.999);
  const Principals& all = traffic.engine.model().principals();
  state.counters["bytes_a_user"] = static_cast<double>(all.bytes()) / static_cast<double>(all.size());
}
BENCHMARK(percentiles)
    ->ArgNames({"users", "journal", "leaves"})
    ->Args({1, 0, 4})
    ->Args({500, 0, 0})
    ->Args({500, 0, 4})
    ->Args({500, 0, 16})
    ->Args({500, 1, 4})
    ->Iterations(500'000);

}  // namespace
}  // namespace tool_firewall

BENCHMARK_MAIN();
