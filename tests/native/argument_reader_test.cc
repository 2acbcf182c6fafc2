// SPDX-License-Identifier: Apache-2.0
#include "text/arguments_digest.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <string>
#include <string_view>

#include "lab.h"

namespace tool_firewall {
namespace {

class Writing {
 public:
  explicit Writing(const Hasher& hasher) : digest_(hasher) {}
  ArgumentsDigest::Path at(std::string_view key,
                           ArgumentsDigest::Path parent = ArgumentsDigest::kRoot) const {
    return digest_.member(parent, key.data(), key.size());
  }
  Writing& text(ArgumentsDigest::Path path, std::string_view value) {
    digest_.leaf(path, 's', value.data(), value.size());
    return *this;
  }
  Writing& integer(ArgumentsDigest::Path path, std::int64_t value, char type = 'i') {
    digest_.leaf(path, type, &value, sizeof value);
    return *this;
  }
  Writing& end(ArgumentsDigest::Path path, char type) {
    digest_.leaf(path, type, nullptr, 0);
    return *this;
  }
  ArgumentsDigest digest_;
};

TEST(ArgumentsDigest, DoesNotDependOnTheOrderOfKeys) {
  const Hasher hasher(kKey);
  Writing one(hasher), other(hasher);
  one.text(one.at("a"), "x").integer(one.at("b"), 5).end(ArgumentsDigest::kRoot, 'o');
  other.integer(other.at("b"), 5).text(other.at("a"), "x").end(ArgumentsDigest::kRoot, 'o');
  EXPECT_EQ(one.digest_.result(), other.digest_.result());
}

TEST(ArgumentsDigest, TellsApartWhatDiffers) {
  const Hasher hasher(kKey);
  struct Row {
    const char* name;
    std::function<void(Writing&)> write;
  };
  const auto index = [](Writing& w, std::size_t i) { return w.digest_.element(w.at("list"), i); };
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
    EXPECT_TRUE(seen.insert(writing.digest_.result()).second) << row.name;
  }
}

TEST(ArgumentsDigest, SaysNothingWithoutTheKey) {
  auto other_key = kKey;
  other_key[0] ^= 1;
  const Hasher hasher(kKey), other_hasher(other_key);
  Writing one(hasher), other(other_hasher);
  one.text(one.at("a"), "x");
  other.text(other.at("a"), "x");
  EXPECT_NE(one.digest_.result(), other.digest_.result());
}

TEST(ArgumentsDigest, StopsAtOneMebibyte) {
  const Hasher hasher(kKey);
  ArgumentsDigest exact(hasher);
  EXPECT_TRUE(exact.spend((1U << 20) - 8)) << "8 bytes a node are charged";
  EXPECT_FALSE(exact.spend(0));
  ArgumentsDigest many(hasher);
  int nodes = 0;
  while (many.spend(0)) ++nodes;
  EXPECT_EQ(nodes, (1 << 20) / 8) << "empty values are not free";
}

}  // namespace
}  // namespace tool_firewall
