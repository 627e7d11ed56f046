#include "cpu_topology.h"

#include <dirent.h>
#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>
#include <string>
#include <tuple>

namespace nearmoe {
namespace {

int read_int(const std::string& path, int otherwise) {
  std::ifstream file(path);
  int value = otherwise;
  return file >> value ? value : otherwise;
}

int numa_node(const std::string& cpu_dir) {
  int node = 0;
  DIR* dir = opendir(cpu_dir.c_str());
  if (dir == nullptr) return node;
  while (const dirent* entry = readdir(dir)) {
    if (std::strncmp(entry->d_name, "node", 4) == 0) node = std::atoi(entry->d_name + 4);
  }
  closedir(dir);
  return node;
}

/// Of the thread that asks first: later ones may have been pinned by a device.
const cpu_set_t& allowed_set() {
  static const cpu_set_t allowed = [] {
    cpu_set_t set;
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof set, &set);
    return set;
  }();
  return allowed;
}

}  // namespace

CpuTopology read_cpu_topology() {
  struct Cpu {
    int sibling_rank, node, id;
  };
  std::vector<Cpu> cpus;
  std::set<std::tuple<int, int, int>> cores;
  std::set<int> nodes;
  for (int id = 0; id < CPU_SETSIZE; ++id) {
    if (!CPU_ISSET(static_cast<size_t>(id), &allowed_set())) continue;
    const std::string dir = "/sys/devices/system/cpu/cpu" + std::to_string(id);
    const int node = numa_node(dir);
    const int package = read_int(dir + "/topology/physical_package_id", 0);
    const bool first = cores.emplace(node, package, read_int(dir + "/topology/core_id", id)).second;
    nodes.insert(node);
    cpus.push_back({first ? 0 : 1, node, id});
  }
  std::stable_sort(cpus.begin(), cpus.end(), [](const Cpu& a, const Cpu& b) {
    return std::tie(a.sibling_rank, a.node, a.id) < std::tie(b.sibling_rank, b.node, b.id);
  });
  CpuTopology topology;
  for (const Cpu& cpu : cpus) {
    topology.allowed_cpus.push_back(cpu.id);
    topology.node_of.push_back(cpu.node);
  }
  topology.physical_cores = static_cast<uint32_t>(std::max<size_t>(cores.size(), 1));
  topology.numa_nodes = static_cast<uint32_t>(std::max<size_t>(nodes.size(), 1));
  return topology;
}

}  // namespace nearmoe
