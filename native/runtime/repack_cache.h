// The packed weights of a store as bytes of a file, and back: what the opt-in cache of repacked files needs
// of native code. Files are laid out and named by src/engine/repack-cache.ts; here are the arenas' bytes,
// their checksums, and the mapping. Control thread only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "status.h"
#include "weights.h"

namespace nearmoe {

/// Where a file holds an arena, and the checksum of its bytes.
struct ArenaSegment {
  uint64_t offset = 0;  ///< a multiple of the page size
  uint64_t size = 0;
  uint64_t checksum = 0;
};

/// Of `bytes` bytes, by `threads` threads; finds every changed 8-byte word. Not cryptographic.
uint64_t checksum_bytes(const std::byte* data, size_t bytes, uint32_t threads);

/// Changes whenever the packed layout of any format does: a checksum of small packed matrices.
uint64_t packed_layout_checksum();

/// Writes bytes [begin, begin + bytes) of an arena to the file at `offset`; the file exists.
Status write_arena(const Arena& arena, const std::string& path, size_t begin, size_t bytes, uint64_t offset);

/// Puts the file's segments in the place of the store's arenas, before any weight is added: pages are the
/// page cache's, nothing is copied. WeightValue where a checksum is another; the store is then as it was.
Status map_arenas(WeightStore& store, const std::string& path, const std::vector<ArenaSegment>& segments,
                  uint32_t threads);

}  // namespace nearmoe
