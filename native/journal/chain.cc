// SPDX-License-Identifier: Apache-2.0
#include "journal/chain.h"

#include <sodium.h>

#include "journal/pack.h"
#include "text/subkey.h"

namespace tool_firewall {
namespace {

constexpr std::string_view kPurpose = "cpex-tool-firewall chain 1";

const unsigned char* bytes_of(const auto* data) { return reinterpret_cast<const unsigned char*>(data); }

}  // namespace

Chain::Chain(std::span<const unsigned char> secret) { derive(key_, kPurpose, secret); }

std::string Chain::link(const Digest& previous, std::uint64_t cursor, std::string_view pack) const {
  std::string digests;
  Digest digest = previous;
  PackReader records(pack);
  std::string_view record;
  for (std::uint32_t position = 0; records.next(record); ++position) {
    crypto_generichash_state state;
    crypto_generichash_init(&state, key_.data(), key_.size(), digest.size());
    crypto_generichash_update(&state, digest.data(), digest.size());
    crypto_generichash_update(&state, bytes_of(&cursor), sizeof cursor);
    crypto_generichash_update(&state, bytes_of(&position), sizeof position);
    crypto_generichash_update(&state, bytes_of(record.data()), record.size());
    crypto_generichash_final(&state, digest.data(), digest.size());
    digests.append(reinterpret_cast<const char*>(digest.data()), digest.size());
  }
  return digests;
}

}  // namespace tool_firewall
