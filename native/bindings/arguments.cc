// SPDX-License-Identifier: Apache-2.0
#include "bindings/arguments.h"

#include <cmath>

#include "text/argument_reader.h"

namespace py = pybind11;

namespace tool_firewall {
namespace {

using Path = ArgumentReader::Path;

class Walk {
 public:
  Walk(const Hasher& hasher, ArgumentFacts& facts, std::vector<std::string>& destinations)
      : reader_(hasher, facts, destinations) {}

  Inspection value(PyObject* object, const Path& path, int depth) {
    if (depth > kMostDepth) return Inspection::kTooDeep;
    if (PyUnicode_Check(object)) return text(object, path);
    if (object == Py_None) {
      if (!reader_.spend(0)) return Inspection::kTooLarge;
      reader_.nothing(path);
      return Inspection::kInspected;
    }
    if (PyBool_Check(object)) {
      if (!reader_.spend(0)) return Inspection::kTooLarge;
      reader_.truth(path, object == Py_True);
      return Inspection::kInspected;
    }
    if (PyLong_Check(object)) return integer(object, path);
    if (PyFloat_Check(object)) {
      const double value = PyFloat_AS_DOUBLE(object);
      return number(path, 'd', &value, sizeof value, value);
    }
    if (PyDict_Check(object)) return members(object, path, depth);
    if (PyList_Check(object)) {
      // The size is read anew each time: another thread cannot run here, but a list may contain itself.
      for (Py_ssize_t i = 0; i < PyList_GET_SIZE(object); ++i)
        if (const Inspection found = element(PyList_GET_ITEM(object, i), path, i, depth);
            found != Inspection::kInspected)
          return found;
      return end(path, 'l');
    }
    if (PyTuple_Check(object)) {
      for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object); ++i)
        if (const Inspection found = element(PyTuple_GET_ITEM(object, i), path, i, depth);
            found != Inspection::kInspected)
          return found;
      return end(path, 'l');
    }
    return Inspection::kWrongType;
  }

  std::uint64_t digest() const { return reader_.result(); }

 private:
  // UTF-8 of a text, lone surrogates kept. CPython keeps that of ASCII text ready, and of other text from the
  // first time on.
  class Utf8 {
   public:
    explicit Utf8(PyObject* text) {
      Py_ssize_t size = 0;
      const char* data = PyUnicode_AsUTF8AndSize(text, &size);
      if (data == nullptr) {
        PyErr_Clear();
        made_ = py::reinterpret_steal<py::object>(PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass"));
        if (!made_) throw py::error_already_set();
        data = PyBytes_AS_STRING(made_.ptr());
        size = PyBytes_GET_SIZE(made_.ptr());
      }
      view_ = {data, static_cast<std::size_t>(size)};
    }
    std::string_view view() const { return view_; }

   private:
    py::object made_;
    std::string_view view_;
  };

  // Before its UTF-8 is made: an endless text must not be copied to learn that it is too long.
  bool spend(PyObject* text) { return reader_.spend(static_cast<std::size_t>(PyUnicode_GET_LENGTH(text))); }

  Inspection number(const Path& path, char type, const void* data, std::size_t size, double value) {
    if (!reader_.spend(size)) return Inspection::kTooLarge;
    reader_.number(path, type, data, size, value);
    return Inspection::kInspected;
  }

  Inspection end(const Path& path, char type) {
    if (!reader_.spend(0)) return Inspection::kTooLarge;
    reader_.structure(path, type);
    return Inspection::kInspected;
  }

  Inspection text(PyObject* object, const Path& path) {
    if (!spend(object)) return Inspection::kTooLarge;
    reader_.text(path, Utf8(object).view());
    return Inspection::kInspected;
  }

  Inspection integer(PyObject* object, const Path& path) {
    int overflow = 0;
    const long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow == 0) return number(path, 'i', &value, sizeof value, static_cast<double>(value));
    if (overflow > 0) {
      const unsigned long long large = PyLong_AsUnsignedLongLong(object);
      if (PyErr_Occurred() == nullptr)
        return number(path, 'I', &large, sizeof large, static_cast<double>(large));
      PyErr_Clear();
    }
    // Hexadecimal, because decimal digits of a huge integer cost quadratic time.
    const py::object digits = py::reinterpret_steal<py::object>(PyNumber_ToBase(object, 16));
    if (!digits) {
      PyErr_Clear();
      return Inspection::kWrongType;
    }
    if (!spend(digits.ptr())) return Inspection::kTooLarge;
    const Utf8 text(digits.ptr());
    double size = PyLong_AsDouble(object);
    if (size == -1 && PyErr_Occurred() != nullptr) {
      PyErr_Clear();
      size = overflow > 0 ? HUGE_VAL : -HUGE_VAL;
    }
    reader_.number(path, 'I', text.view().data(), text.view().size(), size);
    return Inspection::kInspected;
  }

  Inspection members(PyObject* dict, const Path& path, int depth) {
    PyObject* key = nullptr;
    PyObject* member = nullptr;
    Py_ssize_t position = 0;
    while (PyDict_Next(dict, &position, &key, &member) != 0) {
      if (!PyUnicode_Check(key)) return Inspection::kWrongType;
      if (!spend(key)) return Inspection::kTooLarge;
      const Inspection found = value(member, reader_.member(path, Utf8(key).view()), depth + 1);
      if (found != Inspection::kInspected) return found;
    }
    return end(path, 'o');
  }

  Inspection element(PyObject* object, const Path& path, Py_ssize_t index, int depth) {
    return value(object, reader_.element(path, static_cast<std::size_t>(index)), depth + 1);
  }

  ArgumentReader reader_;
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
  Arguments out;
  if (!args.is_none() && !PyDict_Check(args.ptr())) {
    out.inspection = Inspection::kWrongType;
    return out;
  }
  Walk walk(hasher, out.facts, out.destinations);
  out.inspection = walk.value(args.ptr(), {}, 0);
  if (out.inspection == Inspection::kInspected) {
    out.digest = walk.digest();
  } else {
    out.facts.clear();
    out.destinations.clear();
  }
  return out;
}

}  // namespace tool_firewall
