// SPDX-License-Identifier: Apache-2.0
// The ordinary answer to a call, made without going back to Python: a result object with its metadata.
//
// Nine calls in ten thousand need more than that (a warning, a refusal); these come back as a verdict. What
// such metadata hold, and what a result looks like, is decided in response.py and handed in as templates.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace tool_firewall {

// A verdict that outlives its call: the names its sentences need are those of interned tools, which the
// engine keeps.
struct PyVerdict {
  Verdict verdict;
  CallerPtr caller;
  std::shared_ptr<Engine> engine;
  std::string destination;  // the first host among the arguments, "" for none
};

// Copies a pydantic model as pydantic's own BaseModel.__copy__ does (a new instance that gets its __dict__
// and its three slots), with one field of its own and fresh empty lists. Whether such a copy equals an
// ordinary instance is for the caller to check once (fast_result.py).
class ModelCopier {
 public:
  // `model`: a pydantic model instance; `field`: the one to be given; `lists`: names of fields that are empty
  // lists.
  ModelCopier(const pybind11::object& model, pybind11::str field, const pybind11::iterable& lists);
  pybind11::object copy(pybind11::handle value) const;

 private:
  struct Slot {
    pybind11::object descriptor;
    pybind11::object value;
  };
  pybind11::object type_;
  pybind11::dict fields_;
  pybind11::str field_;
  std::vector<pybind11::str> lists_;
  pybind11::object fields_set_slot_;
  pybind11::object fields_set_;
  std::vector<Slot> none_slots_;
};

// Templates of the metadata of a result, by mode; see response.py.
struct MetadataTemplates {
  std::array<pybind11::dict, 4> ordinary;
  std::array<pybind11::dict, 4> notable;
};

// A function screen(caller, server, tool, args, now, state) -> result or Verdict. It checks the call, stores
// its ticket in `state` under `handover`, and gives the result, or, where somebody must be told (decision
// deny outside learning mode), the verdict. `make_result(metadata)` makes a result; a ModelCopier is called
// without going through Python.
pybind11::object make_screener(std::shared_ptr<Engine> engine, std::shared_ptr<InstancePolicy> policy,
                               pybind11::object make_result, pybind11::str label, pybind11::str handover,
                               MetadataTemplates templates);

}  // namespace tool_firewall
