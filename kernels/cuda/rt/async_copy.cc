// cp.async: a thread's copies into shared memory, which land when their group is waited for. A device may
// write at any time from the copy to the wait, so ThreadSanitizer is told of an access at both ends.
#include <cstring>

#include "block_state.h"

namespace gpu_host {

void (*async_copy_read)(const void* from) = nullptr;

void async_copy(void* to, const void* from, bool zero, const char* file, int line) {
  if ((reinterpret_cast<uintptr_t>(to) | (zero ? 0 : reinterpret_cast<uintptr_t>(from))) & 15) {
    fail("cp.async: not 16-byte aligned (%s:%d)", file, line);
  }
  TSAN_ONLY(if (!zero) __tsan_read16(const_cast<void*>(from)); __tsan_write16(to);)
  if (!zero && async_copy_read) async_copy_read(from);
  Fiber& fiber = *current;
  if (fiber.num_copies == kMaxAsyncCopies)
    fail("cp.async: more than 128 copies under way (%s:%d)", file, line);
  fiber.copies[fiber.num_copies++] = {static_cast<char*>(to), zero ? nullptr : static_cast<const char*>(from),
                                      fiber.group};
}

void async_commit() { ++current->group; }

void async_wait(int groups_under_way) {
  Fiber& fiber = *current;
  int kept = 0;
  for (int i = 0; i < fiber.num_copies; ++i) {
    const AsyncCopy copy = fiber.copies[i];
    if (copy.group >= fiber.group - groups_under_way) {
      fiber.copies[kept++] = copy;
      continue;
    }
    TSAN_ONLY(if (copy.from) __tsan_read16(const_cast<char*>(copy.from)); __tsan_write16(copy.to);)
    if (copy.from) {
      std::memcpy(copy.to, copy.from, 16);
    } else {
      std::memset(copy.to, 0, 16);
    }
  }
  fiber.num_copies = kept;
}

}  // namespace gpu_host
