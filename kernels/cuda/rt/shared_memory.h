// A block's shared memory in the emulation: static variables by site and the dynamic part, each surrounded by
// poison, so that reads of what was never written and writes behind the end show. Used by the block scheduler
// only.
#pragma once

#include <cstddef>
#include <string>

namespace gpu_host {

/// Fresh, poisoned memory for a block; `limit` bytes in all, static and dynamic.
void begin_block_memory(size_t dynamic_bytes, size_t limit);
/// "" or what was written behind a variable of the block that ends.
std::string check_block_memory();
/// After a launch: frees what begin_block_memory kept for ThreadSanitizer.
void end_launch_memory();
/// The variable of a site, made at its first use; null where the limit is exceeded.
void* find_or_make_variable(const void* site, size_t bytes);
void* dynamic_variable();
size_t shared_bytes_used();
bool is_shared(const void* p);

}  // namespace gpu_host
