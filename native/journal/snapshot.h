// SPDX-License-Identifier: Apache-2.0
// Everything an engine has learned, as bytes. A fresh engine of the same key and settings that restores them
// and then reads the journal from there on gives the same scores, to the last bit, as one that has read the
// whole journal. The same state always gives the same bytes.
//
//   0   magic, 8 bytes | u32 byte order | u16 format | u16 zero
//   16  u64 size in bytes, all of it
//   24  fingerprint of the key, 16 bytes
//   40  label (u32 length + text)
//       sections, each u32 name + u64 length + content: see snapshot_format.h
//       Seal (seal.h) over everything before, 32 bytes
//
// The first 16 bytes stay what they are in every format, so that each release can tell what it cannot read.
// An older format is read as long as kOldestFormat says so; tests/native/data holds one file of each.
//
// What happens when settings changed since:
//   half-life          counts keep what they are worth at the newest time and fade with the new one from
//   there time zones         each user's zone is the one set now; hours learned before stay as they are burst
//   threshold    see burst.cc users per tenant   when there are too many, those go who would be evicted next
// Format 1 had nothing of arguments, of how calls end, or of what signals keep of a session.
// A signal, or channel, that this release does not know is left out; one the snapshot does not know starts
// empty. The counters of the process (Engine::Counts) are not part of it, apart from the verdicts by
// decision.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "behavior/state_io.h"
#include "engine/engine.h"

namespace tool_firewall {

inline constexpr std::uint16_t kSnapshotFormat = 2;
inline constexpr std::uint16_t kOldestSnapshotFormat = 1;
inline constexpr std::size_t kLongestLabel = 4096;  // bytes

// `label`: whatever the caller wants to find again. Throws std::invalid_argument when it is too long.
std::string take_snapshot(const Engine& engine, std::string_view label);

// Into an engine that has not seen or applied anything. Returns the label. Throws SnapshotError when the
// snapshot is damaged, of a newer release, of another key or of another kind of machine, and
// std::invalid_argument when the engine is not fresh; the engine is then as it was.
std::string restore_snapshot(Engine& engine, std::string_view snapshot);

// Without the key, so unchecked: whoever can write the file can choose it. Throws SnapshotError.
std::string snapshot_label(std::string_view snapshot);

}  // namespace tool_firewall
