// SPDX-License-Identifier: Apache-2.0
#include "journal/seal.h"

#include <sodium.h>

#include <algorithm>
#include <stdexcept>

namespace tool_firewall {
namespace {

constexpr std::string_view kPurpose = "cpex-tool-firewall snapshot 1";
constexpr std::string_view kFingerprint = "fingerprint";
constexpr std::size_t kLeastSecret = 32;

const unsigned char* bytes_of(const char* data) { return reinterpret_cast<const unsigned char*>(data); }

}  // namespace

Seal::Seal(std::span<const unsigned char> secret) {
  if (secret.size() < kLeastSecret) throw std::invalid_argument("key: must be at least 32 bytes");
  crypto_generichash(key_.data(), key_.size(), bytes_of(kPurpose.data()), kPurpose.size(), secret.data(),
                     std::min<std::size_t>(secret.size(), crypto_generichash_KEYBYTES_MAX));
}

Seal::Sum Seal::of(std::string_view bytes) const {
  Sum sum{};
  crypto_generichash(reinterpret_cast<unsigned char*>(sum.data()), sum.size(), bytes_of(bytes.data()),
                     bytes.size(), key_.data(), key_.size());
  return sum;
}

Seal::Fingerprint Seal::fingerprint() const {
  Fingerprint fingerprint{};
  crypto_generichash(reinterpret_cast<unsigned char*>(fingerprint.data()), fingerprint.size(),
                     bytes_of(kFingerprint.data()), kFingerprint.size(), key_.data(), key_.size());
  return fingerprint;
}

}  // namespace tool_firewall
