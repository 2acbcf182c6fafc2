// SPDX-License-Identifier: Apache-2.0
// A pack: what a journal stores as one piece, so that storing and reading cost little per record. Records of
// one class, each as u32 length + bytes, little endian; at most kMostInPack of them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "journal/record.h"

namespace tool_firewall {

struct Pack {
  static constexpr std::size_t kMost = 256;  // records
  RecordClass worth = RecordClass::kOrdinary;
  std::size_t count = 0;
  std::string bytes;

  bool takes(RecordClass another) const { return count == 0 || (worth == another && count < kMost); }
  void add(RecordClass its_class, std::string_view record);
};

// The records of a pack, one after the other; the views live as long as the bytes. Knows nothing of what is
// in a record.
class PackReader {
 public:
  explicit PackReader(std::string_view bytes) : left_(bytes) {}

  // False at the end. Throws RecordError when the pack is cut short.
  bool next(std::string_view& record);

 private:
  std::string_view left_;
};

}  // namespace tool_firewall
