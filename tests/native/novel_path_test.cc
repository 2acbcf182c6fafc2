// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>

#include "lab.h"

namespace tool_firewall {
namespace {

class NovelPathTest : public testing::Test {
 protected:
  void learn(const std::string& tool, int times) {
    for (int i = 0; i < times; ++i) {
      const Sight sight = bench.sight(kMonday, tool);
      for (std::size_t k = 0; k < sight.usage.count; ++k) learn_item(sight.usage.items[k], bench.levels, 1);
    }
  }
  void come_from(const std::string& previous) {
    bench.session.previous = bench.tool(previous);
    bench.session.earlier = {bench.session.previous};
    bench.session.earlier_count = 1;
  }
  SignalBench bench{make_novel_path};
};

TEST_F(NovelPathTest, IsTheWittenBellChainByHand) {
  learn("query", 8);  // as the first call of a session: 8 of 8, one type
  // Tool and step rows are alike here: every level counts 8 of 8 with one type.
  const auto chain = [](double count, double base) {
    double p = base;
    for (int level = 0; level < 3; ++level) p = (count + p) / 9;
    return p;
  };
  const double known_tool = (8 + (8 + 8. / 9) / 9) / 9;
  const double new_tool = 1. / 9 / 9 / 9;
  std::vector<double> raw = bench.measure(bench.sight(kMonday, "query"));
  EXPECT_NEAR(raw[0], -std::log(chain(8, known_tool)), 1e-9);
  EXPECT_EQ(raw[1], 0) << "no earlier tools, no skips";
  EXPECT_NEAR(raw[2], raw[0] + raw[1], 1e-12);
  raw = bench.measure(bench.sight(kMonday, "remove"));
  EXPECT_NEAR(raw[0], -std::log(chain(0, new_tool)), 1e-9);
}

TEST_F(NovelPathTest, AKnownStepIsMoreProbableThanAKnownToolInANewPlace) {
  learn("login", 10);
  come_from("login");
  learn("query", 10);
  const std::vector<double> known = bench.measure(bench.sight(kMonday, "query"));
  come_from("query");
  const std::vector<double> elsewhere = bench.measure(bench.sight(kMonday, "query"));
  const std::vector<double> unknown = bench.measure(bench.sight(kMonday, "remove"));
  EXPECT_LT(known[0], elsewhere[0]);
  EXPECT_LT(known[1], elsewhere[1]);
  EXPECT_LT(elsewhere[0], unknown[0]);
  EXPECT_NEAR(unknown[2], unknown[0] + unknown[1], 1e-9);
}

TEST_F(NovelPathTest, SkipsAreTheMeanOverTheEarlierTools) {
  learn("login", 4);
  come_from("login");
  learn("query", 4);
  bench.session.earlier = {bench.tool("login"), bench.tool("other")};
  bench.session.earlier_count = 2;
  const Sight sight = bench.sight(kMonday, "query");
  const double tool = witten_bell(sight.usage.tool(), 1, 0);
  const double skip = (-std::log(witten_bell(sight.usage.skips()[0], 1, tool)) -
                       std::log(witten_bell(sight.usage.skips()[1], 1, tool))) /
                      2;
  EXPECT_NEAR(bench.measure(sight)[1], skip, 1e-9);
  EXPECT_NEAR(witten_bell(sight.usage.skips()[1], 1, tool), tool, 1e-12)
      << "a row nobody has used backs off to the tool";
}

TEST_F(NovelPathTest, Explains) {
  learn("login", 4);
  come_from("login");
  learn("query", 3);
  learn("export", 1);
  const Sight sight = bench.sight(kMonday, "export");
  bench.measure(sight);
  const std::string text =
      bench.signal->explain(bench.signal->numbers(sight),
                            {.user = "alice", .tool = "export", .previous = "login", .destination = ""});
  EXPECT_EQ(text.find("export after login was expected with "), 0U) << text;
  EXPECT_NE(text.find("the user did it 1 of 4 times"), std::string::npos) << text;
  const std::string first =
      bench.signal->explain({}, {.user = "alice", .tool = "export", .previous = "", .destination = ""});
  EXPECT_EQ(first.find("export as the first call of a session was expected"), 0U) << first;
}

}  // namespace
}  // namespace tool_firewall
