#include "top_candidates.h"

#include <algorithm>

namespace nearmoe {
namespace {

/// Values that are passed over together where none of them is a candidate.
constexpr uint32_t kRun = 64;

/// With 16 running maxima, so that the compiler can keep them in vectors.
float largest_of_run(const float* x) {
  float largest[16];
  std::copy_n(x, 16, largest);
  for (uint32_t i = 16; i < kRun; i += 16) {
    for (uint32_t j = 0; j < 16; ++j) largest[j] = largest[j] < x[i + j] ? x[i + j] : largest[j];
  }
  return *std::max_element(largest, largest + 16);
}

/// Puts a value that is larger than the last of a full list into its place; `held` grows up to `count`.
void insert(float value, int32_t id, uint32_t count, uint32_t& held, Candidates list) {
  uint32_t place = held < count ? held++ : count - 1;
  for (; place > 0 && list.values[place - 1] < value; --place) {
    list.values[place] = list.values[place - 1];
    list.ids[place] = list.ids[place - 1];
  }
  list.values[place] = value;
  list.ids[place] = id;
}

}  // namespace

uint32_t select_candidates(const float* x, uint32_t n, uint32_t first_id, uint32_t count, Candidates out) {
  uint32_t held = 0;
  for (uint32_t first = 0; first < n; first += kRun) {
    const uint32_t end = std::min(first + kRun, n);
    // Of equal values the earlier one, with its lower id, stays.
    if (held == count && end - first == kRun && !(largest_of_run(x + first) > out.values[count - 1]))
      continue;
    for (uint32_t i = first; i < end; ++i) {
      if (held < count || x[i] > out.values[count - 1])
        insert(x[i], static_cast<int32_t>(first_id + i), count, held, out);
    }
  }
  return held;
}

uint32_t merge_candidates(const std::vector<Candidates>& parts, const uint32_t* held, uint32_t count,
                          Candidates out) {
  uint32_t merged = 0;
  for (size_t p = 0; p < parts.size(); ++p) {
    for (uint32_t i = 0; i < held[p]; ++i) {
      const float value = parts[p].values[i];
      if (merged == count && !(value > out.values[count - 1])) break;  // nor are those behind it
      insert(value, parts[p].ids[i], count, merged, out);
    }
  }
  return merged;
}

}  // namespace nearmoe
