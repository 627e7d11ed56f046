// Peak measurements, one function for each instruction, in assembly so that no compiler adds a move. See
// ceilings.h.
#include "ceilings.h"

#include <cstring>

namespace nearmoe::bench {
namespace {

volatile uint64_t sink;

#if defined(__x86_64__)

// Ten independent accumulators hide the latency of every instruction measured here.
#define NEARMOE_TEN(OP) OP(0) OP(1) OP(2) OP(3) OP(4) OP(5) OP(6) OP(7) OP(8) OP(9)
#define NEARMOE_CLOBBERS \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm12", "xmm13"
constexpr uint64_t kTen = 10;

#define NEARMOE_ZMM_DOT(i) "vpdpbusd %%zmm12, %%zmm13, %%zmm" #i "\n"
#define NEARMOE_ZMM_FMA(i) "vfmadd231ps %%zmm12, %%zmm13, %%zmm" #i "\n"
#define NEARMOE_YMM_DOT(i) "%{vex%} vpdpbusd %%ymm12, %%ymm13, %%ymm" #i "\n"
#define NEARMOE_YMM_FMA(i) "vfmadd231ps %%ymm12, %%ymm13, %%ymm" #i "\n"
// Without VNNI an int8 multiply-add of 32 bytes is this pair (the widening to 32 bits can be shared by
// several).
#define NEARMOE_YMM_MADD(i) \
  "vpmaddubsw %%ymm12, %%ymm13, %%ymm14\n vpaddw %%ymm14, %%ymm" #i ", %%ymm" #i "\n"

template <class Body>
uint64_t repeat(uint64_t rounds, uint64_t per_round, Body body) {
  asm volatile("vpxor %%ymm12, %%ymm12, %%ymm12\n vpxor %%ymm13, %%ymm13, %%ymm13" ::: "xmm12", "xmm13");
  for (uint64_t i = 0; i < rounds; ++i) body();
  asm volatile("vzeroupper" ::: NEARMOE_CLOBBERS);
  return rounds * per_round;
}

uint64_t zmm_dot(uint64_t rounds) {
  return repeat(rounds, kTen * 64, [] { asm volatile(NEARMOE_TEN(NEARMOE_ZMM_DOT)::: NEARMOE_CLOBBERS); });
}
uint64_t zmm_fma(uint64_t rounds) {
  return repeat(rounds, kTen * 16, [] { asm volatile(NEARMOE_TEN(NEARMOE_ZMM_FMA)::: NEARMOE_CLOBBERS); });
}
uint64_t ymm_dot(uint64_t rounds) {
  return repeat(rounds, kTen * 32, [] { asm volatile(NEARMOE_TEN(NEARMOE_YMM_DOT)::: NEARMOE_CLOBBERS); });
}
uint64_t ymm_madd(uint64_t rounds) {
  return repeat(rounds, kTen * 32, [] {
    asm volatile(NEARMOE_TEN(NEARMOE_YMM_MADD)::: NEARMOE_CLOBBERS, "xmm14");
  });
}
uint64_t ymm_fma(uint64_t rounds) {
  return repeat(rounds, kTen * 8, [] { asm volatile(NEARMOE_TEN(NEARMOE_YMM_FMA)::: NEARMOE_CLOBBERS); });
}

/// Tiles of 16 x 64 bytes: the most an AMX instruction can do (a block of 32 columns fills half of it).
uint64_t amx_dot(uint64_t rounds) {
  struct alignas(64) {
    uint8_t palette = 1, rest[15] = {};
    uint16_t column_bytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  for (int i = 0; i < 8; ++i) {
    config.rows[i] = 16;
    config.column_bytes[i] = 64;
  }
  asm volatile("ldtilecfg %0" ::"m"(config));
  for (uint64_t i = 0; i < rounds; ++i) {
    asm volatile(
        "tdpbssd %%tmm4, %%tmm6, %%tmm0\n tdpbssd %%tmm4, %%tmm7, %%tmm1\n"
        "tdpbssd %%tmm5, %%tmm6, %%tmm2\n tdpbssd %%tmm5, %%tmm7, %%tmm3\n" ::
            : "memory");
  }
  asm volatile("tilerelease");
  return rounds * 4 * 16 * 16 * 64;
}

constexpr ComputeCeiling kCeilings[] = {{"avx2", "int8", ymm_madd},   {"avx2", "f32", ymm_fma},
                                        {"avxvnni", "int8", ymm_dot}, {"avxvnni", "f32", ymm_fma},
                                        {"avx512", "int8", zmm_dot},  {"avx512", "f32", zmm_fma},
                                        {"amx", "int8", amx_dot},     {"amx", "f32", zmm_fma}};

#elif defined(__aarch64__)

// Eight sums hide the latency; each loop is compiled for the architecture of its instruction.
#define NEARMOE_EIGHT(OP) OP(0) OP(1) OP(2) OP(3) OP(4) OP(5) OP(6) OP(7)
#define NEARMOE_LOOP(name, arch, per_instruction, OP)                                    \
  __attribute__((target("arch=" arch))) uint64_t name(uint64_t rounds) {                 \
    for (uint64_t i = 0; i < rounds; ++i) {                                              \
      asm volatile(NEARMOE_EIGHT(OP)::: "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7"); \
    }                                                                                    \
    return rounds * 8 * (per_instruction);                                               \
  }
#define NEARMOE_WIDEN(i) "smlal v" #i ".8h, v16.8b, v17.8b\n"
#define NEARMOE_DOT(i) "sdot v" #i ".4s, v16.16b, v17.16b\n"
#define NEARMOE_MATRIX(i) "smmla v" #i ".4s, v16.16b, v17.16b\n"
#define NEARMOE_FMA(i) "fmla v" #i ".4s, v16.4s, v17.4s\n"
NEARMOE_LOOP(neon_widen, "armv8-a", 8, NEARMOE_WIDEN)
NEARMOE_LOOP(neon_dot, "armv8.2-a+dotprod", 16, NEARMOE_DOT)
NEARMOE_LOOP(neon_matrix, "armv8.2-a+i8mm", 32, NEARMOE_MATRIX)
NEARMOE_LOOP(neon_fma, "armv8-a", 4, NEARMOE_FMA)
constexpr ComputeCeiling kCeilings[] = {{"neon", "int8", neon_widen},  {"neon", "f32", neon_fma},
                                        {"dotprod", "int8", neon_dot}, {"dotprod", "f32", neon_fma},
                                        {"i8mm", "int8", neon_matrix}, {"i8mm", "f32", neon_fma}};

#endif

}  // namespace

void read_memory(const std::byte* data, size_t n) {
  constexpr size_t kStreams = 4, kStep = 256;
  const size_t run = n / kStreams / kStep * kStep;
  uint64_t sum = 0;
  for (size_t i = 0; i < run; i += kStep) {
    for (size_t s = 0; s < kStreams; ++s) {
      const std::byte* at = data + s * run + i;
#if defined(__x86_64__)
      // Plain 16-byte loads: the core waits for memory, not for load ports.
      asm volatile(
          "prefetcht0 1024(%0)\n prefetcht0 1088(%0)\n prefetcht0 1152(%0)\n prefetcht0 1216(%0)\n"
          "movdqu (%0), %%xmm0\n movdqu 64(%0), %%xmm1\n movdqu 128(%0), %%xmm2\n movdqu 192(%0), %%xmm3\n" ::
              "r"(at)
          : "xmm0", "xmm1", "xmm2", "xmm3", "memory");
#else
      for (size_t line = 0; line < kStep; line += 64) {
        __builtin_prefetch(at + 1024 + line);
        uint64_t word;
        std::memcpy(&word, at + line, sizeof word);
        sum += word;
      }
#endif
    }
  }
  sink = sum;
}

size_t compute_ceilings(const ComputeCeiling** out) {
  *out = kCeilings;
  return sizeof kCeilings / sizeof kCeilings[0];
}

}  // namespace nearmoe::bench
