// SPDX-License-Identifier: Apache-2.0
// retry_loop: the same call again and again in a session, or cycles of up to four calls, or one failure after
// the other.
//
//   score = -ln P(a repeat) for the first repeat, -ln P(another one) for each further one, and -ln P(failure)
//   for each failure (halved by a success); the first two learned of the user, the last of the peer group.
// What begins more than a minute after the session's last call began or ended is no loop: slow polling never
// counts, and who polls or batches quickly every day is known for it. Arguments that nobody could read repeat
// nothing.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "behavior/rate.h"
#include "behavior/signal.h"
#include "text/phrase.h"

namespace tool_firewall {
namespace {

constexpr std::size_t kLongestCycle = 4;  // calls
constexpr double kForgottenAfter = 60;    // s without a call, nor the end of one
constexpr double kMost = 60;              // nats
constexpr double kLeastFailing = 1e-3;
constexpr double kForgiven = .5;  // of the failures, by a success

constexpr RatePrior kBegins{2, 20, 400};  // calls of a user
constexpr RatePrior kGoesOn{2, 8, 400};   // of those after a repeat
constexpr RatePrior kFails{1, 50, 4000};  // calls of a peer group

struct UserHabit {
  Rate begins;
  Rate goes_on;
};

struct PeersFailures {
  Rate fails;
};

struct SessionLoop {
  std::array<std::uint64_t, kLongestCycle> digests;  // of the last calls, newest first
  std::array<std::uint32_t, kLongestCycle> runs;     // calls in a row equal to the one so many before
  double busy;                                       // s, when a call last began or ended
  float failures;
  std::uint32_t filled;

  std::uint32_t repeats() const { return *std::max_element(runs.begin(), runs.end()); }
};

constexpr Channel kChannels[] = {
    {.name = "retry",
     .prior = {{0, 0, .003, 1.896, 3.912, 5.758, 8.048, 10.731, 12.595, 14.489, 16.257}},
     .alone_group = 1.2,
     .supported = .3},
};

class RetryLoop final : public Signal {
 public:
  std::string_view name() const override { return "retry_loop"; }
  std::span<const Channel> channels() const override { return kChannels; }
  StateSize state() const override { return {sizeof(UserHabit), sizeof(PeersFailures), sizeof(SessionLoop)}; }

  void measure(const Sight& sight, std::span<double> raw) override {
    const auto& user = of<UserHabit>(*sight.levels.user);
    const auto& session = of<SessionLoop>(*sight.session);
    const bool forgotten = session.filled == 0 || sight.now - session.busy > kForgottenAfter;
    now_ = {};
    repeated_before_ = !forgotten && session.repeats() > 0;
    cycle_ = 0;
    for (std::size_t back = 0; back < kLongestCycle && !forgotten; ++back) {
      if (sight.digest != 0 && back < session.filled && session.digests[back] == sight.digest)
        now_.runs[back] = session.runs[back] + 1;
      if (now_.runs[back] > (cycle_ > 0 ? now_.runs[cycle_ - 1] : 0)) cycle_ = back + 1;
      if (back + 1 < kLongestCycle) now_.digests[back + 1] = session.digests[back];
    }
    now_.digests[0] = sight.digest;
    now_.filled = forgotten ? 1 : std::min<std::uint32_t>(kLongestCycle, session.filled + 1);
    now_.failures = forgotten ? 0 : session.failures;
    now_.busy = forgotten ? sight.now : later(session.busy, sight.now);
    repeats_ = now_.repeats();
    goes_on_ = user.goes_on.value(kGoesOn);
    fails_ = of<PeersFailures>(*sight.levels.group).fails.value(kFails);
    const auto failures = static_cast<double>(now_.failures);
    double score = failures > 0 ? failures * -std::log(std::max(kLeastFailing, fails_)) : 0;
    if (repeats_ > 0) score -= std::log(user.begins.value(kBegins)) + (repeats_ - 1) * std::log(goes_on_);
    raw[0] = std::min(kMost, score);
  }

  std::uint8_t mark() const override {
    return static_cast<std::uint8_t>((repeats_ > 0 ? kRepeats : 0) |
                                     (repeated_before_ ? kRepeatedBefore : 0));
  }

  Numbers numbers(const Sight& sight) const override {
    const auto failures = static_cast<double>(now_.failures);
    const bool of_failures = failures > repeats_;
    const std::uint64_t which = of_failures ? sight.session->id : loop();
    return {of_failures ? failures : static_cast<double>(repeats_),
            of_failures ? fails_ : goes_on_,
            {of_failures ? 0.0F : static_cast<float>(cycle_), now_.failures, static_cast<float>(which >> 40),
             static_cast<float>(which >> 16 & kHalf)}};
  }

  double z_score(const Numbers&) const override { return 0; }
  std::uint64_t incident(const Numbers& n) const override {
    const auto half = [](float bits) {
      return static_cast<std::uint64_t>(whole(static_cast<double>(bits), static_cast<int>(kHalf)));
    };
    return half(n.detail[2]) << 24 | half(n.detail[3]);
  }

  void count(const Sight& sight, bool) override { of<SessionLoop>(*sight.session) = now_; }

  void learn(const Ran& ran) override {
    if (ran.session != nullptr && ran.ended >= 0) {
      auto& session = of<SessionLoop>(*ran.session);
      session.busy = later(session.busy, ran.ended);
      session.failures = ran.ok ? static_cast<float>(static_cast<double>(session.failures) * kForgiven)
                                : session.failures + 1;
    }
    if (ran.ended >= 0) of<PeersFailures>(*ran.levels.group).fails.learn(!ran.ok, kFails);
    auto& user = of<UserHabit>(*ran.levels.user);
    const bool repeats = (ran.mark & kRepeats) != 0;
    if ((ran.mark & kRepeatedBefore) != 0)
      user.goes_on.learn(repeats, kGoesOn);
    else
      user.begins.learn(repeats, kBegins);
  }

  std::string explain(const Numbers& n, const Names& names) const override {
    const int length = static_cast<int>(names.tool.size());
    const auto cycle = static_cast<double>(n.detail[0]);
    const auto failures = static_cast<double>(n.detail[1]);
    if (cycle <= 0)
      return phrase(
          "about %s failures in a row before this call of %.*s; %s of the calls of the user's peers fail",
          quantity(failures).c_str(), length, names.tool.data(), odds(n.baseline).c_str());
    const std::string failed =
        failures > 0 ? phrase("; about %s of them failed", quantity(failures).c_str()) : "";
    const std::string go_on = phrase("; after a repeat this user goes on with %s", odds(n.baseline).c_str());
    if (cycle > 1)
      return phrase("%s calls in a row repeat a cycle of %s that ends with %.*s", quantity(n.value).c_str(),
                    quantity(cycle).c_str(), length, names.tool.data()) +
             failed + go_on;
    return phrase("%.*s was called %s times in a row with the same arguments", length, names.tool.data(),
                  quantity(n.value + 1).c_str()) +
           failed + go_on;
  }

  void adopt(std::span<const std::byte> saved, std::span<std::byte> own) const override {
    if (saved.size() != own.size()) return;
    if (saved.size() == sizeof(SessionLoop)) {
      SessionLoop session;
      std::memcpy(&session, saved.data(), sizeof session);
      if (session.filled > kLongestCycle || !std::isfinite(session.failures) || !std::isfinite(session.busy))
        return;
    }
    std::copy(saved.begin(), saved.end(), own.begin());
  }

 private:
  static constexpr std::uint64_t kHalf = 0xffffff;  // of an id: what a float holds exactly

  // The same for every call of one loop, wherever in its cycle.
  std::uint64_t loop() const {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < cycle_; ++i) sum += now_.digests[i];
    return sum;
  }

  enum Mark : std::uint8_t { kRepeats = 1, kRepeatedBefore = 2 };

  SessionLoop now_{};
  std::uint32_t repeats_ = 0;
  std::size_t cycle_ = 0;
  double goes_on_ = 0;
  double fails_ = 0;
  bool repeated_before_ = false;
};

}  // namespace

SignalPtr make_retry_loop(const SignalSettings&) { return std::make_unique<RetryLoop>(); }

}  // namespace tool_firewall
