// SPDX-License-Identifier: Apache-2.0
#include "text/hash.h"

#include <sodium.h>

#include <cstring>

#include "text/subkey.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace tool_firewall {
namespace {

constexpr std::string_view kPurpose = "cpex-tool-firewall engine 1";

std::uint64_t sip(const std::array<unsigned char, 16>& key, const void* data, std::size_t size) {
  std::uint64_t out = 0;
  static_assert(sizeof out == crypto_shorthash_BYTES);
  crypto_shorthash(reinterpret_cast<unsigned char*>(&out), static_cast<const unsigned char*>(data), size,
                   key.data());
  return out;
}

}  // namespace

Hasher::Hasher(std::span<const unsigned char> secret) {
  std::array<unsigned char, 24> derived{};
  derive(derived, kPurpose, secret);
  std::memcpy(sip_key_.data(), derived.data(), sip_key_.size());
  std::memcpy(&seed_, derived.data() + sip_key_.size(), sizeof seed_);
}

std::uint64_t Hasher::text(std::string_view a) const { return sip(sip_key_, a.data(), a.size()); }

std::uint64_t Hasher::text(std::string_view a, std::string_view b) const { return pair(0, text(a), text(b)); }

std::uint64_t Hasher::pair(std::uint64_t kind, std::uint64_t a, std::uint64_t b) const {
  const std::uint64_t both[2] = {a, b};
  return XXH3_64bits_withSeed(both, sizeof both, seed_ + kind);
}

}  // namespace tool_firewall
