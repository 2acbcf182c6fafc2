// SPDX-License-Identifier: Apache-2.0
#include "text/subkey.h"

#include <sodium.h>

#include <algorithm>
#include <stdexcept>

namespace tool_firewall {
namespace {

constexpr std::size_t kLeastSecret = 32;

}  // namespace

void derive(std::span<unsigned char> out, std::string_view purpose, std::span<const unsigned char> secret) {
  if (secret.size() < kLeastSecret) throw std::invalid_argument("key: must be at least 32 bytes");
  crypto_generichash(out.data(), out.size(), reinterpret_cast<const unsigned char*>(purpose.data()),
                     purpose.size(), secret.data(),
                     std::min<std::size_t>(secret.size(), crypto_generichash_KEYBYTES_MAX));
}

}  // namespace tool_firewall
