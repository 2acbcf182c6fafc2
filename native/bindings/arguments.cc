// SPDX-License-Identifier: Apache-2.0
#include "bindings/arguments.h"

#include "text/arguments_digest.h"

namespace py = pybind11;

namespace tool_firewall {
namespace {

class Walk {
 public:
  explicit Walk(const Hasher& hasher) : digest_(hasher) {}

  Inspection value(PyObject* object, ArgumentsDigest::Path path, int depth) {
    if (depth > kMostDepth) return Inspection::kTooDeep;
    if (PyUnicode_Check(object)) return text(object, path);
    if (object == Py_None) return leaf(path, 'n', nullptr, 0);
    if (PyBool_Check(object)) return leaf(path, object == Py_True ? 't' : 'f', nullptr, 0);
    if (PyLong_Check(object)) return integer(object, path);
    if (PyFloat_Check(object)) {
      const double number = PyFloat_AS_DOUBLE(object);
      return leaf(path, 'd', &number, sizeof number);
    }
    if (PyDict_Check(object)) return members(object, path, depth);
    if (PyList_Check(object)) {
      // The size is read anew each time: another thread cannot run here, but a list may contain itself.
      for (Py_ssize_t i = 0; i < PyList_GET_SIZE(object); ++i)
        if (const Inspection found = element(PyList_GET_ITEM(object, i), path, i, depth);
            found != Inspection::kInspected)
          return found;
      return leaf(path, 'l', nullptr, 0);
    }
    if (PyTuple_Check(object)) {
      for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object); ++i)
        if (const Inspection found = element(PyTuple_GET_ITEM(object, i), path, i, depth);
            found != Inspection::kInspected)
          return found;
      return leaf(path, 'l', nullptr, 0);
    }
    return Inspection::kWrongType;
  }

  std::uint64_t digest() const { return digest_.result(); }

 private:
  struct Bytes {
    const void* data;
    std::size_t size;
  };
  static Bytes bytes_of(PyObject* text) {
    return {PyUnicode_DATA(text), static_cast<std::size_t>(PyUnicode_GET_LENGTH(text)) *
                                      static_cast<std::size_t>(PyUnicode_KIND(text))};
  }

  Inspection leaf(ArgumentsDigest::Path path, char type, const void* data, std::size_t size) {
    if (!digest_.spend(size)) return Inspection::kTooLarge;
    digest_.leaf(path, type, data, size);
    return Inspection::kInspected;
  }

  Inspection text(PyObject* object, ArgumentsDigest::Path path) {
    const Bytes bytes = bytes_of(object);
    return leaf(path, 's', bytes.data, bytes.size);
  }

  Inspection integer(PyObject* object, ArgumentsDigest::Path path) {
    int overflow = 0;
    const long long number = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow == 0) return leaf(path, 'i', &number, sizeof number);
    // Hexadecimal, because decimal digits of a huge integer cost quadratic time.
    const py::object digits = py::reinterpret_steal<py::object>(PyNumber_ToBase(object, 16));
    if (!digits) {
      PyErr_Clear();
      return Inspection::kWrongType;
    }
    const Bytes bytes = bytes_of(digits.ptr());
    return leaf(path, 'I', bytes.data, bytes.size);
  }

  Inspection members(PyObject* dict, ArgumentsDigest::Path path, int depth) {
    PyObject* key = nullptr;
    PyObject* member = nullptr;
    Py_ssize_t position = 0;
    while (PyDict_Next(dict, &position, &key, &member) != 0) {
      if (!PyUnicode_Check(key)) return Inspection::kWrongType;
      const Bytes bytes = bytes_of(key);
      if (!digest_.spend(bytes.size)) return Inspection::kTooLarge;
      const Inspection found = value(member, digest_.member(path, bytes.data, bytes.size), depth + 1);
      if (found != Inspection::kInspected) return found;
    }
    return leaf(path, 'o', nullptr, 0);
  }

  Inspection element(PyObject* object, ArgumentsDigest::Path path, Py_ssize_t index, int depth) {
    return value(object, digest_.element(path, static_cast<std::size_t>(index)), depth + 1);
  }

  ArgumentsDigest digest_;
};

}  // namespace

Text::Text(py::handle value) {
  if (!PyUnicode_Check(value.ptr()))
    throw py::type_error("expected str, got " + std::string(Py_TYPE(value.ptr())->tp_name));
  Py_ssize_t size = 0;
  if (const char* data = PyUnicode_AsUTF8AndSize(value.ptr(), &size)) {
    view_ = {data, static_cast<std::size_t>(size)};
    return;
  }
  PyErr_Clear();
  const py::object bytes =
      py::reinterpret_steal<py::object>(PyUnicode_AsEncodedString(value.ptr(), "utf-8", "surrogatepass"));
  if (!bytes) throw py::error_already_set();
  owned_ = bytes.cast<std::string>();
  view_ = owned_;
}

py::str to_python(std::string_view text) {
  PyObject* made = PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "surrogatepass");
  if (made == nullptr) {
    // A name that was cut in the middle of a character.
    PyErr_Clear();
    made = PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace");
  }
  if (made == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(made);
}

Arguments inspect(py::handle args, const Hasher& hasher) {
  if (!args.is_none() && !PyDict_Check(args.ptr())) return {Inspection::kWrongType, 0};
  Walk walk(hasher);
  const Inspection found = walk.value(args.ptr(), ArgumentsDigest::kRoot, 0);
  return {found, found == Inspection::kInspected ? walk.digest() : 0};
}

}  // namespace tool_firewall
