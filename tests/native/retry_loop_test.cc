// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "lab.h"

namespace tool_firewall {
namespace {

const double kBegins = std::log(10.);  // -ln(2/20): nothing is known
const double kGoesOn = std::log(4.);   // -ln(2/8)
const double kFails = std::log(50.);   // -ln(1/50)

class RetryLoopTest : public testing::Test {
 protected:
  // One call, measured, counted and learned from; the raw score.
  double call(std::uint64_t digest, bool ok = true, double ended = 0) {
    Sight sight = bench.sight(now);
    sight.digest = digest;
    const double raw = bench.measure(sight)[0];
    numbers = bench.signal->numbers(sight);
    bench.signal->count(sight, false);
    Ran ran = SignalBench::ran(sight);
    ran.mark = bench.signal->mark();
    ran.ok = ok;
    ran.ended = now + ended;
    if (teaches) bench.signal->learn(ran);
    return raw;
  }
  std::vector<double> calls(const std::vector<std::uint64_t>& digests, double apart = 1) {
    std::vector<double> raw;
    for (const std::uint64_t digest : digests) {
      raw.push_back(call(digest));
      now += apart;
    }
    return raw;
  }
  std::string said() const {
    return bench.signal->explain(numbers, {.user = "a", .tool = "query", .previous = "", .destination = ""});
  }
  SignalBench bench{make_retry_loop};
  double now = kMonday;
  Numbers numbers;
  bool teaches = false;
};

TEST_F(RetryLoopTest, TheSameCallAgainByHand) {
  const std::vector<double> raw = calls({7, 7, 7, 7, 7});
  EXPECT_EQ(raw[0], 0);
  for (std::size_t i = 1; i < raw.size(); ++i)
    EXPECT_NEAR(raw[i], kBegins + static_cast<double>(i - 1) * kGoesOn, 1e-6) << i;
  EXPECT_EQ(
      said(),
      "query was called 5 times in a row with the same arguments; after a repeat this user goes on with "
      "25 %");
}

TEST_F(RetryLoopTest, OtherCallsAreNoLoop) {
  for (const double raw : calls({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2, 3})) EXPECT_EQ(raw, 0);
}

TEST_F(RetryLoopTest, CyclesOfUpToFour) {
  for (std::uint64_t length = 2; length <= 5; ++length) {
    bench.session.begin(length, SignalBench::kState);
    std::vector<std::uint64_t> digests;
    for (std::uint64_t i = 0; i < 4 * length; ++i) digests.push_back(100 * length + i % length);
    const std::vector<double> raw = calls(digests);
    for (std::size_t i = 0; i < raw.size(); ++i) {
      const double expected =
          length > 4 || i < length ? 0 : kBegins + static_cast<double>(i - length) * kGoesOn;
      EXPECT_NEAR(raw[i], std::min(60., expected), 1e-6) << "cycle of " << length << ", call " << i;
    }
    if (length == 2 || length == 4) {
      EXPECT_NE(
          said().find("calls in a row repeat a cycle of " + std::to_string(length) + " that ends with query"),
          std::string::npos)
          << said();
    }
  }
}

TEST_F(RetryLoopTest, AnInterruptedLoopBeginsAnew) {
  const std::vector<double> raw = calls({7, 7, 7, 8, 7});
  EXPECT_EQ(raw[3], 0);
  EXPECT_LE(raw[4], kBegins + 1e-6) << "a cycle of two at the most";
}

TEST_F(RetryLoopTest, NeverBeyondSixty) {
  double raw = 0;
  for (int i = 0; i < 100; ++i) {
    raw = call(7);
    now += 1;
  }
  EXPECT_EQ(raw, 60);
}

TEST_F(RetryLoopTest, SlowPollingIsNone) {
  for (const double apart : {60.5, 61., 300., 3600.})
    for (const double raw : calls(std::vector<std::uint64_t>(20, 7), apart)) EXPECT_EQ(raw, 0) << apart;
  now += 100;
  const std::vector<double> raw = calls({7, 7, 7}, 60);
  EXPECT_GT(raw[2], 0) << "a minute apart it is a loop";
}

TEST_F(RetryLoopTest, TheMinuteBeginsWithTheEndOfALongCall) {
  teaches = true;
  for (int i = 0; i < 3; ++i) {
    const double raw = call(7, true, 100);
    EXPECT_EQ(raw > 0, i > 0) << i;
    now += 130;  // 30 s after its end
  }
}

TEST_F(RetryLoopTest, FailuresInARowAddUpWhateverTheArguments) {
  teaches = true;
  std::vector<double> raw;
  for (std::uint64_t i = 0; i < 5; ++i) {
    raw.push_back(call(100 + i, false));
    now += 1;
  }
  EXPECT_EQ(raw[0], 0);
  // What fails teaches the group at once.
  EXPECT_NEAR(raw[1], std::log(51. / 2), 1e-4);
  EXPECT_NEAR(raw[4], 4 * std::log(54. / 5), 1e-3);
  EXPECT_EQ(said().find("about 4 failures in a row before this call of query"), 0U) << said();
  call(200, true);
  now += 1;
  const double after = call(201);
  EXPECT_NEAR(after, 2.5 * std::log(56. / 6), .05) << "a success halves them, five by then";
}

TEST_F(RetryLoopTest, AFailureThatIsForgottenSaysNothing) {
  teaches = true;
  call(1, false);
  call(2, false);
  now += 61;
  EXPECT_EQ(call(3), 0);
}

TEST_F(RetryLoopTest, BlockedTriesAreALoopToo) {
  for (int i = 0; i < 5; ++i) {
    Sight sight = bench.sight(now += 1);
    sight.digest = 7;
    const double raw = bench.measure(sight)[0];
    EXPECT_EQ(raw > 0, i > 0);
    bench.signal->count(sight, true);
  }
}

TEST_F(RetryLoopTest, APollerIsKnownForIt) {
  teaches = true;
  for (int i = 0; i < 2000; ++i) {
    call(7);
    now += 10;
  }
  EXPECT_LT(call(7), 60) << "in the middle of one it is at most that";
  now += kHour;
  std::vector<double> raw = calls({7, 7, 7, 7, 7}, 10);
  EXPECT_LT(raw.back() - raw[1], .1) << "that it goes on is no news";
}

TEST_F(RetryLoopTest, AdoptsNoNonsense) {
  calls({7, 7, 7});
  const std::span<std::byte> state = bench.signal->bytes_in(bench.session);
  const std::vector<std::byte> good(state.begin(), state.end());
  std::vector<std::byte> own(good.size());
  bench.signal->adopt(good, own);
  EXPECT_EQ(own, good);
  const std::uint32_t filled = 5;
  std::vector<std::byte> bad = good, into(good.size());
  std::memcpy(bad.data() + bad.size() - 4, &filled, 4);
  bench.signal->adopt(bad, into);
  EXPECT_EQ(into, std::vector<std::byte>(good.size()));
}

// In the engine.

TEST(RetryLoop, IsAmongTheReasonsWithinFiveCalls) {
  Lab lab;
  const Who alice;
  double now = lab.history(alice, {"login", "query", "export"}, 10, 20) + kDay;  // after a pause of a day
  int first = 0;
  for (int i = 1; i <= 15 && first == 0; ++i) {
    const Verdict verdict = lab.run(alice, "query", now += 6, lab.arguments({{"q", "the same"}}));
    if (reason_of(verdict, "retry_loop") != nullptr) first = i;
  }
  EXPECT_GT(first, 1);
  EXPECT_LE(first, 5);
}

TEST(RetryLoop, ARetryThatFailsAgainAndAgainIsNotable) {
  Lab lab;
  const Who alice;
  double now = lab.history(alice, {"login", "query", "export"}, 20, 20) + kDay;
  double most = 0;
  for (int i = 1; i <= 12; ++i) {
    const Verdict verdict = lab.check(alice, "query", now += 6, lab.arguments({{"q", "the same"}}));
    lab.end(verdict, now + 1, kNoCost, Outcome::kToolError);
    if (i > 2 && reason_of(verdict, "retry_loop") != nullptr) most = std::max(most, verdict.risk);
  }
  EXPECT_GE(most, 1. / 3);
}

TEST(RetryLoop, WithOtherArgumentsEachTimeItIsABatch) {
  Lab lab;
  const Who alice;
  double now = lab.history(alice, {"login", "query", "export"}, 10, 20) + kDay;
  for (int i = 1; i <= 15; ++i) {
    const Verdict verdict =
        lab.run(alice, "query", now += 6, lab.arguments({{"id", "order-" + std::to_string(i)}}));
    EXPECT_EQ(reason_of(verdict, "retry_loop"), nullptr) << i;
  }
}

}  // namespace
}  // namespace tool_firewall
