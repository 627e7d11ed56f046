#include "gpu_library.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>

namespace nearmoe {
namespace {

Status unavailable(const std::string& message) { return Status::error(Code::Gpu, message); }

/// The folder of the file that holds this code: the addon, or a test program.
std::string own_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0 || info.dli_fname == nullptr) return ".";
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

std::string folder() {
  const char* given = std::getenv("NEARMOE_GPU_LIBRARY_PATH");
  return given != nullptr && *given != '\0' ? given : own_folder();
}

}  // namespace

Status open_gpu_library(const std::string& name, const NmGpuBackend** backend) {
  const std::string file = name == "cuda" ? "libnearmoe_cuda.so" : "libnearmoe_gpu_emulated.so";
  const std::string path = folder() + "/" + file;
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = dlerror();
    const std::string build = name == "cuda" ? "npm run build:cuda" : "npm run build:native -- --tests";
    const bool there = access(path.c_str(), F_OK) == 0;
    const std::string what =
        there ? "cannot be loaded (" + std::string(why != nullptr ? why : "no reason given") + ")"
              : "is not in " + folder();
    return unavailable(file + " " + what + ": build it with `" + build +
                       "`, or name its folder in NEARMOE_GPU_LIBRARY_PATH");
  }
  const auto open = reinterpret_cast<NmGpuOpen>(dlsym(library, "nm_gpu_open"));
  const NmGpuBackend* table = open != nullptr ? open(NM_GPU_ABI) : nullptr;
  if (table == nullptr) {
    dlclose(library);
    return unavailable(path + " was built for another version of nearmoe (its ABI is not " +
                       std::to_string(NM_GPU_ABI) + "): build it again");
  }
  *backend = table;
  return {};
}

Status probe_gpu(const NmGpuBackend* backend, std::vector<NmGpuDevice>* devices) {
  NmGpuDevice found[16];
  uint32_t count = 0;
  NmGpuError error{};
  if (backend->probe(found, 16, &count, &error) != NM_GPU_OK) return gpu_status(error);
  devices->assign(found, found + (count < 16 ? count : 16));
  return {};
}

Status gpu_status(const NmGpuError& error) {
  std::string message = error.message;
  if (error.code == NM_GPU_DEVICE_ERROR) message = "the GPU failed: " + message;
  return unavailable(message);
}

}  // namespace nearmoe
