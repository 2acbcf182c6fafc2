// SPDX-License-Identifier: Apache-2.0
#include "journal/pack.h"

#include <cstdint>
#include <cstring>

namespace tool_firewall {

void Pack::add(RecordClass its_class, std::string_view record) {
  worth = its_class;
  ++count;
  const auto size = static_cast<std::uint32_t>(record.size());
  bytes.append(reinterpret_cast<const char*>(&size), sizeof size);
  bytes.append(record);
}

bool PackReader::next(std::string_view& record) {
  if (left_.empty()) return false;
  std::uint32_t size = 0;
  if (left_.size() < sizeof size) throw RecordError("pack: cut short");
  std::memcpy(&size, left_.data(), sizeof size);
  left_.remove_prefix(sizeof size);
  if (left_.size() < size) throw RecordError("pack: cut short");
  record = left_.substr(0, size);
  left_.remove_prefix(size);
  return true;
}

}  // namespace tool_firewall
