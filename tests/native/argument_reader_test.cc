// SPDX-License-Identifier: Apache-2.0
#include "text/argument_reader.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "lab.h"

namespace tool_firewall {
namespace {

using Path = ArgumentReader::Path;

const Path kRoot;

class Writing {
 public:
  explicit Writing(const Hasher& hasher) : reader(hasher, facts, destinations) {}
  Path at(std::string_view key, const Path& parent = kRoot) const { return reader.member(parent, key); }
  Path item(std::size_t index, const Path& parent) const { return reader.element(parent, index); }
  Writing& text(const Path& path, std::string_view value) {
    reader.text(path, value);
    return *this;
  }
  Writing& integer(const Path& path, std::int64_t value, char type = 'i') {
    reader.number(path, type, &value, sizeof value, static_cast<double>(value));
    return *this;
  }
  Writing& number(const Path& path, double value) {
    reader.number(path, 'd', &value, sizeof value, value);
    return *this;
  }
  Writing& end(const Path& path, char type) {
    reader.structure(path, type);
    return *this;
  }
  std::uint64_t result() const { return reader.result(); }

  ArgumentFacts facts;
  std::vector<std::string> destinations;
  ArgumentReader reader;
};

TEST(ArgumentDigest, DoesNotDependOnTheOrderOfKeys) {
  const Hasher hasher(kKey);
  Writing one(hasher), other(hasher);
  one.text(one.at("a"), "x").integer(one.at("b"), 5).end(kRoot, 'o');
  other.integer(other.at("b"), 5).text(other.at("a"), "x").end(kRoot, 'o');
  EXPECT_EQ(one.result(), other.result());
}

TEST(ArgumentDigest, TellsApartWhatDiffers) {
  const Hasher hasher(kKey);
  struct Row {
    const char* name;
    std::function<void(Writing&)> write;
  };
  const auto index = [](Writing& w, std::size_t i) { return w.item(i, w.at("list")); };
  const Row rows[] = {
      {"nothing", [](Writing&) {}},
      {"one text", [](Writing& w) { w.text(w.at("a"), "x"); }},
      {"another value", [](Writing& w) { w.text(w.at("a"), "y"); }},
      {"another key", [](Writing& w) { w.text(w.at("b"), "x"); }},
      {"another depth", [](Writing& w) { w.text(w.at("a", w.at("a")), "x"); }},
      {"key and value exchanged", [](Writing& w) { w.text(w.at("x"), "a"); }},
      {"a number", [](Writing& w) { w.integer(w.at("a"), 1); }},
      {"the same bits, another type", [](Writing& w) { w.integer(w.at("a"), 1, 'd'); }},
      {"twice the same", [](Writing& w) { w.text(w.at("a"), "x").text(w.at("a"), "x"); }},
      {"a list", [&](Writing& w) { w.text(index(w, 0), "x").text(index(w, 1), "y"); }},
      {"a list in another order", [&](Writing& w) { w.text(index(w, 0), "y").text(index(w, 1), "x"); }},
      {"an empty list", [](Writing& w) { w.end(w.at("list"), 'l'); }},
      {"an empty object", [](Writing& w) { w.end(w.at("list"), 'o'); }},
      {"a key that looks like two", [](Writing& w) { w.text(w.at("a.a"), "x"); }},
      {"an empty key", [](Writing& w) { w.text(w.at(""), "x"); }},
  };
  std::set<std::uint64_t> seen;
  for (const Row& row : rows) {
    Writing writing(hasher);
    row.write(writing);
    EXPECT_TRUE(seen.insert(writing.result()).second) << row.name;
  }
}

TEST(ArgumentDigest, SaysNothingWithoutTheKey) {
  auto other_key = kKey;
  other_key[0] ^= 1;
  const Hasher hasher(kKey), other_hasher(other_key);
  Writing one(hasher), other(other_hasher);
  one.text(one.at("a"), "x");
  other.text(other.at("a"), "x");
  EXPECT_NE(one.result(), other.result());
}

TEST(ArgumentDigest, StopsAtOneMebibyte) {
  const Hasher hasher(kKey);
  Writing exact(hasher);
  EXPECT_TRUE(exact.reader.spend((1U << 20) - 8)) << "8 bytes a node are charged";
  EXPECT_FALSE(exact.reader.spend(0));
  Writing many(hasher);
  int nodes = 0;
  while (many.reader.spend(0)) ++nodes;
  EXPECT_EQ(nodes, (1 << 20) / 8) << "empty values are not free";
}

TEST(ArgumentFacts, SayWhereWhatAndOfWhichKind) {
  const Hasher hasher(kKey);
  Writing one(hasher);
  one.text(one.at("to"), "bob@example.com").integer(one.at("amount"), 250).text(one.at("note"), "hi");
  ASSERT_EQ(one.facts.size(), 4U);
  const ArgumentKind kinds[] = {ArgumentKind::kAddress, ArgumentKind::kDomain, ArgumentKind::kMagnitude,
                                ArgumentKind::kValue};
  std::set<std::uint64_t> places, values;
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(one.facts[i].kind, kinds[i]) << i;
    EXPECT_EQ(one.facts[i].second, i == 1) << i;
    EXPECT_TRUE(places.insert(one.facts[i].place).second) << "kinds at one argument have places of their own";
    EXPECT_TRUE(values.insert(one.facts[i].value).second) << i;
  }
}

TEST(ArgumentFacts, AreTheSameForTheSameAndNothingWithoutTheKey) {
  auto other_key = kKey;
  other_key[31] ^= 1;
  const Hasher hasher(kKey), other_hasher(other_key);
  Writing one(hasher), again(hasher), other(other_hasher);
  for (Writing* w : {&one, &again, &other}) w->text(w->at("to"), "BOB@example.com");
  EXPECT_EQ(one.facts[0].place, again.facts[0].place);
  EXPECT_EQ(one.facts[0].value, again.facts[0].value);
  EXPECT_NE(one.facts[0].place, other.facts[0].place);
  EXPECT_NE(one.facts[0].value, other.facts[0].value);
  Writing lower(hasher);
  lower.text(lower.at("to"), "bob@example.com");
  EXPECT_EQ(lower.facts[0].value, one.facts[0].value) << "upper case is the same address";
  EXPECT_NE(lower.result(), one.result()) << "and other arguments";
}

TEST(ArgumentFacts, PositionsInListsAreOnePlace) {
  const Hasher hasher(kKey);
  Writing one(hasher);
  const Path list = one.at("to");
  one.text(one.item(0, list), "a@example.com").text(one.item(5, list), "a@example.com");
  one.text(one.at("to"), "a@example.com").text(one.at("x", one.item(1, list)), "a@example.com");
  one.text(one.at("x", one.item(2, list)), "a@example.com");
  EXPECT_EQ(one.facts[0].place, one.facts[2].place) << "of a list";
  EXPECT_NE(one.facts[0].place, one.facts[4].place) << "not of the argument itself";
  EXPECT_NE(one.facts[0].place, one.facts[6].place) << "nor of something deeper";
  EXPECT_EQ(one.facts[6].place, one.facts[8].place);
  for (std::size_t i = 0; i < one.facts.size(); i += 2) EXPECT_EQ(one.facts[i].value, one.facts[0].value);
}

TEST(ArgumentFacts, OfAListTheFirstEight) {
  const Hasher hasher(kKey);
  Writing nine(hasher), eight(hasher);
  for (Writing* w : {&nine, &eight})
    for (std::size_t i = 0; i < (w == &nine ? 20 : 8); ++i)
      w->text(w->item(i, w->at("to")), "v" + std::to_string(i));
  EXPECT_EQ(nine.facts.size(), 8U);
  EXPECT_NE(nine.result(), eight.result()) << "the digest is of all of them";
  nine.text(nine.at("x", nine.item(9, nine.at("list"))), "deep");
  EXPECT_EQ(nine.facts.size(), 8U) << "nor what is inside the ninth";
  nine.text(nine.at("after"), "seen");
  EXPECT_EQ(nine.facts.size(), 9U) << "those beyond take no room";
}

TEST(ArgumentFacts, OfSixteenLeaves) {
  const Hasher hasher(kKey);
  Writing one(hasher);
  for (int i = 0; i < 40; ++i) one.text(one.at("k" + std::to_string(i)), "a@example.com");
  EXPECT_EQ(one.facts.size(), ArgumentFacts::kMost) << "two of each";
  Writing other(hasher);
  for (int i = 0; i < 10; ++i) other.reader.nothing(other.at("k" + std::to_string(i)));
  for (int i = 10; i < 40; ++i) other.reader.truth(other.at("k" + std::to_string(i)), true);
  EXPECT_EQ(other.facts.size(), 6U) << "what is empty, or prose, is a leaf too";
}

TEST(ArgumentFacts, NumbersAreMagnitudes) {
  const Hasher hasher(kKey);
  const auto value = [&](double number) {
    Writing one(hasher);
    one.number(one.at("n"), number);
    EXPECT_EQ(one.facts[0].kind, ArgumentKind::kMagnitude);
    return one.facts[0].value;
  };
  struct Row {
    double one, other;
    bool same;
  };
  for (const Row& row : {Row{64, 127, true}, Row{64, 128, false}, Row{64, -64, false}, Row{0, -0., true},
                         Row{0, 1e-300, false}, Row{1.5, 1.9, true}, Row{HUGE_VAL, 1e300, false},
                         Row{HUGE_VAL, -HUGE_VAL, false}, Row{.6, .9, true}})
    EXPECT_EQ(value(row.one) == value(row.other), row.same) << row.one << ' ' << row.other;
  Writing one(hasher);
  one.reader.truth(one.at("n"), true);
  one.reader.truth(one.at("n"), false);
  one.text(one.at("n"), "true");
  EXPECT_NE(one.facts[0].value, one.facts[1].value);
  EXPECT_NE(one.facts[0].value, one.facts[2].value) << "no text says what a truth does";
}

TEST(ArgumentFacts, DestinationsAreHostsOnceEach) {
  const Hasher hasher(kKey);
  Writing one(hasher);
  const char* const texts[] = {
      "https://a.example/1", "https://A.example/2", "bob@mail.example", "b.example/x", "10.0.0.1",
      "https://c.example",   "https://d.example"};
  for (const char* text : texts) one.text(one.at(text), text);
  EXPECT_EQ(one.destinations, (std::vector<std::string>{"a.example", "b.example", "10.0.0.1", "c.example"}));
  Writing large(hasher);
  large.text(large.at("url"), "https://" + std::string(1000, 'a') + ".example/");
  ASSERT_EQ(large.destinations.size(), 1U);
  EXPECT_EQ(large.destinations[0], std::string(255, 'a'));
}

TEST(ArgumentFacts, TheSameThingTwiceIsThereTwiceAndKnownAsAgain) {
  const Hasher hasher(kKey);
  Writing one(hasher);
  const Path list = one.at("to");
  for (std::size_t i = 0; i < 3; ++i) one.text(one.item(i, list), "x");
  one.text(one.at("cc"), "x");
  const Tool tool(hasher, "", "send");
  ArgumentKeys keys;
  keys.set(hasher, tool, {one.facts.begin(), one.facts.size()});
  ASSERT_EQ(keys.size(), 4U);
  EXPECT_FALSE(keys.begin()[0].again);
  EXPECT_TRUE(keys.begin()[1].again);
  EXPECT_TRUE(keys.begin()[2].again);
  EXPECT_FALSE(keys.begin()[3].again) << "another place";
  EXPECT_NE(keys.begin()[3].known, keys.begin()[0].known) << "a value means something at its place only";
}

TEST(ArgumentFacts, IdentitiesAreTheSameWhereverTheyStandAndWhateverTool) {
  const Hasher hasher(kKey);
  Writing one(hasher);
  one.text(one.at("to"), "bob@example.com").text(one.at("cc"), "bob@example.com");
  const Tool send(hasher, "", "send"), reply(hasher, "", "reply");
  ArgumentKeys keys, others;
  keys.set(hasher, send, {one.facts.begin(), one.facts.size()});
  others.set(hasher, reply, {one.facts.begin(), one.facts.size()});
  EXPECT_EQ(keys.begin()[0].known, keys.begin()[2].known);
  EXPECT_NE(keys.begin()[0].place, keys.begin()[2].place);
  EXPECT_EQ(keys.begin()[0].known, others.begin()[0].known);
  EXPECT_NE(keys.begin()[0].place, others.begin()[0].place);
}

TEST(ArgumentFacts, ACopyIsWhatWasThere) {
  const Hasher hasher(kKey);
  Writing one(hasher);
  one.text(one.at("to"), "bob@example.com");
  const ArgumentFacts copy = one.facts;
  ASSERT_EQ(copy.size(), 2U);
  EXPECT_EQ(copy[1].value, one.facts[1].value);
  one.facts.clear();
  EXPECT_EQ(one.facts.size(), 0U);
  EXPECT_EQ(copy.size(), 2U);
}

TEST(ArgumentFacts, OnlyWhatIsAHostIsRecordedInClear) {
  const Hasher hasher(kKey);
  Writing one(hasher);
  one.text(one.at("a"), "http://user:secret word@x y/").text(one.at("b"), "https://a b.example/secret");
  EXPECT_TRUE(one.destinations.empty());
  EXPECT_EQ(one.facts.size(), 2U) << "new destinations all the same";
}

TEST(ArgumentFacts, AsTextAndBack) {
  const Hasher hasher(kKey);
  Writing one(hasher);
  one.text(one.at("to"), "bob@example.com").integer(one.at("n"), 5).text(one.at("q"), "x");
  const std::string text = to_text({one.facts.begin(), one.facts.size()});
  const auto back = facts_from(text);
  ASSERT_TRUE(back);
  ASSERT_EQ(back->size(), one.facts.size());
  for (std::size_t i = 0; i < back->size(); ++i) {
    EXPECT_EQ((*back)[i].place, one.facts[i].place) << i;
    EXPECT_EQ((*back)[i].value, one.facts[i].value) << i;
    EXPECT_EQ((*back)[i].kind, one.facts[i].kind) << i;
    EXPECT_EQ((*back)[i].second, one.facts[i].second) << i;
  }
  EXPECT_TRUE(facts_from("")->empty());
  EXPECT_EQ(to_text(*facts_from("value 0000000000000001 00000000000000ff")),
            "value 0000000000000001 00000000000000ff");
  for (const char* wrong :
       {"value", "value 1 2", "thing 0000000000000001 00000000000000ff",
        "value 0000000000000001 00000000000000fg", "value 0000000000000001  0000000000000ff",
        "value 000000000000000100000000000000ff", "value+ 0000000000000001 00000000000000ff", ";",
        "value 0000000000000001 00000000000000ff0"})
    EXPECT_FALSE(facts_from(wrong)) << wrong;
  std::string many;
  for (std::size_t i = 0; i <= ArgumentFacts::kMost; ++i) many += "value 0000000000000001 00000000000000ff;";
  EXPECT_FALSE(facts_from(many));
}

}  // namespace
}  // namespace tool_firewall
