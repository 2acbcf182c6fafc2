// SPDX-License-Identifier: Apache-2.0
// How the parts of an engine write themselves into a snapshot and read themselves back: little endian, fields
// one after the other. Where the two directions do not differ, one template serves both: io(a, b, c) writes
// through a StateWriter and reads through a StateReader.
//
// A reader trusts nothing: a snapshot whose checksum is right may still come from a faulty release. It throws
// SnapshotError for whatever does not fit and never reads beyond its bytes.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace tool_firewall {

// A snapshot that cannot be used; the text says why, for people.
struct SnapshotError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class StateWriter {
 public:
  template <class... Fields>
  void operator()(const Fields&... fields) {
    (put(fields), ...);
  }
  void raw(std::string_view bytes) { bytes_.append(bytes); }
  void reserve(std::size_t bytes) { bytes_.reserve(bytes); }

  // Room for `size` bytes, for the caller to fill before the next use of this object.
  char* grow(std::size_t size) {
    bytes_.resize(bytes_.size() + size);
    return bytes_.data() + bytes_.size() - size;
  }

  std::size_t size() const { return bytes_.size(); }
  std::string& bytes() { return bytes_; }

 private:
  template <class T>
  void put(const T& value) {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  template <class T, std::size_t N>
  void put(const std::array<T, N>& values) {
    for (const T& value : values) put(value);
  }
  void put(const std::string& text) {
    put(static_cast<std::uint32_t>(text.size()));
    raw(text);
  }

  std::string bytes_;
};

class StateReader {
 public:
  // `version`: of the format; parts that changed since an older one ask for it. The bytes must outlive this.
  StateReader(std::string_view bytes, std::uint16_t version) : left_(bytes), version_(version) {}

  std::uint16_t version() const { return version_; }

  // Throws SnapshotError for floating-point numbers that are infinite or none.
  template <class... Fields>
  void operator()(Fields&... fields) {
    (get(fields), ...);
  }
  template <class T>
  T number() {
    T value;
    get(value);
    return value;
  }
  std::string text() { return number<std::string>(); }

  // An enum; `last` is the largest value there is.
  template <class T>
  T choice(T last) {
    const auto value = number<std::underlying_type_t<T>>();
    if (value > static_cast<std::underlying_type_t<T>>(last)) wrong("value out of range");
    return static_cast<T>(value);
  }

  // A number of things that take at least `each` bytes, so that a wrong one cannot ask for endless memory.
  std::size_t count(std::size_t each) {
    const std::size_t value = number<std::uint32_t>();
    if (value > left_.size() / each) wrong("more entries than bytes");
    return value;
  }

  std::string_view raw(std::size_t size) {
    if (size > left_.size()) wrong("cut short");
    const std::string_view bytes = left_.substr(0, size);
    left_.remove_prefix(size);
    return bytes;
  }
  void end() const {
    if (!left_.empty()) wrong("more bytes than entries");
  }

  [[noreturn]] static void wrong(const std::string& what) { throw SnapshotError("damaged: " + what); }

 private:
  template <class T>
  void get(T& value) {
    static_assert(std::is_arithmetic_v<T>);
    if constexpr (std::is_same_v<T, bool>) {
      value = number<std::uint8_t>() != 0;
    } else {
      std::memcpy(&value, raw(sizeof value).data(), sizeof value);
      if constexpr (std::is_floating_point_v<T>)
        if (!std::isfinite(value)) wrong("not a number");
    }
  }
  template <class T, std::size_t N>
  void get(std::array<T, N>& values) {
    for (T& value : values) get(value);
  }
  void get(std::string& text) { text = raw(number<std::uint32_t>()); }

  std::string_view left_;
  std::uint16_t version_;
};

}  // namespace tool_firewall
