// A read-only memory map of a checkpoint file. Pages are given back while loading, so that the file and its
// packed copy are never both resident.
#pragma once

#include <cstddef>
#include <string>

#include "status.h"

namespace nearmoe {

class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();

  Status open(const std::string& path);
  /// Anonymous memory of `bytes` in place of a file: the content of synthetic models.
  Status open_anonymous(size_t bytes);
  /// Writable bytes of an anonymous file, null for a real one.
  std::byte* writable() const { return anonymous_ ? const_cast<std::byte*>(data_) : nullptr; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  /// Hints that the range is read soon.
  void will_need(size_t offset, size_t bytes) const;
  /// Drops the range's pages from this process.
  void release(size_t offset, size_t bytes) const;

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  bool anonymous_ = false;
};

}  // namespace nearmoe
