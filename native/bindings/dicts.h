// SPDX-License-Identifier: Apache-2.0
// What the engine knows, as plain dicts for Python; _native.pyi says what is in each.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string_view>

#include "engine/engine.h"
#include "journal/record.h"

namespace tool_firewall {

// As 16 hex digits.
pybind11::str digits(std::uint64_t digest);

pybind11::dict to_dict(const Record& record);
pybind11::list modes_list(const Engine& engine);
pybind11::list snoozes_list(const Engine& engine);
pybind11::list news_list(const Engine& engine, std::string_view tenant, std::string_view user);
pybind11::dict summary_dict(const Engine& engine);
pybind11::dict counters_dict(const Engine& engine);
pybind11::dict metrics_dict(const Engine& engine);
pybind11::list principals_list(const Engine& engine);
// None when the principal is unknown.
pybind11::object baseline_dict(Engine& engine, std::string_view tenant, std::string_view user);

}  // namespace tool_firewall
