// SPDX-License-Identifier: Apache-2.0
#include "bindings/screener.h"

#include <utility>

#include "bindings/arguments.h"

namespace py = pybind11;

namespace tool_firewall {
namespace {

void put(const py::handle& dict, const py::handle& key, const py::handle& value) {
  if (PyDict_SetItem(dict.ptr(), key.ptr(), value.ptr()) != 0) throw py::error_already_set();
}

py::object owned(PyObject* made) {
  if (made == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(made);
}

void set_slot(const py::handle& descriptor, PyObject* instance, const py::handle& value) {
  if (Py_TYPE(descriptor.ptr())->tp_descr_set(descriptor.ptr(), instance, value.ptr()) != 0)
    throw py::error_already_set();
}

class Screener {
 public:
  Screener(std::shared_ptr<Engine> engine, std::shared_ptr<InstancePolicy> policy, py::object make_result,
           py::str label, py::str handover, MetadataTemplates templates)
      : engine_(std::move(engine)),
        policy_(std::move(policy)),
        make_result_(std::move(make_result)),
        copier_(py::isinstance<ModelCopier>(make_result_) ? make_result_.cast<const ModelCopier*>()
                                                          : nullptr),
        label_(std::move(label)),
        handover_(std::move(handover)),
        templates_(std::move(templates)) {
    for (const SignalPtr& signal : engine_->model().signals()) names_.push_back(to_python(signal->name()));
  }

  py::object screen(py::handle caller, py::handle server, py::handle tool, py::handle args, double now,
                    py::handle state) const {
    const Text server_text(server);
    const Text tool_text(tool);
    const CallerPtr who = caller.cast<CallerPtr>();
    const Arguments arguments = inspect(args, engine_->hasher());
    Verdict verdict = engine_->check(*policy_, who, server_text.view(), tool_text.view(), arguments, now);
    if (PyObject_SetItem(state.ptr(), handover_.ptr(), py::int_(verdict.ticket).ptr()) != 0)
      throw py::error_already_set();
    if (verdict.decision == Decision::kDeny && verdict.mode != Mode::kLearning && !verdict.snoozed)
      return py::cast(PyVerdict{std::move(verdict), who, engine_,
                                arguments.destinations.empty() ? "" : arguments.destinations.front()});
    const py::object metadata = verdict.decision == Decision::kAllow ? ordinary(verdict) : notable(verdict);
    py::dict labelled;
    put(labelled, label_, metadata);
    return copier_ != nullptr ? copier_->copy(labelled) : make_result_(labelled);
  }

 private:
  py::object copied(const std::array<py::dict, 4>& templates, const Verdict& verdict) const {
    py::object metadata = owned(PyDict_Copy(templates[static_cast<std::size_t>(verdict.mode)].ptr()));
    put(metadata, risk_score_, py::float_(verdict.risk));
    return metadata;
  }
  py::object ordinary(const Verdict& verdict) const { return copied(templates_.ordinary, verdict); }
  py::object notable(const Verdict& verdict) const {
    py::object metadata = copied(templates_.notable, verdict);
    const py::bool_ yes(true);
    py::list names;
    if (verdict.inspection != Inspection::kInspected) {
      names.append(uninspectable_);
      put(metadata, uninspectable_, yes);
    }
    for (const Reason& reason : verdict.reasons) {
      names.append(names_[reason.signal]);
      put(metadata, names_[reason.signal], yes);
    }
    put(metadata, detection_types_, names);
    if (verdict.decision == Decision::kDeny) put(metadata, would_block_, yes);
    return metadata;
  }

  std::shared_ptr<Engine> engine_;
  std::shared_ptr<InstancePolicy> policy_;
  py::object make_result_;
  const ModelCopier* copier_;
  py::str label_;
  py::str handover_;
  MetadataTemplates templates_;
  std::vector<py::str> names_;
  py::str risk_score_{"risk_score"};
  py::str detection_types_{"detection_types"};
  py::str would_block_{"would_block"};
  py::str uninspectable_{"uninspectable"};
};

constexpr const char* kCapsule = "cpex_tool_firewall.screener";
constexpr Py_ssize_t kArguments = 6;

// Not through pybind11: its argument handling costs a fifth of the whole call.
PyObject* call_screener(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (count != kArguments) {
    PyErr_Format(PyExc_TypeError, "screen() takes %zd arguments, %zd given", kArguments, count);
    return nullptr;
  }
  const double now = PyFloat_AsDouble(args[4]);
  if (now == -1 && PyErr_Occurred() != nullptr) return nullptr;
  try {
    const auto* screener = static_cast<const Screener*>(PyCapsule_GetPointer(self, kCapsule));
    return screener->screen(args[0], args[1], args[2], args[3], now, args[5]).release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

PyMethodDef screen_method = {
    "screen", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&call_screener)), METH_FASTCALL,
    "screen(caller, server, tool, args, now, state) -> result or Verdict"};

}  // namespace

ModelCopier::ModelCopier(const py::object& model, py::str field, const py::iterable& lists)
    : type_(py::type::of(model)),
      fields_(py::dict(model.attr("__dict__"))),
      field_(std::move(field)),
      fields_set_(py::set(model.attr("__pydantic_fields_set__"))) {
  for (const py::handle name : lists) lists_.emplace_back(py::str(name));
  // The member descriptors themselves, as looking one up by name costs more than setting it.
  const py::object lookup = py::module_::import("inspect").attr("getattr_static");
  fields_set_slot_ = lookup(type_, "__pydantic_fields_set__");
  for (const char* name : {"__pydantic_extra__", "__pydantic_private__"})
    none_slots_.push_back({lookup(type_, name), py::none()});
  if (Py_TYPE(fields_set_slot_.ptr())->tp_descr_set == nullptr)
    throw py::type_error("not a pydantic model with slots");
}

py::object ModelCopier::copy(py::handle value) const {
  auto* type = reinterpret_cast<PyTypeObject*>(type_.ptr());
  py::object made = owned(type->tp_alloc(type, 0));
  const py::object fields = owned(PyDict_Copy(fields_.ptr()));
  put(fields, field_, value);
  for (const py::str& name : lists_) put(fields, name, py::list());
  if (PyObject_GenericSetDict(made.ptr(), fields.ptr(), nullptr) != 0) throw py::error_already_set();
  set_slot(fields_set_slot_, made.ptr(), owned(PySet_New(fields_set_.ptr())));
  for (const Slot& slot : none_slots_) set_slot(slot.descriptor, made.ptr(), slot.value);
  return made;
}

py::object make_screener(std::shared_ptr<Engine> engine, std::shared_ptr<InstancePolicy> policy,
                         py::object make_result, py::str label, py::str handover,
                         MetadataTemplates templates) {
  auto screener = std::make_unique<Screener>(std::move(engine), std::move(policy), std::move(make_result),
                                             std::move(label), std::move(handover), std::move(templates));
  const py::capsule self(screener.get(), kCapsule, [](PyObject* capsule) {
    delete static_cast<Screener*>(PyCapsule_GetPointer(capsule, kCapsule));
  });
  static_cast<void>(screener.release());
  return owned(PyCFunction_New(&screen_method, self.ptr()));
}

}  // namespace tool_firewall
