// SPDX-License-Identifier: Apache-2.0
// A keyed digest of a call's arguments that does not depend on the order of keys, made in one pass without
// copying.
//
// Every leaf hashes its path, its type and its value (XXH3, secret seed); the 128-bit hashes are added up,
// and the sum goes through SipHash with the secret key, so the digest of a value says nothing without the
// installation's key.
#pragma once

#include <cstddef>
#include <cstdint>

#include "text/hash.h"

namespace tool_firewall {

// Limits of what is inspected. Cyclic values run into the depth, shared ones into the size.
inline constexpr int kMostDepth = 64;
inline constexpr std::size_t kMostBytes = 1U << 20;  // text bytes, plus kNodeBytes for each key and value
inline constexpr std::size_t kNodeBytes = 8;

class ArgumentsDigest {
 public:
  using Path = std::uint64_t;
  static constexpr Path kRoot = 0;

  explicit ArgumentsDigest(const Hasher& hasher) : hasher_(hasher) {}

  // False once the size limit is passed: stop walking.
  bool spend(std::size_t bytes) {
    spent_ += bytes + kNodeBytes;
    return spent_ <= kMostBytes;
  }

  Path member(Path parent, const void* key, std::size_t size) const;  // of an object
  Path element(Path parent, std::size_t index) const;                 // of a list
  void leaf(Path path, char type, const void* data, std::size_t size);

  std::uint64_t result() const;

 private:
  const Hasher& hasher_;
  std::size_t spent_ = 0;
  std::uint64_t low_ = 0;
  std::uint64_t high_ = 0;
};

}  // namespace tool_firewall
