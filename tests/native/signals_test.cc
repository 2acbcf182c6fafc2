// SPDX-License-Identifier: Apache-2.0
// What holds for every signal of signals.def, whichever these are.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "lab.h"
#include "text/phrase.h"

namespace tool_firewall {
namespace {

using testing::HasSubstr;
using testing::Not;

std::vector<SignalPtr> all_signals() {
  static const Hasher hasher(kKey);
  return make_signals({.hasher = &hasher});
}

// One sentence: no end of line, no full stop at the end, no remains of a format.
void expect_sentence(const std::string& text, const std::string& about) {
  EXPECT_GE(text.size(), 15U) << about << ": " << text;
  for (const char* artefact :
       {"%s", "%d", "%.", "%u", "%f", "%0", "(null)", " nan", " inf", "-nan", "\n", "  "})
    EXPECT_THAT(text, Not(HasSubstr(artefact))) << about;
  EXPECT_NE(text.back(), '.') << about << ": " << text;
}

TEST(Signals, HaveDistinctNamesInTheOrderOfTheFile) {
  const std::vector<SignalPtr> signals = all_signals();
  const char* const recorded[] = {"novelty",    "novel_path", "off_hours",       "frequency",
                                  "burst",      "cost",       "retry_loop",      "argument_novelty",
                                  "rate_spike", "burn_spike", "identity_novelty"};
  ASSERT_GE(signals.size(), std::size(recorded));
  for (std::size_t i = 0; i < std::size(recorded); ++i)
    EXPECT_EQ(signals[i]->name(), recorded[i]) << "positions are written into journals";
  std::set<std::string_view> names, channels;
  std::size_t count = 0;
  for (std::size_t i = 0; i < signals.size(); ++i) {
    EXPECT_FALSE(signals[i]->name().empty());
    EXPECT_TRUE(names.insert(signals[i]->name()).second) << signals[i]->name();
    EXPECT_EQ(signal_name(static_cast<std::uint8_t>(i)), signals[i]->name());
    for (const Channel& channel : signals[i]->channels()) {
      EXPECT_TRUE(channels.insert(channel.name).second) << channel.name;
      ++count;
    }
  }
  EXPECT_LE(count, kMostChannels);
  EXPECT_LE(signals.size(), kMostSignals);
}

TEST(Signals, HaveAscendingPriorsAndAVoice) {
  for (const SignalPtr& signal : all_signals()) {
    for (const Channel& channel : signal->channels()) {
      for (std::size_t i = 1; i < channel.prior.raw.size(); ++i)
        EXPECT_LE(channel.prior.raw[i - 1], channel.prior.raw[i]) << channel.name << ' ' << i;
      EXPECT_GE(channel.prior.raw.front(), 0) << channel.name;
      EXPECT_GT(channel.weight + channel.alone_group + channel.alone_tenant, 0)
          << channel.name << " is never heard";
    }
  }
}

TEST(Signals, OfNewerVersionsAreNamedSo) {
  EXPECT_EQ(signal_name(200), "");
  EXPECT_EQ(explain(200, {}, {}), "a signal of a newer version");
}

TEST(Signals, ExplainAnyNumbersInOneSentence) {
  const Names names[] = {{"alice", "query", "login", "example.com"},
                         {"alice", "query", "", ""},
                         {"a%sb", "100%d tool", "%n%n", "%s"},
                         {"", "", "", ""}};
  const Numbers numbers[] = {{0, 0, {}},
                             {25, 20, {1, 60, 3, 0}},
                             {1e-13, .5, {4, 4, 1e6F, 1e6F}},
                             {1e6, 1e6, {47, 3, 2, 1}},
                             {.25, .1234567, {600, 2.5F, 0, 0}}};
  for (const SignalPtr& signal : all_signals()) {
    for (const Numbers& one : numbers)
      expect_sentence(signal->explain(one, names[0]), std::string(signal->name()));
    for (const Names& who : names) {
      const std::string text = signal->explain(numbers[1], who);
      EXPECT_FALSE(text.empty());
      EXPECT_THAT(text, Not(HasSubstr("(null)")));
    }
  }
}

// What was said of a call before or after it.
struct Said {
  Said() = default;
  Said(const Verdict& verdict)  // NOLINT(google-explicit-constructor): both are what was said
      : risk(verdict.risk), reasons(verdict.reasons), tool(verdict.tool), previous(verdict.previous) {}
  Said(const Aftermath& after)  // NOLINT(google-explicit-constructor)
      : risk(after.risk), reasons(after.reasons), tool(after.tool), previous(after.previous) {}
  double risk = 0;
  std::vector<Reason> reasons;
  const Tool* tool = nullptr;
  const Tool* previous = nullptr;
};

// One case for each signal in which it speaks up. A new signal adds its own.
std::map<std::string, Said> one_case_each(Lab& lab) {
  std::map<std::string, Said> cases;
  const Who alice, bob{.user = "bob@example.com"};
  const double last = lab.history(alice, {"login", "query", "export"}, 10, 12);
  lab.history(bob, {"login", "mail"}, 10, 12);
  const double ten = last + kDay;
  lab.run(alice, "login", ten);
  cases["novelty"] = lab.check(alice, "never_seen", ten + 60);
  Who other = alice;
  other.session = "second";
  lab.run(other, "export", ten + 600);
  cases["novel_path"] = lab.check(other, "never_seen_either", ten + 660);
  other.session = "night";
  cases["off_hours"] = lab.check(other, "login", kMonday + 11 * kDay + 2.5 * kHour);
  other.session = "busy";
  const double busy = kMonday + 14 * kDay + 9.2 * kHour;
  for (int i = 0; i < 12; ++i) cases["frequency"] = lab.run(other, i % 2 == 0 ? "query" : "export", busy + i);
  for (int i = 12; i < 25; ++i) cases["burst"] = lab.run(other, i % 2 == 0 ? "query" : "export", busy + i);

  const Who carol{.user = "carol@example.com", .tenant = "another", .agent = "her own", .token = "t"};
  double now = kMonday + 15 * kDay + 9 * kHour;
  const Arguments usual = lab.arguments({{"to", "bob@example.com"}, {"text", "hello"}});
  for (int i = 0; i < 60; ++i) lab.complete(carol, "file_ticket", now += 300, .01, usual);
  cases["argument_novelty"] = lab.run(carol, "file_ticket", now += 300,
                                      lab.arguments({{"to", "eve@evil.example"}, {"text", "hello"}}));
  cases["cost"] = lab.complete(carol, "file_ticket", now += 300, 5, usual);
  Who with_another = carol;
  with_another.session = "another";
  with_another.agent = "another";
  cases["identity_novelty"] = lab.run(with_another, "file_ticket", now += kHour, usual);
  now += kHour;
  for (int i = 0; i < 12; ++i) cases["retry_loop"] = lab.run(carol, "file_ticket", now += 5, usual);
  const double spike = kMonday + 16 * kDay + 9 * kHour;
  for (int i = 0; i < 100; ++i) {
    const Who who{.user = "u" + std::to_string(i)};
    const Verdict verdict = lab.check(who, "login", spike + i);
    if (i == 99) cases["rate_spike"] = verdict;
    const Aftermath after = lab.end(verdict, spike + i, .011);
    if (reason_of(after, "burn_spike") != nullptr) cases["burn_spike"] = after;
  }
  return cases;
}

TEST(Signals, EachCanReachTheReasons) {
  Lab lab;
  const std::map<std::string, Said> cases = one_case_each(lab);
  for (const SignalPtr& signal : lab.engine.model().signals()) {
    const std::string name(signal->name());
    ASSERT_TRUE(cases.contains(name)) << "add a case for " << name;
    const Said& verdict = cases.at(name);
    const Reason* reason = reason_of(verdict, name);
    ASSERT_NE(reason, nullptr) << name << " is silent at risk " << verdict.risk;
    EXPECT_GT(reason->p, 0) << name;
    EXPECT_LT(reason->p, .05) << name;
    const std::string text =
        explain(reason->signal, reason->numbers,
                {"alice@example.com", verdict.tool->name,
                 verdict.previous == nullptr ? std::string_view() : std::string_view(verdict.previous->name),
                 "evil.example"});
    expect_sentence(text, name);
  }
}

TEST(Phrase, SaysNumbersAsPeopleDo) {
  struct Row {
    double value;
    const char* quantity;
  };
  for (const Row& row : {Row{3, "3"}, Row{2.5, "2.5"}, Row{2.96, "3"}, Row{.04, "0"}, Row{1234.56, "1234.6"}})
    EXPECT_EQ(quantity(row.value), row.quantity);
  struct Odds {
    double p;
    const char* text;
  };
  for (const Odds& row :
       {Odds{.4, "40 %"}, Odds{1, "100 %"}, Odds{.004, "1 in 250"}, Odds{0, "less than 1 in 1,000,000,000"}})
    EXPECT_EQ(odds(row.p), row.text);
}

}  // namespace
}  // namespace tool_firewall
