// One piece of loading: part of a source matrix into a slice of an arena, in its own format or quantised on
// the way. Made by WeightStore, run by the ranks' own threads so that first touch puts each slice on its
// unit's memory.
#pragma once

#include "source_rows.h"

namespace nearmoe {

struct PackTask {
  SourceRows source;
  DType held;  ///< format of the slice
  uint32_t rows, col_begin, cols;
  std::byte* dst;
  int64_t table_row;
  bool transposed = false;   ///< the source is [matrix_cols][rows of the matrix]
  uint32_t row_begin = 0;    ///< transposed: the slice's first row
  uint32_t matrix_cols = 0;  ///< transposed: columns of the whole matrix
};

/// Fills the slice. False where a value or scale is NaN or infinite. Where formats or layouts differ, rows go
/// through a buffer in groups of kRowGroup, so that no more than a few rows are held besides; a superblock
/// that reaches beyond the source's columns is filled up with zeros.
bool run_pack_task(const PackTask& task);

}  // namespace nearmoe
