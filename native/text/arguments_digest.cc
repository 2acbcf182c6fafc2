// SPDX-License-Identifier: Apache-2.0
#include "text/arguments_digest.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <string_view>

namespace tool_firewall {

ArgumentsDigest::Path ArgumentsDigest::member(Path parent, const void* key, std::size_t size) const {
  return XXH3_64bits_withSeed(key, size, hasher_.seed() ^ parent) + 1;
}

ArgumentsDigest::Path ArgumentsDigest::element(Path parent, std::size_t index) const {
  return hasher_.pair('[', parent, index);
}

void ArgumentsDigest::leaf(Path path, char type, const void* data, std::size_t size) {
  const XXH128_hash_t hash =
      XXH3_128bits_withSeed(data, size, hasher_.seed() + path * 31 + static_cast<unsigned char>(type));
  low_ += hash.low64;
  high_ += hash.high64;
}

std::uint64_t ArgumentsDigest::result() const {
  const std::uint64_t sums[2] = {low_, high_};
  return hasher_.text({reinterpret_cast<const char*>(sums), sizeof sums});
}

}  // namespace tool_firewall
