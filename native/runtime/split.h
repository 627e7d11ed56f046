// Cuts a dimension into ragged, contiguous ranges over ranks.
#pragma once

#include <cstdint>
#include <vector>

namespace nearmoe {

struct Range {
  uint32_t begin = 0;
  uint32_t end = 0;
  uint32_t size() const { return end - begin; }
};

/// Cuts [0, n) into `parts` ranges at multiples of `grain` (n itself is always a legal cut); sizes differ by
/// at most one grain, larger ones first. Where there are fewer grains than parts, the last ranges are empty.
inline std::vector<Range> split(uint32_t n, uint32_t parts, uint32_t grain) {
  std::vector<Range> ranges(parts);
  const uint32_t grains = (n + grain - 1) / grain;
  uint32_t begin = 0;
  for (uint32_t i = 0; i < parts; ++i) {
    const uint32_t count = grains / parts + (i < grains % parts ? 1 : 0);
    const uint32_t end = begin + count * grain;
    ranges[i] = {begin < n ? begin : n, end < n ? end : n};
    begin = end;
  }
  return ranges;
}

/// Like split, with the coarsest grain of {preferred, least} that gives every part something.
inline std::vector<Range> split_evenly(uint32_t n, uint32_t parts, uint32_t preferred, uint32_t least) {
  const bool coarse = n / preferred >= parts;
  return split(n, parts, coarse ? preferred : least);
}

}  // namespace nearmoe
