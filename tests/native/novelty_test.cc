// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>

#include "lab.h"

namespace tool_firewall {
namespace {

class NoveltyTest : public testing::Test {
 protected:
  // Learns a step the way the model does, `times` times.
  void learn(const std::string& tool, int times, const Tool* previous = nullptr) {
    for (int i = 0; i < times; ++i) {
      bench.session.previous = previous;
      const Sight sight = bench.sight(kMonday, tool);
      Ran ran;
      ran.now = kMonday;
      ran.levels = bench.levels;
      for (std::size_t k = 0; k < 2; ++k)
        ran.learned.of[static_cast<std::size_t>(sight.usage.items[k].kind)] =
            learn_item(sight.usage.items[k], bench.levels, 1);
      bench.signal->learn(ran);
    }
    bench.session.previous = nullptr;
  }
  double score(const std::string& tool) { return bench.measure(bench.sight(kMonday, tool))[0]; }

  SignalBench bench{make_novelty, {.new_for = 48 * kHour}};
};

TEST_F(NoveltyTest, WhatTheUserDidBeforeIsNotNew) {
  learn("query", 1);
  EXPECT_EQ(score("query"), 0);
}

TEST_F(NoveltyTest, GrowsWithTheEvidence) {
  // A user of n calls, the first of them new. The group learns from the sixth call on (the user is known by
  // then) that nothing new comes: its rate is 1 / (4 + n - 5); what is new to it is new to all with the prior
  // 1/2 each.
  struct Row {
    int calls;
    double group_rate;
  };
  int done = 0;
  for (const Row& row : {Row{1, 1. / 4}, Row{5, 1. / 4}, Row{6, 1. / 5}, Row{50, 1. / 49}}) {
    learn("query", row.calls - done);
    done = row.calls;
    const double expected = -std::log((1 + 4 * row.group_rate + 1) / (row.calls + 5)) - 2 * std::log(.5);
    EXPECT_NEAR(score("remove"), expected, 1e-9) << row.calls;
  }
}

TEST_F(NoveltyTest, WhatPeersDoIsLessNew) {
  learn("query", 20);
  Principal peer{"acme", "bob", 4096};
  Peers other_group{"writers", 0, 4096};
  const Sight at_peer = bench.sight(kMonday, "peer_tool");
  learn_item(at_peer.usage.step(), {&peer, &bench.group, &bench.tenant}, 1);
  const Sight at_tenant = bench.sight(kMonday, "tenant_tool");
  learn_item(at_tenant.usage.step(), {&peer, &other_group, &bench.tenant}, 1);
  const double known_to_group = score("peer_tool");
  const double known_to_tenant = score("tenant_tool");
  const double known_to_none = score("any_tool");
  EXPECT_NEAR(known_to_tenant - known_to_group, std::log(2.), 1e-9);
  EXPECT_NEAR(known_to_none - known_to_tenant, std::log(2.), 1e-9);
  EXPECT_GT(known_to_group, 0);
}

TEST(Novelty, SomebodyWhoDoesSomethingNewEveryDayIsLessSurprising) {
  Lab steady, curious;
  const Who alice;
  for (int i = 0; i < 40; ++i) {
    steady.run(alice, "query", kMonday + i * kHour);
    curious.run(alice, "tool" + std::to_string(i), kMonday + i * kHour);
  }
  EXPECT_EQ(steady.fact(alice, "recent_new", kMonday), 1);
  EXPECT_GT(curious.fact(alice, "recent_new", kMonday), 20);
  const Verdict in_steady = steady.check(alice, "remove", kMonday + 41 * kHour);
  const Verdict in_curious = curious.check(alice, "remove", kMonday + 41 * kHour);
  EXPECT_LT(in_curious.risk, in_steady.risk / 2);
}

TEST_F(NoveltyTest, AHeldItemInsistsUntilItsTimeIsUp) {
  learn("query", 20);
  const Sight sight = bench.sight(kMonday, "remove");
  bench.user.held.push_back({.cell = sight.usage.tool().cell,
                             .since = kMonday,
                             .risk = .62,
                             .tool = sight.tool,
                             .from = nullptr,
                             .kind = ItemKind::kTool});
  struct Row {
    const char* name;
    double now, floor;
    const char* tool;
  };
  const Row rows[] = {{"at once", kMonday, .62, "remove"},
                      {"just before", kMonday + 48 * kHour - 1, .62, "remove"},
                      {"after", kMonday + 48 * kHour, 0, "remove"},
                      {"another tool", kMonday + 1, 0, "query"}};
  for (const Row& row : rows) {
    bench.measure(bench.sight(row.now, row.tool));
    EXPECT_EQ(bench.signal->floor(), row.floor) << row.name;
  }
  bench.user.held.front().cell = sight.usage.step().cell;
  bench.measure(bench.sight(kMonday + kHour, "remove"));
  EXPECT_EQ(bench.signal->floor(), .62) << "a held step insists like a held tool";
}

TEST_F(NoveltyTest, SaysHowFarNewsReaches) {
  learn("query", 20);
  const Names names{.user = "alice", .tool = "remove", .previous = "query", .destination = ""};
  const auto said = [&](const std::string& tool) {
    const Sight sight = bench.sight(kMonday, tool);
    bench.measure(sight);
    return bench.signal->explain(bench.signal->numbers(sight), names);
  };
  EXPECT_EQ(said("remove"),
            "the tool remove is new to this user, the peer group and the tenant; 1 of the user's last 20 "
            "calls brought "
            "something new");
  Principal peer{"acme", "bob", 4096};
  learn_item(bench.sight(kMonday, "export").usage.tool(), {&peer, &bench.group, &bench.tenant}, 1);
  EXPECT_NE(said("export").find("the tool remove is new to this user;"), std::string::npos) << said("export");
}

}  // namespace
}  // namespace tool_firewall
