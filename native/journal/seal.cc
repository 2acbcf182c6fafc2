// SPDX-License-Identifier: Apache-2.0
#include "journal/seal.h"

#include <sodium.h>

#include "text/subkey.h"

namespace tool_firewall {
namespace {

constexpr std::string_view kPurpose = "cpex-tool-firewall snapshot 1";
constexpr std::string_view kFingerprint = "fingerprint";

const unsigned char* bytes_of(const char* data) { return reinterpret_cast<const unsigned char*>(data); }

}  // namespace

Seal::Seal(std::span<const unsigned char> secret) { derive(key_, kPurpose, secret); }

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
