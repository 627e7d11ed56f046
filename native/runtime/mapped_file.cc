#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace nearmoe {
namespace {

constexpr size_t kPage = 4096;

void advise(const std::byte* data, size_t size, size_t offset, size_t bytes, int advice) {
  const size_t begin = std::min(offset, size) / kPage * kPage;
  const size_t end = std::min(offset + bytes, size);
  if (end > begin) madvise(const_cast<std::byte*>(data) + begin, end - begin, advice);
}

}  // namespace

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(other.data_), size_(other.size_), anonymous_(other.anonymous_) {
  other.data_ = nullptr;
  other.size_ = 0;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_);
}

Status MappedFile::open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Status::error(Code::Io, path + ": " + std::strerror(errno));
  struct stat info {};
  if (fstat(fd, &info) != 0 || info.st_size <= 0) {
    ::close(fd);
    return Status::error(Code::Io, path + ": is empty or cannot be read");
  }
  size_ = static_cast<size_t>(info.st_size);
  void* data = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
  ::close(fd);
  if (data == MAP_FAILED) return Status::error(Code::Io, path + ": mmap: " + std::strerror(errno));
  data_ = static_cast<const std::byte*>(data);
  return {};
}

Status MappedFile::open_anonymous(size_t bytes) {
  void* data =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return Status::error(Code::OutOfMemory, "cannot reserve a synthetic checkpoint");
  data_ = static_cast<const std::byte*>(data);
  size_ = bytes;
  anonymous_ = true;
  return {};
}

void MappedFile::will_need(size_t offset, size_t bytes) const {
  advise(data_, size_, offset, bytes, MADV_WILLNEED);
}

void MappedFile::release(size_t offset, size_t bytes) const {
  advise(data_, size_, offset, bytes, MADV_DONTNEED);
}

}  // namespace nearmoe
