// SPDX-License-Identifier: Apache-2.0
// The chain of digests that shows whether a stored record was altered, removed, inserted or reordered:
//
//   d_i = BLAKE2b-128(key; d_{i-1} | cursor of the pack, u64 | position in the pack, u32 | record)
//
// d_0 is zero. The key is derived from the installation's key: whoever has that can forge a chain, nobody
// else. What was cut off at the end shows only against a digest that somebody kept outside.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace tool_firewall {

class Chain {
 public:
  static constexpr std::size_t kDigestBytes = 16;
  using Digest = std::array<unsigned char, kDigestBytes>;

  // `secret`: the installation's key, at least 32 bytes; throws std::invalid_argument otherwise.
  explicit Chain(std::span<const unsigned char> secret);

  // The digests of a pack's records, one after the other; the last is `previous` for the next pack. Throws
  // RecordError when the pack is damaged.
  std::string link(const Digest& previous, std::uint64_t cursor, std::string_view pack) const;

 private:
  std::array<unsigned char, 32> key_{};
};

}  // namespace tool_firewall
