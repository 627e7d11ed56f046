// Finds and opens the GPU backend libraries (gpu_abi.h), and says in words what is missing where none
// answers. Called when a device is made and by the doctor command. A library stays open until the process
// ends.
#pragma once

#include <string>
#include <vector>

#include "gpu_abi.h"
#include "status.h"

namespace nearmoe {

/// Opens the library of backend "cuda" or "emulated": in the folder that NEARMOE_GPU_LIBRARY_PATH names, else
/// beside the addon. Code::Gpu where it is missing, cannot be loaded or speaks another ABI. Any thread.
Status open_gpu_library(const std::string& name, const NmGpuBackend** backend);

/// The usable devices of a backend, at least one; Code::Gpu with what would mend it where there is none.
Status probe_gpu(const NmGpuBackend* backend, std::vector<NmGpuDevice>* devices);

/// The message of a failed call.
Status gpu_status(const NmGpuError& error);

}  // namespace nearmoe
