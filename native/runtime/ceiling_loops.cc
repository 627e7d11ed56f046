#include "ceiling_loops.h"

#include <cstring>

namespace nearmoe {
namespace {

constexpr size_t kLine = 64;
/// Bytes of one stream between two turns, and how far ahead it is prefetched.
constexpr size_t kStep = 4 * kLine, kAhead = 1024;

#if defined(__x86_64__)

// In assembly, so that no compiler adds a move. Ten sums hide the latency of each instruction measured here.
#define NEARMOE_TEN(OP) OP(0) OP(1) OP(2) OP(3) OP(4) OP(5) OP(6) OP(7) OP(8) OP(9)
#define NEARMOE_VECTOR_LOOP(name, per_instruction, OP)                                                      \
  uint64_t name(uint64_t rounds) {                                                                          \
    asm volatile("vpxor %%xmm12, %%xmm12, %%xmm12\n vpxor %%xmm13, %%xmm13, %%xmm13" ::: "xmm12", "xmm13"); \
    for (uint64_t i = 0; i < rounds; ++i) {                                                                 \
      asm volatile(NEARMOE_TEN(OP)::                                                                        \
                       : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",    \
                         "xmm14");                                                                          \
    }                                                                                                       \
    asm volatile("vzeroupper" ::: "memory");                                                                \
    return rounds * 10 * (per_instruction);                                                                 \
  }
#define NEARMOE_ZMM_DOT(i) "vpdpbusd %%zmm12, %%zmm13, %%zmm" #i "\n"
#define NEARMOE_ZMM_FMA(i) "vfmadd231ps %%zmm12, %%zmm13, %%zmm" #i "\n"
#define NEARMOE_YMM_DOT(i) "%{vex%} vpdpbusd %%ymm12, %%ymm13, %%ymm" #i "\n"
#define NEARMOE_YMM_FMA(i) "vfmadd231ps %%ymm12, %%ymm13, %%ymm" #i "\n"
// Without VNNI, 32 products take a pair of instructions; the widening to 32 bits can be shared by several.
#define NEARMOE_YMM_PAIR(i) \
  "vpmaddubsw %%ymm12, %%ymm13, %%ymm14\n vpaddw %%ymm14, %%ymm" #i ", %%ymm" #i "\n"
NEARMOE_VECTOR_LOOP(zmm_dot, 64, NEARMOE_ZMM_DOT)
NEARMOE_VECTOR_LOOP(zmm_fma, 16, NEARMOE_ZMM_FMA)
NEARMOE_VECTOR_LOOP(ymm_dot, 32, NEARMOE_YMM_DOT)
NEARMOE_VECTOR_LOOP(ymm_fma, 8, NEARMOE_YMM_FMA)
NEARMOE_VECTOR_LOOP(ymm_pair, 32, NEARMOE_YMM_PAIR)

/// Whole tiles of 16 x 64 bytes, two by two as a blocked product uses them.
uint64_t tile_dot(uint64_t rounds) {
  struct alignas(64) {
    uint8_t palette = 1, reserved[15] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  for (int i = 0; i < 8; ++i) {
    config.rows[i] = 16;
    config.row_bytes[i] = 64;
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

struct IsaLoops {
  const char* isa;
  MultiplyLoop int8, f32;
};
constexpr IsaLoops kLoops[] = {{"avx2", ymm_pair, ymm_fma},
                               {"avxvnni", ymm_dot, ymm_fma},
                               {"avx512", zmm_dot, zmm_fma},
                               {"amx", tile_dot, zmm_fma}};

#elif defined(__aarch64__)

// Eight sums hide the latency; each loop is compiled for the architecture of its instruction.
#define NEARMOE_EIGHT(OP) OP(0) OP(1) OP(2) OP(3) OP(4) OP(5) OP(6) OP(7)
#define NEARMOE_VECTOR_LOOP(name, arch, per_instruction, OP)                             \
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
NEARMOE_VECTOR_LOOP(neon_widen, "armv8-a", 8, NEARMOE_WIDEN)
NEARMOE_VECTOR_LOOP(neon_dot, "armv8.2-a+dotprod", 16, NEARMOE_DOT)
NEARMOE_VECTOR_LOOP(neon_matrix, "armv8.2-a+i8mm", 32, NEARMOE_MATRIX)
NEARMOE_VECTOR_LOOP(neon_fma, "armv8-a", 4, NEARMOE_FMA)

struct IsaLoops {
  const char* isa;
  MultiplyLoop int8, f32;
};
constexpr IsaLoops kLoops[] = {
    {"neon", neon_widen, neon_fma}, {"dotprod", neon_dot, neon_fma}, {"i8mm", neon_matrix, neon_fma}};

#endif

#if defined(__x86_64__)
// One 16-byte load a line: the core waits for memory, not for its load ports.
#define NEARMOE_READ_STEP(hint)                                                                            \
  asm volatile(                                                                                            \
      "prefetch" hint " 1024(%0)\n prefetch" hint " 1088(%0)\n prefetch" hint " 1152(%0)\n prefetch" hint  \
      " 1216(%0)\n"                                                                                        \
      "movdqu (%0), %%xmm0\n movdqu 64(%0), %%xmm1\n movdqu 128(%0), %%xmm2\n movdqu 192(%0), %%xmm3\n" :: \
          "r"(lines)                                                                                       \
      : "xmm0", "xmm1", "xmm2", "xmm3", "memory")
static_assert(kAhead == 1024 && kLine == 64 && kStep == 256);
#endif

template <Nearness kNearness>
void read_step(const std::byte* lines) {
#if defined(__x86_64__)
  if constexpr (kNearness == Nearness::L1) {
    NEARMOE_READ_STEP("t0");
  } else {
    NEARMOE_READ_STEP("t1");
  }
#else
  for (size_t line = 0; line < kStep; line += kLine) {
    __builtin_prefetch(lines + kAhead + line, 0, kNearness == Nearness::L1 ? 3 : 2);
    uint64_t word;
    std::memcpy(&word, lines + line, sizeof word);
    asm volatile("" ::"r"(word) : "memory");  // the load has a reader and stays
  }
#endif
}

template <Nearness kNearness>
void read_streams(const std::byte* data, size_t bytes, uint32_t streams) {
  const size_t run = bytes / streams / kStep * kStep;
  for (size_t at = 0; at < run; at += kStep) {
    for (uint32_t stream = 0; stream < streams; ++stream) read_step<kNearness>(data + stream * run + at);
  }
}

}  // namespace

void read_lines(const std::byte* data, size_t bytes, ReadPattern pattern) {
  const bool near = pattern.prefetch_to == Nearness::L1;
  (near ? read_streams<Nearness::L1> : read_streams<Nearness::L2>)(data, bytes, pattern.streams);
}

MultiplyLoop multiply_loop(const char* isa, bool int8) {
#if defined(__x86_64__) || defined(__aarch64__)
  for (const IsaLoops& loops : kLoops) {
    if (std::strcmp(loops.isa, isa) == 0) return int8 ? loops.int8 : loops.f32;
  }
#endif
  return nullptr;
}

}  // namespace nearmoe
