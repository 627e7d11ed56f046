// Which CPUs this process may use, one hardware thread per physical core first, and their NUMA nodes.
#pragma once

#include <cstdint>
#include <vector>

namespace nearmoe {

struct CpuTopology {
  std::vector<int> allowed_cpus;  ///< first threads of physical cores (node by node), then their siblings
  std::vector<int> node_of;       ///< NUMA node of allowed_cpus[i]
  uint32_t physical_cores = 1;
  uint32_t numa_nodes = 1;
};

CpuTopology read_cpu_topology();

}  // namespace nearmoe
