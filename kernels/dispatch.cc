// Chooses the op table at run time: what the CPU reports, what the operating system saves on a context
// switch, and what NEARMOE_ISA or the caller forces. Compiled for the baseline ISA; calls nothing that needs
// more.
#include <cstdlib>
#include <cstring>

#include "tables.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace nearmoe {
namespace {

#if defined(__x86_64__)
struct CpuidLeaf {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

CpuidLeaf cpuid(unsigned leaf, unsigned subleaf) {
  CpuidLeaf out;
  if (!__get_cpuid_count(leaf, subleaf, &out.eax, &out.ebx, &out.ecx, &out.edx)) return {};
  return out;
}

bool has(unsigned word, int bit) { return ((word >> bit) & 1u) != 0; }

/// Register state the operating system saves (XCR0), 0 where it does not use XSAVE.
unsigned saved_state() {
  if (!has(cpuid(1, 0).ecx, 27)) return 0;
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

constexpr unsigned kAvxState = 0x6, kAvx512State = 0xe6, kTileState = 0x60000;

[[maybe_unused]] bool runs_avx2() {
  const CpuidLeaf basic = cpuid(1, 0);
  return has(basic.ecx, 28) && has(basic.ecx, 12) && has(basic.ecx, 29) && has(cpuid(7, 0).ebx, 5) &&
         (saved_state() & kAvxState) == kAvxState;
}

[[maybe_unused]] bool runs_avxvnni() { return runs_avx2() && has(cpuid(7, 1).eax, 4); }

/// F, DQ, BW, VL and VNNI.
[[maybe_unused]] bool runs_avx512() {
  const CpuidLeaf features = cpuid(7, 0);
  return runs_avx2() && has(features.ebx, 16) && has(features.ebx, 17) && has(features.ebx, 30) &&
         has(features.ebx, 31) && has(features.ecx, 11) && (saved_state() & kAvx512State) == kAvx512State;
}

/// AMX tiles with int8; Linux hands out the tile state only to processes that ask for it.
[[maybe_unused]] bool runs_amx() {
#if defined(__linux__)
  const CpuidLeaf features = cpuid(7, 0);
  if (!runs_avx512() || !has(features.edx, 24) || !has(features.edx, 25)) return false;
  if ((saved_state() & kTileState) != kTileState) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

#if defined(__aarch64__)
// Advanced SIMD is part of the architecture. On Linux the kernel tells what else both the CPU and it support;
// elsewhere only what every 64-bit Arm machine of that system has is used.
#if defined(__linux__)
[[maybe_unused]] bool runs_neon() { return (getauxval(AT_HWCAP) & (1ul << 1)) != 0; }  // HWCAP_ASIMD

[[maybe_unused]] bool runs_dotprod() {
  return runs_neon() && (getauxval(AT_HWCAP) & (1ul << 20)) != 0;  // HWCAP_ASIMDDP
}

[[maybe_unused]] bool runs_i8mm() {
  return runs_dotprod() && (getauxval(AT_HWCAP2) & (1ul << 13)) != 0;  // HWCAP2_I8MM
}
#else
[[maybe_unused]] bool runs_neon() { return true; }
#if defined(__APPLE__)
[[maybe_unused]] bool runs_dotprod() { return true; }  // since the M1
#else
[[maybe_unused]] bool runs_dotprod() { return false; }
#endif
[[maybe_unused]] bool runs_i8mm() { return false; }
#endif
#endif

/// A table that differs from its base ISA in name and matmul.
[[maybe_unused]] OpTable with_matmul(const OpTable& base, const char* isa, MatmulFunction matmul) {
  OpTable table = base;
  table.isa = isa;
  table.matmul = matmul;
  return table;
}

struct Candidate {
  const OpTable& (*table)();
  bool (*runs)();
};

// Slowest first.
constexpr Candidate kCandidates[] = {
    {[]() -> const OpTable& { return kScalarOps; }, [] { return true; }},
#if defined(NEARMOE_HAVE_AVX2)
    {[]() -> const OpTable& { return kAvx2Ops; }, runs_avx2},
#endif
#if defined(NEARMOE_HAVE_AVXVNNI) && defined(NEARMOE_HAVE_AVX2)
    {[]() -> const OpTable& {
       static const OpTable table = with_matmul(kAvx2Ops, "avxvnni", kAvxvnniMatmul);
       return table;
     },
     runs_avxvnni},
#endif
#if defined(NEARMOE_HAVE_AVX512)
    {[]() -> const OpTable& { return kAvx512Ops; }, runs_avx512},
#endif
#if defined(NEARMOE_HAVE_AMX) && defined(NEARMOE_HAVE_AVX512)
    {[]() -> const OpTable& {
       static const OpTable table = with_matmul(kAvx512Ops, "amx", kAmxMatmul);
       return table;
     },
     runs_amx},
#endif
#if defined(NEARMOE_HAVE_NEON)
    {[]() -> const OpTable& { return kNeonOps; }, runs_neon},
#endif
#if defined(NEARMOE_HAVE_DOTPROD)
    {[]() -> const OpTable& { return kDotprodOps; }, runs_dotprod},
#endif
#if defined(NEARMOE_HAVE_I8MM) && defined(NEARMOE_HAVE_DOTPROD)
    {[]() -> const OpTable& {
       static const OpTable table = with_matmul(kDotprodOps, "i8mm", kI8mmMatmul);
       return table;
     },
     runs_i8mm},
#endif
};

}  // namespace

size_t saved_register_names(const char** out, size_t capacity) {
  size_t count = 0;
#if defined(__x86_64__)
  const struct {
    const char* name;
    unsigned mask;
  } states[] = {{"avx", kAvxState}, {"avx512", kAvx512State}, {"amx", kTileState}};
  for (const auto& state : states) {
    if (count < capacity && (saved_state() & state.mask) == state.mask) out[count++] = state.name;
  }
#else
  (void)out;
  (void)capacity;
#endif
  return count;
}

const OpTable* select_ops(const char* forced_isa) {
  if (!forced_isa || !*forced_isa) forced_isa = std::getenv("NEARMOE_ISA");
  const OpTable* best = nullptr;
  for (const Candidate& candidate : kCandidates) {
    if (forced_isa && *forced_isa && std::strcmp(forced_isa, candidate.table().isa) != 0) continue;
    if (candidate.runs()) best = &candidate.table();
  }
  return best;
}

size_t runnable_ops(const OpTable** out, size_t capacity) {
  size_t count = 0;
  for (const Candidate& candidate : kCandidates) {
    if (count < capacity && candidate.runs()) out[count++] = &candidate.table();
  }
  return count;
}

}  // namespace nearmoe
