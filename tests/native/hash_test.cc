// SPDX-License-Identifier: Apache-2.0
#include "text/hash.h"

#include <gtest/gtest.h>

#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "lab.h"

namespace tool_firewall {
namespace {

TEST(Hasher, IsSipHash24UnderAKeyDerivedByBlake2b) {
  // From an independent implementation: hashlib.blake2b("cpex-tool-firewall engine 1", digest_size=24,
  // key=1..32), its first 16 bytes as the key of SipHash-2-4, the other 8 as the seed. Journals depend on it:
  // never change.
  const Hasher hasher(kKey);
  EXPECT_EQ(hasher.text(""), 0xb6236e3784d72d4fULL);
  EXPECT_EQ(hasher.text("alice@example.com"), 0x5c0b84fd4880a3d8ULL);
  EXPECT_EQ(hasher.text("Zo\xc3\xab"), 0x1156b1e81cb8f807ULL);
  EXPECT_EQ(hasher.seed(), 0xade4290247b010bbULL);
}

TEST(Hasher, NeedsAWholeKey) {
  const std::vector<unsigned char> bytes(100, 7);
  for (const std::size_t size : {0U, 1U, 31U})
    EXPECT_THROW(Hasher(std::span(bytes.data(), size)), std::invalid_argument) << size;
  for (const std::size_t size : {32U, 64U, 100U})
    EXPECT_NO_THROW(Hasher(std::span(bytes.data(), size))) << size;
}

TEST(Hasher, OneBitOfTheKeyChangesEverything) {
  auto other = kKey;
  other[31] ^= 1;
  const Hasher a(kKey), b(other);
  EXPECT_NE(a.text("alice"), b.text("alice"));
  EXPECT_NE(a.seed(), b.seed());
  EXPECT_NE(a.pair(1, 2, 3), b.pair(1, 2, 3));
}

TEST(Hasher, KeepsTheirPartsApart) {
  const Hasher hasher(kKey);
  std::set<std::uint64_t> seen;
  const std::vector<std::pair<std::string, std::string>> pairs = {
      {"ab", "c"}, {"a", "bc"}, {"abc", ""}, {"", "abc"}, {"c", "ab"}, {std::string("ab\0", 3), "c"},
      {"", ""}};
  for (const auto& [a, b] : pairs) EXPECT_TRUE(seen.insert(hasher.text(a, b)).second) << a << '|' << b;
  for (std::uint64_t kind = 0; kind < 50; ++kind)
    for (std::uint64_t a = 0; a < 20; ++a)
      EXPECT_TRUE(seen.insert(hasher.pair(kind, a, 7)).second) << kind << ' ' << a;
  EXPECT_NE(hasher.pair(1, 2, 3), hasher.pair(1, 3, 2));
}

}  // namespace
}  // namespace tool_firewall
