// Which weight formats the GPU kernels read, for those who decide where a weight goes.
#include "formats.cuh"
#include "kernels.h"

namespace nearmoe::cuda {

bool supports(DType dtype) {
  // A capture default, since without one nvcc warns of a conversion to a function pointer that deduces no F.
  return with_format(dtype, [&]<DType F>() { return cudaSuccess; }) == cudaSuccess;
}

bool wants_q8(DType dtype) {
  bool quantised = false;
  (void)with_format(dtype, [&]<DType F>() {
    quantised = Format<F>::kQuantised;
    return cudaSuccess;
  });
  return quantised;
}

}  // namespace nearmoe::cuda
