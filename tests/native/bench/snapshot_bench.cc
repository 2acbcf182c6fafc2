// SPDX-License-Identifier: Apache-2.0
// How long a start takes: restoring, and taking, a snapshot of an engine that has learned for weeks. 5,000
// users of 20 groups with 200 tools, one million calls; TOOL_FIREWALL_BENCH_CALLS asks for another number.
#include <benchmark/benchmark.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "journal/snapshot.h"

namespace tool_firewall {
namespace {

constexpr std::array<unsigned char, 32> kKey{1, 2, 3};
constexpr double kNoCost = std::numeric_limits<double>::quiet_NaN();
constexpr double kStart = 1'772'409'600;  // 2026-03-02, a Monday
constexpr std::size_t kUsers = 5000;
constexpr std::size_t kGroups = 20;
constexpr std::size_t kTools = 200;

// Without a bound of memory, or much of what was learned would not be in the snapshot.
EngineSettings settings() {
  EngineSettings settings;
  settings.model.memory = std::size_t{4} << 30;
  return settings;
}

// Shares of 1 / (rank + flat): who calls, and what is called. The larger `flat`, the less the first ones
// stand out.
std::discrete_distribution<std::size_t> zipf(std::size_t size, double flat) {
  std::vector<double> shares;
  for (std::size_t rank = 1; rank <= size; ++rank) shares.push_back(1 / (static_cast<double>(rank) + flat));
  return {shares.begin(), shares.end()};
}

// 300 sessions at a time, of a dozen calls each, over 60 days. Each group has its own favourites among the
// tools.
std::unique_ptr<Engine> learned(std::uint64_t calls) {
  auto engine = std::make_unique<Engine>(settings(), kKey);
  std::vector<CallerPtr> callers;
  for (std::size_t i = 0; i < kUsers; ++i) {
    auto caller = std::make_shared<Caller>();
    caller->tenant = "team" + std::to_string(i % 4);
    caller->user = "user" + std::to_string(i) + "@example.com";
    caller->group = "role" + std::to_string(i % kGroups);
    callers.push_back(std::move(caller));
  }
  std::vector<std::string> tools;
  for (std::size_t i = 0; i < kTools; ++i) tools.push_back("tool_number_" + std::to_string(i));
  std::mt19937_64 random(7);
  auto who = zipf(kUsers, 100);
  auto what = zipf(kTools, 0);
  const double step = 60 * 86400. / static_cast<double>(calls);
  const InstancePolicy policy;
  struct Open {
    std::size_t user = 0;
    int left = 0;
  };
  std::array<Open, 300> sessions;
  double now = kStart;
  for (std::uint64_t call = 0; call < calls; ++call) {
    Open& session = sessions[random() % sessions.size()];
    if (session.left-- == 0) session = {who(random), 11};
    const std::string& tool = tools[(what(random) + session.user % kGroups * 7) % kTools];
    now += step;
    const Verdict verdict = engine->check(policy, callers[session.user], "gateway", tool, {}, now);
    engine->observe(verdict.ticket, Outcome::kOk, kNoCost, now);
  }
  return engine;
}

const Engine& teacher() {
  static const char* wanted = std::getenv("TOOL_FIREWALL_BENCH_CALLS");
  static const auto engine = learned(wanted == nullptr ? 1'000'000 : std::strtoull(wanted, nullptr, 10));
  return *engine;
}

void take(benchmark::State& state) {
  teacher();  // not to be timed
  std::size_t bytes = 0;
  while (state.KeepRunning()) {
    const std::string snapshot = take_snapshot(teacher(), "bench");
    bytes = snapshot.size();
    benchmark::DoNotOptimize(snapshot.data());
  }
  state.counters["MB"] = static_cast<double>(bytes) / 1e6;
  state.counters["calls"] = static_cast<double>(teacher().calls());
}
BENCHMARK(take)->Name("take_snapshot")->Iterations(3)->Unit(benchmark::kMillisecond);

void restore(benchmark::State& state) {
  const std::string snapshot = take_snapshot(teacher(), "bench");
  while (state.KeepRunning()) {
    auto engine = std::make_unique<Engine>(settings(), kKey);
    restore_snapshot(*engine, snapshot);
    state.PauseTiming();
    engine.reset();
    state.ResumeTiming();
  }
  state.counters["MB"] = static_cast<double>(snapshot.size()) / 1e6;
}
BENCHMARK(restore)->Name("restore_snapshot")->Iterations(3)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace tool_firewall
