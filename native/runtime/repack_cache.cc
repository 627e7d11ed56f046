#include "repack_cache.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include "split.h"

namespace nearmoe {
namespace {

constexpr uint64_t kPrime = 0x9E3779B97F4A7C15ULL;  // odd, so that multiplying loses nothing
constexpr size_t kChunk = size_t{1} << 20;
constexpr size_t kLanes = 8;

/// Eight chains of xor and multiply, so that one core reads as fast as memory gives.
uint64_t chunk_checksum(const std::byte* data, size_t bytes) {
  uint64_t lanes[kLanes];
  for (size_t l = 0; l < kLanes; ++l) lanes[l] = kPrime + l;
  size_t at = 0;
  for (; at + sizeof lanes <= bytes; at += sizeof lanes) {
    uint64_t words[kLanes];
    std::memcpy(words, data + at, sizeof words);
    for (size_t l = 0; l < kLanes; ++l) lanes[l] = (lanes[l] ^ words[l]) * kPrime;
  }
  uint64_t sum = bytes;
  for (; at < bytes; ++at) sum = (sum ^ static_cast<uint64_t>(data[at])) * kPrime;
  for (const uint64_t lane : lanes) sum = ((sum ^ lane) * kPrime) ^ (sum >> 29);
  return sum;
}

Status io_error(const std::string& path, const char* what) {
  return Status::error(Code::Io, path + ": " + what + ": " + std::strerror(errno));
}

}  // namespace

uint64_t checksum_bytes(const std::byte* data, size_t bytes, uint32_t threads) {
  const size_t chunks = (bytes + kChunk - 1) / kChunk;
  std::vector<uint64_t> sums(chunks);
  auto run = [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i)
      sums[i] = chunk_checksum(data + i * kChunk, std::min(kChunk, bytes - i * kChunk));
  };
  const std::vector<Range> parts = split(static_cast<uint32_t>(chunks), std::max(threads, 1U), 1);
  std::vector<std::thread> helpers;
  for (size_t i = 1; i < parts.size(); ++i) helpers.emplace_back(run, parts[i].begin, parts[i].end);
  run(parts[0].begin, parts[0].end);
  for (std::thread& helper : helpers) helper.join();
  return chunk_checksum(reinterpret_cast<const std::byte*>(sums.data()), sums.size() * sizeof(uint64_t));
}

uint64_t packed_layout_checksum() {
  // Two row groups, two superblocks and a bit: every part of the layout occurs.
  constexpr size_t kRows = 17, kCols = 512;
  uint64_t sum = 0;
  for (size_t d = 0; d < kNumDTypes; ++d) {
    const auto dtype = static_cast<DType>(d);
    std::vector<std::byte> source(source_bytes(dtype, kRows, kCols));
    for (size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::byte>((i * 37 + d) & 0x3f);
    std::vector<std::byte> packed(packed_bytes(dtype, kRows, kCols - 32, 32));
    pack(dtype, source.data(), source_bytes(dtype, 1, kCols), kRows, 32, kCols - 32, packed.data());
    sum = (sum ^ chunk_checksum(packed.data(), packed.size())) * kPrime;
  }
  return sum;
}

Status write_arena(const Arena& arena, const std::string& path, size_t begin, size_t bytes, uint64_t offset) {
  if (begin > arena.content_bytes() || bytes > arena.content_bytes() - begin)
    return Status::error(Code::InvalidArgument, "bytes beyond the arena");
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return io_error(path, "open");
  const std::byte* data = arena.content() + begin;
  Status status;
  while (bytes > 0 && status.ok()) {
    const ssize_t written = pwrite(fd, data, bytes, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      status = io_error(path, "write");
      break;
    }
    data += written;
    bytes -= static_cast<size_t>(written);
    offset += static_cast<uint64_t>(written);
  }
  if (::close(fd) != 0 && status.ok()) status = io_error(path, "close");
  return status;
}

Status map_arenas(WeightStore& store, const std::string& path, const std::vector<ArenaSegment>& segments,
                  uint32_t threads) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return io_error(path, "open");
  std::vector<std::unique_ptr<Arena>> arenas;
  Status status;
  for (const ArenaSegment& segment : segments) {
    arenas.push_back(std::make_unique<Arena>());
    if (!arenas.back()->map(fd, segment.offset, segment.size)) {
      status = io_error(path, "mmap");
      break;
    }
    if (checksum_bytes(arenas.back()->content(), segment.size, threads) != segment.checksum) {
      status = Status::error(Code::WeightValue, path + ": its checksum is another");
      break;
    }
  }
  ::close(fd);
  return status.ok() ? store.replace_arenas(std::move(arenas)) : status;
}

}  // namespace nearmoe
