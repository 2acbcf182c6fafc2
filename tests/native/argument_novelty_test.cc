// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>

#include "lab.h"

namespace tool_firewall {
namespace {

const double kHalf = std::log(2.);  // of what is new to a user, half is new to the group: nothing is known

class ArgumentNoveltyTest : public testing::Test {
 protected:
  Sight sight(const Texts& texts, const std::string& tool = "send_mail") {
    Sight sight = bench.sight(kMonday, tool);
    const Arguments arguments = arguments_of(bench.hasher, texts);
    sight.arguments.set(bench.hasher, *sight.tool, {arguments.facts.begin(), arguments.facts.size()});
    return sight;
  }
  // Identity and egress.
  std::vector<double> raw(const Texts& texts, const std::string& tool = "send_mail") {
    return bench.measure(sight(texts, tool));
  }
  void learn(const Texts& texts, int times = 1, const std::string& tool = "send_mail",
             std::uint32_t held = 0) {
    const Sight here = sight(texts, tool);
    Ran ran = SignalBench::ran(here);
    ran.held = held;
    for (int i = 0; i < times; ++i) bench.signal->learn(ran);
  }
  SignalBench bench{make_argument_novelty, {.new_for = 48 * kHour}};
};

TEST_F(ArgumentNoveltyTest, TheFirstOfAllByHand) {
  // n = 0, w = 0, r = 1/2: -ln((0 + 4/2 + 1) / 5), and half of it new to the group, half of that to the
  // tenant.
  const double value = -std::log(3. / 5);
  EXPECT_NEAR(raw({{"q", "abc"}})[1], value + kHalf, 1e-9) << "what means something at its place only";
  EXPECT_EQ(raw({{"q", "abc"}})[0], 0) << "is no identity";
  const double identity = value + 2 * kHalf;
  const std::vector<double> host = raw({{"url", "https://a.example"}});
  EXPECT_NEAR(host[0], identity, 1e-9);
  EXPECT_NEAR(host[1], identity, 1e-9);
  const std::vector<double> address = raw({{"to", "bob@example.com"}});
  EXPECT_NEAR(address[0], 1.3 * identity, 1e-9) << "the address and .3 of its domain";
  EXPECT_NEAR(address[1], 1.3 * identity, 1e-9);
}

TEST_F(ArgumentNoveltyTest, WhatTheUserGaveBeforeIsNotNew) {
  learn({{"to", "bob@example.com"}});
  EXPECT_EQ(raw({{"to", "bob@example.com"}})[0], 0);
  EXPECT_EQ(raw({{"to", "BOB@example.com"}})[1], 0);
}

TEST_F(ArgumentNoveltyTest, GrowsWithTheEvidence) {
  int done = 0;
  for (const int calls : {1, 5, 6, 30, 60, 200}) {
    learn({{"url", "https://a.example"}}, calls - done);
    done = calls;
    // The group learns from the user's sixth value on; beyond 60 the user's window is full and w fades.
    const double group = 1. / (2 + std::max(0, calls - 5));
    const double n = std::min(60, calls);
    const double w = calls <= 60 ? 1 : std::pow(60. / 61, calls - 60);
    EXPECT_NEAR(raw({{"url", "https://b.example"}})[0], -std::log((w + 4 * group + 1) / (n + 5)) + 2 * kHalf,
                1e-4)
        << calls;
  }
}

TEST_F(ArgumentNoveltyTest, AnArgumentThatAlwaysBringsSomethingNewSaysNothing) {
  for (int i = 0; i < 100; ++i) learn({{"id", "order-" + std::to_string(i)}});
  EXPECT_EQ(raw({{"id", "order-new"}})[1], 0);
  for (int i = 0; i < 100; ++i) learn({{"url", "https://h" + std::to_string(i) + ".example"}});
  EXPECT_EQ(raw({{"url", "https://other.example"}})[0], 0);
}

TEST_F(ArgumentNoveltyTest, EachPlaceLearnsForItself) {
  for (int i = 0; i < 60; ++i) learn({{"id", "order-" + std::to_string(i)}, {"folder", "inbox"}});
  EXPECT_LT(raw({{"id", "order-new"}, {"folder", "inbox"}})[1], .1);
  EXPECT_GT(raw({{"id", "order-1"}, {"folder", "outbox"}})[1], 3);
  EXPECT_GT(raw({{"id", "order-1"}, {"other", "inbox"}})[1], .5) << "known at another place is not known";
}

TEST_F(ArgumentNoveltyTest, ADomainThatIsKnownMakesTheAddressHalfAsNew) {
  learn({{"to", "bob@example.com"}}, 20);
  const double colleague = raw({{"to", "carol@example.com"}})[0];
  const double stranger = raw({{"to", "eve@evil.example"}})[0];
  EXPECT_NEAR(stranger, 1.3 * colleague, .5);
  EXPECT_GT(colleague, 2);
}

TEST_F(ArgumentNoveltyTest, WhatPeersGaveIsLessNew) {
  learn({{"url", "https://a.example"}}, 20);
  Principal peer{"acme", "bob", SignalBench::kState};
  Peers other_group{"writers", SignalBench::kState / 512, SignalBench::kState};
  const auto learned_by = [&](const Levels& levels, const char* url) {
    const Sight here = sight({{"url", url}});
    Ran ran = SignalBench::ran(here);
    ran.levels = levels;
    bench.signal->learn(ran);
  };
  learned_by({&peer, &bench.group, &bench.tenant}, "https://of-the-group.example");
  learned_by({&peer, &other_group, &bench.tenant}, "https://of-the-tenant.example");
  const double group = raw({{"url", "https://of-the-group.example"}})[0];
  const double tenant = raw({{"url", "https://of-the-tenant.example"}})[0];
  const double nobody = raw({{"url", "https://of-nobody.example"}})[0];
  EXPECT_GT(group, 1);
  EXPECT_NEAR(tenant - group, kHalf, 1e-9);
  EXPECT_NEAR(nobody - tenant, kHalf, 1e-9);
}

TEST_F(ArgumentNoveltyTest, EgressIsForToolsThatSend) {
  EXPECT_GT(raw({{"url", "https://a.example"}}, "send_mail")[1], 0);
  EXPECT_EQ(raw({{"url", "https://a.example"}}, "list_mail")[1], 0);
  EXPECT_GT(raw({{"url", "https://a.example"}}, "list_mail")[0], 0) << "an identity all the same";
}

TEST_F(ArgumentNoveltyTest, OneThingSaidTwiceCountsOnce) {
  SignalBench other(make_argument_novelty);
  const auto learn_list = [](SignalBench& one, std::size_t copies) {
    Arguments arguments;
    ArgumentReader reader(one.hasher, arguments.facts, arguments.destinations);
    for (std::size_t i = 0; i < copies; ++i) reader.text(reader.element(reader.member({}, "to"), i), "x");
    Sight here = one.sight(kMonday, "send_mail");
    here.arguments.set(one.hasher, *here.tool, {arguments.facts.begin(), arguments.facts.size()});
    one.signal->learn(SignalBench::ran(here));
    return here;
  };
  for (int i = 0; i < 10; ++i) {
    learn_list(bench, 5);
    learn_list(other, 1);
  }
  const std::uint64_t place = learn_list(bench, 5).arguments.begin()->place;
  learn_list(other, 1);
  EXPECT_EQ(bench.user.counts.bits(place), other.user.counts.bits(place));
}

TEST_F(ArgumentNoveltyTest, WhatIsHeldStaysNew) {
  learn({{"url", "https://a.example"}}, 20);
  learn({{"url", "https://b.example"}}, 1, "send_mail", 1);
  EXPECT_GT(raw({{"url", "https://b.example"}})[0], 2);
  const Sight here = sight({{"url", "https://b.example"}});
  HeldItem item{.cell = here.arguments.begin()->known, .since = kMonday, .risk = .62, .tool = here.tool};
  item.kind = ItemKind::kArgument;
  item.argument = ArgumentKind::kHost;
  bench.user.held.push_back(item);
  struct Row {
    const char* name;
    double now;
    HeldItem::State state;
    double floor;
  };
  for (const Row& row : {Row{"at once", kMonday, HeldItem::State::kHeld, .62},
                         Row{"after two days", kMonday + 48 * kHour, HeldItem::State::kHeld, 0},
                         Row{"only listed", kMonday, HeldItem::State::kListed, 0},
                         Row{"rejected, for ever", kMonday + 400 * kDay, HeldItem::State::kRejected, .62}}) {
    bench.user.held.front().state = row.state;
    Sight later = here;
    later.now = row.now;
    bench.measure(later);
    EXPECT_EQ(bench.signal->floor(), row.floor) << row.name;
  }
  bench.measure(here);
  EXPECT_NE(bench.said(here, {.user = "", .tool = "send_mail", .previous = "", .destination = "b.example"})
                .find("send_mail was given a host (b.example) that is still new"),
            std::string::npos);
}

TEST_F(ArgumentNoveltyTest, SaysWhatAndHowFarTheNewsReaches) {
  learn({{"to", "bob@example.com"}, {"n", "abc"}}, 20);
  const Names names{.user = "alice", .tool = "send_mail", .previous = "", .destination = "evil.example"};
  const auto said = [&](const Texts& texts) {
    const Sight here = sight(texts);
    bench.measure(here);
    return bench.said(here, names);
  };
  EXPECT_EQ(said({{"to", "eve@evil.example"}}),
            "send_mail was given an e-mail address that is new to this user, the peer group and the tenant; "
            "1 of the "
            "last 20 values there were new");
  EXPECT_EQ(
      said({{"to", "https://evil.example"}}).find("send_mail was given a host (evil.example) that is new to"),
      0U)
      << said({{"to", "https://evil.example"}});
  EXPECT_EQ(said({{"n", "xyz"}}).find("send_mail was given a value that is new to"), 0U);
  EXPECT_EQ(said({{"n", "DE89370400440532013000"}}).find("send_mail was given an account number that"), 0U);
  EXPECT_EQ(said({{"n", "/etc/passwd"}}).find("send_mail was given a folder that"), 0U);
}

TEST_F(ArgumentNoveltyTest, WithoutArgumentsItIsSilent) {
  learn({{"to", "bob@example.com"}}, 20);
  EXPECT_EQ(raw({}), (std::vector<double>{0, 0}));
  EXPECT_EQ(bench.signal->floor(), 0);
}

TEST(ArgumentNovelty, ANewRecipientOfASendingToolIsNotable) {
  Lab lab;
  const Who alice;
  double now = kMonday + 9 * kHour;
  const Arguments usual = lab.arguments({{"to", "bob@example.com"}});
  for (int i = 0; i < 100; ++i) lab.run(alice, "send_mail", now += 600, usual);
  EXPECT_LT(lab.run(alice, "send_mail", now += 600, usual).risk, .2);
  const Verdict verdict =
      lab.run(alice, "send_mail", now += 600, lab.arguments({{"to", "eve@evil.example"}}));
  EXPECT_GE(verdict.risk, 1. / 3);
  ASSERT_NE(reason_of(verdict, "argument_novelty"), nullptr);
  EXPECT_GE(lab.run(alice, "send_mail", now += 600, lab.arguments({{"to", "eve@evil.example"}})).risk, .1);
}

}  // namespace
}  // namespace tool_firewall
