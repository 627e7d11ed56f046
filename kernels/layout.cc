// Sizes of prepared activation rows and KV blocks, for those who allocate them.
#include "activations.h"
#include "kv_block.h"
#include "quant_format.h"

namespace nearmoe {

size_t activation_stride(ActFormat format, size_t cols) {
  const size_t blocks = (cols + kBlockCols - 1) / kBlockCols;
  const size_t bytes =
      format == ActFormat::F32 ? cols * sizeof(float) : q8_value_bytes(cols) + blocks * sizeof(Q8Meta);
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

size_t kv_block_bytes(KvDType dtype, size_t head_dim) { return kv_layout(dtype, head_dim).bytes; }

size_t latent_block_bytes(KvDType dtype, size_t dim) { return latent_layout(dtype, dim).bytes; }

}  // namespace nearmoe
