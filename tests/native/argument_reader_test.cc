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

}  // namespace
}  // namespace tool_firewall
