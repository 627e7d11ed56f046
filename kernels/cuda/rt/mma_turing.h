// What sm_75 does in place of the instructions of later devices: matrices of bytes in four or two smaller
// products, copies into shared memory that are done when they return. Included by mma.h, once mma_s8_m8n8k16
// is there.
#pragma once

/// d += a (16 x 32) * b (32 x 8), signed bytes in, int out.
__device__ __forceinline__ void mma_s8_turing(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_s8_m8n8k16(d[0], d[1], a[0], b[0]);
  mma_s8_m8n8k16(d[0], d[1], a[2], b[1]);
  mma_s8_m8n8k16(d[2], d[3], a[1], b[0]);
  mma_s8_m8n8k16(d[2], d[3], a[3], b[1]);
}

/// d += a (16 x 16) * b (16 x 8), signed bytes in, int out.
__device__ __forceinline__ void mma_s8_k16_turing(int (&d)[4], const unsigned (&a)[2], unsigned b) {
  mma_s8_m8n8k16(d[0], d[1], a[0], b);
  mma_s8_m8n8k16(d[2], d[3], a[1], b);
}

/// 16 bytes into shared memory, or zeros where not `valid`.
__device__ __forceinline__ void copy16_turing(void* shared, const void* global, bool valid) {
  *static_cast<uint4*>(shared) = valid ? *static_cast<const uint4*>(global) : make_uint4(0, 0, 0, 0);
}
