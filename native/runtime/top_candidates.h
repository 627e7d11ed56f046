// The likeliest tokens of a row of logits, found where the row was computed: each rank picks from its own
// part, and the picks are merged. So a sampler that needs no more than these never looks at the row.
#pragma once

#include <cstdint>
#include <vector>

namespace nearmoe {

/// Most candidates of a row. As in src/device/device.ts.
inline constexpr uint32_t kMaxCandidates = 64;

/// Ids and values of candidates, the largest value first, of equal ones the lowest id.
struct Candidates {
  int32_t* ids = nullptr;   ///< [rows][kMaxCandidates]
  float* values = nullptr;  ///< [rows][kMaxCandidates]

  Candidates row(uint32_t index) const {
    return {ids + index * kMaxCandidates, values + index * kMaxCandidates};
  }
};

/// The `count` largest of x[0 ... n), or all where n is less, into row 0 of `out`; x[i] has id first_id + i.
/// Returns how many.
uint32_t select_candidates(const float* x, uint32_t n, uint32_t first_id, uint32_t count, Candidates out);

/// The `count` largest of several rows, `held[p]` in row 0 of parts[p], ids ascending from part to part, into
/// row 0 of `out`. Returns how many.
uint32_t merge_candidates(const std::vector<Candidates>& parts, const uint32_t* held, uint32_t count,
                          Candidates out);

}  // namespace nearmoe
