// SPDX-License-Identifier: Apache-2.0
#include "engine/modes.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "lab.h"

namespace tool_firewall {
namespace {

void set(Modes& modes, const Scope& scope, Mode mode) { modes.set({scope, mode, kMonday, "root", "test"}); }

TEST(Modes, TheMostSpecificScopeWins) {
  const Scope most_general_first[] = {
      {"", "", ""},      {"acme", "", ""},      {"", "query", ""},      {"acme", "query", ""},
      {"", "", "alice"}, {"acme", "", "alice"}, {"", "query", "alice"}, {"acme", "query", "alice"}};
  Modes modes;
  EXPECT_EQ(modes.in_force("acme", "query", "alice"), nullptr);
  for (const Scope& scope : most_general_first) {
    set(modes, scope, Mode::kWarn);
    const ModeRecord* record = modes.in_force("acme", "query", "alice");
    ASSERT_NE(record, nullptr);
    EXPECT_EQ(record->scope.tenant, scope.tenant);
    EXPECT_EQ(record->scope.tool, scope.tool);
    EXPECT_EQ(record->scope.user, scope.user);
  }
  const std::vector<ModeRecord> all = modes.all();
  ASSERT_EQ(all.size(), 8U);
  for (std::size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i].scope.tenant, most_general_first[i].tenant) << i;
    EXPECT_EQ(all[i].scope.tool, most_general_first[i].tool) << i;
    EXPECT_EQ(all[i].scope.user, most_general_first[i].user) << i;
  }
  for (std::size_t i = 8; i-- > 1;) {
    modes.clear(most_general_first[i]);
    EXPECT_EQ(modes.in_force("acme", "query", "alice")->scope.user, most_general_first[i - 1].user) << i;
    EXPECT_EQ(modes.in_force("acme", "query", "alice")->scope.tool, most_general_first[i - 1].tool) << i;
  }
}

TEST(Modes, AScopeNamesAllItNames) {
  Modes modes;
  set(modes, {"acme", "query", ""}, Mode::kBlock);
  EXPECT_NE(modes.in_force("acme", "query", "anybody"), nullptr);
  EXPECT_EQ(modes.in_force("acme", "export", "anybody"), nullptr);
  EXPECT_EQ(modes.in_force("other", "query", "anybody"), nullptr);
  EXPECT_EQ(modes.in_force("", "query", "anybody"), nullptr);
}

TEST(Modes, SetReplacesAndClearOfNothingIsNothing) {
  Modes modes;
  set(modes, {"", "query", ""}, Mode::kBlock);
  set(modes, {"", "query", ""}, Mode::kShadow);
  EXPECT_EQ(modes.in_force("t", "query", "u")->mode, Mode::kShadow);
  modes.clear({"", "export", ""});
  modes.clear({"query", "", ""});
  EXPECT_EQ(modes.all().size(), 1U);
  modes.clear({"", "query", ""});
  EXPECT_TRUE(modes.all().empty());
}

TEST(Modes, OddNamesDoNotRunIntoEachOther) {
  struct Row {
    Scope set;
    std::string tenant, tool, user;
  };
  const Row rows[] = {{{"a", "b", "c"}, "a", "b1:c", ""},
                      {{"1:a", "1:b", ""}, "1:a1:b", "", "x"},
                      {{"a1:b", "c", ""}, "a", "1:b1:c", "x"},
                      {{"", "2:ab", ""}, "t", "ab", "x"},
                      {{"12", "3", ""}, "1", "23", "x"},
                      {{"a:b", "c", ""}, "a", "b:c", "x"},
                      {{std::string("a\0b", 3), "", ""}, "a", "", "b"}};
  for (const Row& row : rows) {
    Modes modes;
    set(modes, row.set, Mode::kBlock);
    EXPECT_EQ(modes.in_force(row.tenant, row.tool, row.user), nullptr) << row.tenant << '|' << row.tool;
    EXPECT_NE(modes.in_force(row.set.tenant, row.set.tool.empty() ? "any" : row.set.tool,
                             row.set.user.empty() ? "any" : row.set.user),
              nullptr);
  }
}

struct EngineModes : testing::Test {
  Mode now_in_force(double now = kMonday, const std::string& tool = "query") {
    return lab.engine.mode_in_force(lab.policy, "acme", tool, "alice", now);
  }
  bool control(const std::string& value, const std::string& tool = "", const std::string& action = "mode") {
    return feed(lab.engine,
                encode(ControlRecord{{99, ++seq, kMonday}, action, "", tool, "", value, "root", "why"}));
  }
  Lab lab;
  std::uint64_t seq = 0;
};

TEST_F(EngineModes, ControlRecordsBeatTheInstance) {
  EXPECT_EQ(now_in_force(), Mode::kLearning);
  lab.policy.mode = Mode::kShadow;
  EXPECT_EQ(now_in_force(), Mode::kShadow);
  EXPECT_TRUE(control("block"));
  EXPECT_EQ(now_in_force(), Mode::kBlock);
  EXPECT_TRUE(control("learning", "query"));
  EXPECT_EQ(now_in_force(), Mode::kLearning);
  EXPECT_EQ(now_in_force(kMonday, "export"), Mode::kBlock);
  EXPECT_TRUE(control("", "query"));
  EXPECT_TRUE(control(""));
  EXPECT_EQ(now_in_force(), Mode::kShadow);
}

TEST_F(EngineModes, KeepsWhoSetItAndWhen) {
  control("block");
  const std::vector<ModeRecord> all = lab.engine.modes().all();
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all[0].by, "root");
  EXPECT_EQ(all[0].why, "why");
  EXPECT_EQ(all[0].since, kMonday);
}

TEST_F(EngineModes, UnknownValuesAreCountedAndUnknownActionsAreNotOurs) {
  EXPECT_FALSE(control("strict"));
  EXPECT_EQ(lab.engine.counts().unreadable, 1U);
  EXPECT_TRUE(control("anything", "", "suppress"));
  EXPECT_EQ(lab.engine.counts().unreadable, 1U);
  EXPECT_TRUE(lab.engine.modes().all().empty());
}

TEST_F(EngineModes, LearningDaysTurnLearningIntoWarn) {
  EngineSettings settings;
  settings.learning_days = 7;
  Lab week(settings);
  const auto in_force = [&](double now) {
    return week.engine.mode_in_force(week.policy, "acme", "query", "alice", now);
  };
  EXPECT_EQ(in_force(kMonday + 100 * kDay), Mode::kLearning) << "nothing was seen yet";
  week.run({}, "query", kMonday);
  EXPECT_EQ(in_force(kMonday + 7 * kDay - 1), Mode::kLearning);
  EXPECT_EQ(in_force(kMonday + 7 * kDay), Mode::kWarn);
  week.policy.mode = Mode::kShadow;
  EXPECT_EQ(in_force(kMonday + 7 * kDay), Mode::kShadow) << "only learning moves by itself";
  week.policy.mode = Mode::kLearning;
  feed(week.engine, encode(ControlRecord{{99, 1, kMonday}, "mode", "", "", "", "learning", "root", ""}));
  EXPECT_EQ(in_force(kMonday + 8 * kDay), Mode::kLearning) << "an operator who says learning means it";
}

}  // namespace
}  // namespace tool_firewall
