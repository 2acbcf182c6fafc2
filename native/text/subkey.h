// SPDX-License-Identifier: Apache-2.0
// Keys for single purposes, made from the installation's one key: whoever learns one of them learns nothing
// of the others.
#pragma once

#include <span>
#include <string_view>

namespace tool_firewall {

// Fills `out` (16 to 64 bytes) with BLAKE2b of `purpose` keyed with `secret`, of which the first 64 bytes
// count. Throws std::invalid_argument when `secret` has less than 32 bytes.
void derive(std::span<unsigned char> out, std::string_view purpose, std::span<const unsigned char> secret);

}  // namespace tool_firewall
