// SPDX-License-Identifier: Apache-2.0
#include "behavior/clock.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "engine/report.h"
#include "lab.h"

namespace tool_firewall {
namespace {

constexpr double kYears = 3650 * kDay;  // ten

using enum Clock::Origin;

Clock started(double now = kMonday) {
  Clock clock;
  clock.read(now, kLive);
  return clock;
}

TEST(Clock, TakesStepsOfADayAsTheyAre) {
  Clock clock = started();
  for (const double step : {1., -30., kHour, -kHour, 23 * kHour, -23 * kHour}) {
    const double now = clock.newest() + step;
    const Moment when = clock.read(now, kLive);
    EXPECT_EQ(when.own, now);
    EXPECT_EQ(when.everybody, now);
    EXPECT_FALSE(when.past);
    EXPECT_EQ(clock.newest(), std::max(now, now - step));
  }
  EXPECT_EQ(clock.state().ahead + clock.state().behind, 0U);
}

TEST(Clock, KeepsAStrangeTimeFromEverybody) {
  for (const double off : {kYears, -kYears, 2 * kDay, -2 * kDay}) {
    Clock clock = started();
    const Moment when = clock.read(kMonday + off, kLive);
    EXPECT_EQ(when.everybody, kMonday) << off;
    EXPECT_EQ(when.own, kMonday + off) << "it may be the first after a pause";
    EXPECT_EQ(clock.newest(), kMonday);
    EXPECT_EQ(clock.state().ahead, off > 0 ? 1U : 0U);
    EXPECT_EQ(clock.state().behind, off < 0 ? 1U : 0U);
  }
}

TEST(Clock, BelievesSixteenInARow) {
  for (const double off : {kYears, -kYears, 3 * kDay}) {
    Clock clock = started();
    double from = 0;
    for (int i = 1; i < 16; ++i) EXPECT_EQ(clock.read(kMonday + off + i, kLive).everybody, kMonday);
    EXPECT_FALSE(clock.jumped(from));
    EXPECT_EQ(clock.read(kMonday + off + 16, kLive).everybody, kMonday + off + 16);
    EXPECT_TRUE(clock.jumped(from));
    EXPECT_EQ(from, kMonday);
    EXPECT_FALSE(clock.jumped(from)) << "told once";
    EXPECT_EQ(clock.read(kMonday + off, kLive).everybody, kMonday + off);
    EXPECT_EQ(clock.state().moved, 1U);
  }
}

TEST(Clock, BelievesNoSixteenThatDisagree) {
  Clock clock = started();
  for (int i = 0; i < 100; ++i)
    EXPECT_EQ(clock.read(kMonday + (i % 2 == 0 ? kYears : 3 * kDay) + i, kLive).everybody, kMonday);
  EXPECT_EQ(clock.state().moved, 0U);
}

TEST(Clock, ACallAWeekIsBelievedInTheEnd) {
  Clock clock = started();
  int first = 0;
  for (int week = 1; week < 40 && first == 0; ++week)
    if (clock.read(kMonday + week * 7 * kDay, kLive).everybody > kMonday) first = week;
  EXPECT_EQ(first, 16);
}

TEST(Clock, CorrectsAClockThatWasFoundWrong) {
  for (const double off : {kYears, -kYears, 2 * kDay}) {
    Clock clock = started();
    for (int i = 1; i < 4000; ++i) {
      const double now = kMonday + i;
      const Moment when = clock.read(i % 4 == 0 ? now + off : now, kLive);
      if (i > 16) {
        ASSERT_NEAR(when.own, now, 1) << i << ", " << off;
        ASSERT_NEAR(when.everybody, now, 1) << i;
      }
    }
    EXPECT_EQ(clock.state().moved, 0U);
  }
}

TEST(Clock, TwoClocksThatDisagreeNeverTakeTurns) {
  Clock clock = started();
  for (int i = 1; i < 100'000; ++i) clock.read(kMonday + i + (i % 2 == 0 ? kYears : 0), kLive);
  EXPECT_EQ(clock.state().moved, 0U);
}

TEST(Clock, FollowsTheMostWhenTheFirstWasWrong) {
  Clock clock = started(kMonday + kYears);
  int first = 0;
  for (int i = 1; i < 20'000 && first == 0; ++i) {
    clock.read(kMonday + i + (i % 4 == 0 ? kYears : 0), kLive);
    if (clock.newest() < kMonday + kDay) first = i;
  }
  EXPECT_GT(first, 0);
  EXPECT_LT(first, 6000);
}

TEST(Clock, HistoryIsPastAndSpeaksAgainstNobody) {
  Clock clock = started();
  for (int i = 0; i < 100; ++i) {
    const Moment when = clock.read(kMonday - 90 * kDay + i, kImported);
    EXPECT_TRUE(when.past);
    EXPECT_EQ(when.own, kMonday - 90 * kDay + i);
    EXPECT_EQ(when.everybody, kMonday);
  }
  EXPECT_EQ(clock.state().behind, 0U);
  EXPECT_EQ(clock.read(kMonday + kYears, kImported).everybody, kMonday);
  EXPECT_EQ(clock.newest(), kMonday);
  // After a pause, history between the live calls does not make them wrong.
  for (int i = 0; i < 16; ++i) {
    clock.read(kMonday + 5 * kDay + i, kLive);
    clock.read(kMonday - kDay + i, kImported);
  }
  EXPECT_EQ(clock.newest(), kMonday + 5 * kDay + 15);
}

TEST(Clock, AfterHistoryAloneTheFirstLiveCallIsBelieved) {
  Clock clock;
  for (int day = 0; day < 60; ++day) {
    const Moment when = clock.read(kMonday + day * kDay, kImported);
    EXPECT_FALSE(when.past);
    EXPECT_EQ(when.everybody, kMonday + day * kDay);
  }
  EXPECT_EQ(clock.read(kMonday + 70 * kDay, kLive).everybody, kMonday + 70 * kDay);
  EXPECT_EQ(clock.newest(), kMonday + 70 * kDay);
}

TEST(Clock, TimesOfOtherThingsStayWithinReason) {
  Clock none;
  EXPECT_EQ(none.settled(kMonday), kMonday);
  Clock clock = started();
  EXPECT_EQ(clock.settled(kMonday + kHour), kMonday + kHour);
  EXPECT_EQ(clock.settled(kMonday + kYears), kMonday);
  EXPECT_EQ(clock.settled(kMonday - kYears), kMonday);
}

// --- What the model makes of it.

const std::vector<std::string> kTools = {"query", "read", "send", "list"};

std::vector<Who> staff() {
  std::vector<Who> out;
  for (const char* name : {"ann", "ben", "cat", "dan"}) out.push_back({.user = name, .session = name});
  return out;
}

// Three weeks of four people; ends on a Sunday evening.
double learned(Lab& lab) {
  double now = 0;
  for (int day = 0; day < 21; ++day)
    for (int i = 0; i < 12; ++i)
      for (std::size_t one = 0; one < 4; ++one) {
        now = kMonday + day * kDay + 9 * kHour + i * 10 * kMinute + static_cast<double>(one);
        lab.run(staff()[one], kTools[static_cast<std::size_t>(i) % 4], now);
      }
  return now + kHour;
}

// The risks of an hour of ordinary and strange calls.
std::vector<double> next_risks(Lab& lab, double now) {
  std::vector<double> risks;
  std::size_t turn = 0;
  for (int i = 0; i < 40; ++i) {
    for (const Who& who : staff())
      risks.push_back(
          lab.run(who, i % 9 == 8 ? "wipe" + std::to_string(i) : kTools[turn++ % 4], now += 20).risk);
  }
  return risks;
}

double furthest(const std::vector<double>& a, const std::vector<double>& b) {
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

double count_of(Lab& lab, const std::string& user, const std::string& tool) {
  const Baseline baseline = *baseline_of(lab.engine, "acme", user);
  for (const BaselineTool& one : baseline.tools)
    if (one.name == tool) return one.count;
  return 0;
}

// One call of imported history.
void import_call(Lab& lab, std::uint64_t seq, const Who& who, const std::string& tool, double ts) {
  CallRecord record;
  record.id = {77, seq, ts};
  record.tenant = who.tenant;
  record.user = who.user;
  record.session = who.session;
  record.server = "upstream";
  record.tool = tool;
  const std::string bytes = encode(record);
  Pack pack;
  pack.add(class_of(bytes), bytes);
  ASSERT_EQ(lab.engine.apply(pack.bytes), 1U);
}

const Who kOther{.user = "eve", .session = "eve"};

TEST(Clocks, OneCallFarOffChangesNobodysScores) {
  for (const double off : {kYears, -kYears, 30 * kDay, -30 * kDay}) {
    Lab right, wrong;
    const double now = learned(right);
    learned(wrong);
    right.run(kOther, "query", now);
    wrong.run(kOther, "query", now + off);
    EXPECT_LT(furthest(next_risks(wrong, now), next_risks(right, now)), 1e-3) << off / kDay;
  }
}

TEST(Clocks, ACallFarOffEndsNoRunningOne) {
  for (const double off : {kYears, -kYears}) {
    Lab lab;
    lab.run({}, "query", kMonday);
    const Verdict running = lab.check({}, "query", kMonday + 1);
    lab.run(kOther, "query", kMonday + off);
    EXPECT_TRUE(lab.engine.observe(running.ticket, Outcome::kOk, kNoCost, kMonday + 2).known);
    EXPECT_EQ(lab.engine.counts().assumed_done, 0U);
  }
}

TEST(Clocks, OneWorkerOfFourFarOffChangesNobodysScores) {
  for (const double off : {kYears, -kYears}) {
    Lab right, wrong;
    const double now = learned(right);
    learned(wrong);
    const auto risks = [&](Lab& lab, double by) {
      std::vector<double> out;
      double at = now;
      for (int i = 0; i < 400; ++i) {
        at += 15;
        // Half a second of jitter, as calls have.
        const double shown = at + (i % 7) * .1 + (i % 4 == 3 ? by : 0);
        const Who who = staff()[static_cast<std::size_t>(i / 4) % 4];
        const double risk = lab.run(who, kTools[static_cast<std::size_t>(i) % 4], shown).risk;
        if (i >= 16) out.push_back(risk);
      }
      return out;
    };
    const std::vector<double> expected = risks(right, 0);
    const std::vector<double> seen = risks(wrong, off);
    std::size_t different = 0;
    for (std::size_t i = 0; i < seen.size(); ++i) different += std::abs(seen[i] - expected[i]) > .05 ? 1 : 0;
    EXPECT_LE(different, seen.size() / 50) << off << ": only whom the first strange call was of";
    EXPECT_GE(wrong.engine.clock().state().ahead + wrong.engine.clock().state().behind, 100U);
    for (const char* name : {"ann", "dan"})
      EXPECT_NEAR(count_of(wrong, name, "read"), count_of(right, name, "read"), .01) << name;
  }
}

// 25 calls in 30 s, from which the limit of 20 must be seen.
double burst(Lab& lab, const Who& who, double now) {
  double most = 0;
  for (int i = 0; i < 25; ++i) most = std::max(most, lab.run(who, "query", now + i * 1.25).risk);
  return most;
}

TEST(Clocks, ABurstIsSeenWhateverTheClockDidBefore) {
  for (const double off :
       {kHour, -kHour, 10 * kMinute, -10 * kMinute, 30., -30., kYears, -kYears, 100 * kDay}) {
    Lab once, set;
    const double now = learned(once);
    learned(set);
    once.run(staff()[0], "query", now + off);  // one call at a wrong time
    EXPECT_GE(burst(once, staff()[0], now + 1), .5) << off;
    EXPECT_GE(burst(set, staff()[0], now + off), .5) << "the clock was set by " << off;
  }
}

TEST(Clocks, ABurstOverFourWorkersIsSeenWithOneFarOff) {
  Lab lab;
  const double now = learned(lab);
  for (int i = 0; i < 8; ++i) lab.run(kOther, "query", now - 800 + i * 100 + (i % 4 == 0 ? kYears : 0));
  double most = 0;
  for (int i = 0; i < 25; ++i)
    most = std::max(most, lab.run(staff()[1], "query", now + i * 1.25 + (i % 4 == 0 ? kYears : 0)).risk);
  EXPECT_GE(most, .5);
}

TEST(Clocks, AnOrdinaryPaceStaysOrdinaryWhateverTheClockDid) {
  for (const double off :
       {kHour, -kHour, 10 * kMinute, -10 * kMinute, 30., -30., kYears, -kYears, 100 * kDay}) {
    Lab once, set;
    const double now = learned(once);
    learned(set);
    once.run(staff()[0], "query", now + off);
    for (int i = 1; i < 60; ++i) {
      for (Lab* lab : {&once, &set}) {
        const double at = now + i * 20 + (lab == &set ? off : 0);
        const Verdict verdict = lab->run(staff()[0], kTools[static_cast<std::size_t>(i) % 4], at);
        EXPECT_EQ(reason_of(verdict, "burst"), nullptr) << i << ", clock off by " << off;
      }
    }
  }
}

TEST(Clocks, AnHourForwardAndBackIsOneNewSessionAtMost) {
  for (const double off : {kHour, -kHour}) {
    Lab lab;
    const double now = learned(lab);
    int starts = 0;
    for (int i = 0; i < 30; ++i) {
      const double at = now + i * 20 + (i == 10 ? off : 0);
      starts += lab.run(staff()[0], kTools[static_cast<std::size_t>(i) % 4], at).previous == nullptr ? 1 : 0;
    }
    EXPECT_LE(starts, 2) << "the first, and one where the clock stepped forward";
  }
}

TEST(Clocks, TwoHostsThirtySecondsApartAreOne) {
  Lab right, skewed;
  // On the next morning: at an odd hour the two would differ for as long as only one of them has begun it.
  const double now = learned(right) - 3 * kHour + kDay + 15 * kMinute;
  learned(skewed);
  std::size_t different = 0;
  for (int i = 0; i < 400; ++i) {
    const double at = now + i * 12;
    const Who who = staff()[static_cast<std::size_t>(i / 4) % 4];
    const std::string& tool = kTools[static_cast<std::size_t>(i) % 4];
    const Verdict a = right.run(who, tool, at);
    const Verdict b = skewed.run(who, tool, at + (i % 2 == 0 ? 30 : 0));
    EXPECT_EQ(a.previous == nullptr, b.previous == nullptr) << i;
    EXPECT_EQ(a.decision, b.decision) << i;
    different += std::abs(a.risk - b.risk) > .05 ? 1 : 0;
  }
  EXPECT_LE(different, 4U);
  EXPECT_EQ(right.engine.counts().assumed_done, skewed.engine.counts().assumed_done);
}

TEST(Clocks, APauseOfAHundredDaysJustWorks) {
  Lab lab;
  const double before = learned(lab);
  const double known = count_of(lab, "ann", "query");
  const double back = before - std::fmod(before - kMonday, 7 * kDay) + 105 * kDay + 9 * kHour;  // a Monday
  int starts = 0;
  for (int i = 0; i < 80; ++i) {
    const Verdict verdict = lab.run(staff()[static_cast<std::size_t>(i) % 4],
                                    kTools[static_cast<std::size_t>(i) / 4 % 4], back + i * 15);
    starts += verdict.previous == nullptr ? 1 : 0;
    EXPECT_LT(verdict.risk, .5) << i;
  }
  EXPECT_EQ(starts, 4) << "everybody begins a session";
  EXPECT_EQ(lab.engine.last_call(), back + 79 * 15);
  const double left = count_of(lab, "ann", "query");
  EXPECT_GT(left, known / 5) << "what nobody contradicted fades by two half-lives at the most";
  EXPECT_LT(left, known / 3 + 6);
  EXPECT_EQ(lab.engine.clock().state().moved, 1U);
}

TEST(Clocks, AClockSetFarBackAndBelievedKeepsWhatIsKnown) {
  Lab lab;
  const double now = learned(lab);
  const double known = count_of(lab, "ann", "query");
  for (int i = 0; i < 20; ++i) lab.run(kOther, "query", now - kYears + i * 20);
  EXPECT_EQ(lab.engine.last_call(), now - kYears + 19 * 20);
  EXPECT_NEAR(count_of(lab, "ann", "query"), known, 1.1 * known) << "worth up to twice as much";
  EXPECT_NEAR(count_of(lab, "eve", "query"), 20, 21) << "new calls weigh something";
  EXPECT_GT(count_of(lab, "eve", "query"), 4);
  // Believed wrongly, and then set right: nothing is lost but the two half-lives.
  Lab flaps;
  learned(flaps);
  for (int i = 0; i < 20; ++i) flaps.run(kOther, "query", now + kYears + i);
  EXPECT_EQ(flaps.engine.clock().state().moved, 1U);
  for (int i = 0; i < 20; ++i) flaps.run(kOther, "query", now + i);
  EXPECT_EQ(flaps.engine.clock().state().moved, 2U);
  EXPECT_GT(count_of(flaps, "ann", "query"), known / 4.1);
}

TEST(Clocks, HistoryWeighsWhatItsAgeSays) {
  Lab lab;
  const double now = learned(lab);
  for (std::uint64_t i = 0; i < 32; ++i) {
    import_call(lab, i + 1, {.user = "old"}, "query", now - 28 * kDay + static_cast<double>(i) * 60);
  }
  lab.run(kOther, "query", now);
  EXPECT_NEAR(count_of(lab, "old", "query"), 8, .1) << "two half-lives";
  EXPECT_EQ(lab.engine.clock().state().behind, 0U);
}

TEST(Clocks, HistoryLeavesThePresentAlone) {
  Lab plain, imported;
  const double now = learned(plain);
  learned(imported);
  const Who ann = staff()[0];
  for (int i = 0; i < 10; ++i)
    for (Lab* lab : {&plain, &imported}) lab->run(ann, "query", now + i);
  for (std::uint64_t i = 0; i < 200; ++i) {
    import_call(imported, i + 1, ann, "send", now - 200 * kDay + static_cast<double>(i));
  }
  EXPECT_EQ(imported.fact(ann, "usual_60s", now + 10), plain.fact(ann, "usual_60s", now + 10));
  EXPECT_EQ(imported.fact(ann, "record_60s", now + 10), plain.fact(ann, "record_60s", now + 10));
  // Eleven more: a burst, with the ten before the history.
  double a = 0, b = 0;
  for (int i = 10; i < 25; ++i) {
    const Verdict with = imported.run(ann, "query", now + i);
    ASSERT_NE(with.previous, nullptr);
    EXPECT_EQ(with.previous->name, "query");
    a = std::max(a, plain.run(ann, "query", now + i).risk);
    b = std::max(b, with.risk);
  }
  EXPECT_GE(a, .5);
  EXPECT_NEAR(a, b, 1e-9);
}

TEST(Clocks, AReplayIsTheSame) {
  Lab writer(journaling(1)), reader, again;
  const double now = learned(writer);
  double at = now;
  for (std::size_t i = 0; i < 300; ++i) {
    const double off = i % 5 == 0 ? kYears : i > 100 && i < 130 ? -3 * kDay : i > 200 ? 50 * kDay : 0;
    writer.run(staff()[i % 4], kTools[i / 2 % 4], (at += 10) + off);
  }
  for (const Pack& pack : writer.engine.drain(1'000'000)) {
    reader.engine.apply(pack.bytes);
    again.engine.apply(pack.bytes);
  }
  const std::vector<double> expected = next_risks(writer, at + 50 * kDay);
  EXPECT_EQ(next_risks(reader, at + 50 * kDay), expected);
  EXPECT_EQ(next_risks(again, at + 50 * kDay), expected);
}

}  // namespace
}  // namespace tool_firewall
