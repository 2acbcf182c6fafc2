// SPDX-License-Identifier: Apache-2.0
// Keyed hashing, the only kind used here.
//
// Text that a caller can choose (user, tool, session names) goes through SipHash-2-4 with a secret key, so
// nobody outside can make names collide. Numbers made from such hashes are combined with XXH3 under a secret
// seed, which is a few times faster. Both depend on the installation's key alone: two processes with one key
// build equal tables.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace tool_firewall {

class Hasher {
 public:
  // `secret` must hold at least 32 bytes; throws std::invalid_argument otherwise. It is not kept.
  explicit Hasher(std::span<const unsigned char> secret);

  // Hash of one text, or of several kept apart ("ab","c" differs from "a","bc").
  std::uint64_t text(std::string_view a) const;
  std::uint64_t text(std::string_view a, std::string_view b) const;

  // Combines hashes; `kind` separates the uses of one pair of values.
  std::uint64_t pair(std::uint64_t kind, std::uint64_t a, std::uint64_t b = 0) const;

  // Seed for bulk hashing (text/arguments_digest.h).
  std::uint64_t seed() const { return seed_; }

 private:
  std::array<unsigned char, 16> sip_key_{};
  std::uint64_t seed_ = 0;
};

}  // namespace tool_firewall
