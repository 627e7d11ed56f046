// Choosing an ISA: every table that runs here can be forced by name, unknown names give none, the best is the
// default.
#include <cstdlib>

#include "cases.h"

namespace nearmoe::testing {
namespace {

std::string check_forced(const OpTable* ops) {
  if (select_ops(ops->isa) != ops) return "select_ops(name) gives another table";
  setenv("NEARMOE_ISA", ops->isa, 1);
  const OpTable* by_environment = select_ops(nullptr);
  unsetenv("NEARMOE_ISA");
  return by_environment == ops ? "" : "NEARMOE_ISA gives another table";
}

/// Every name of a table that is not runnable here gives none, by argument and by environment.
std::string check_refused() {
  for (const char* isa : {"scalar", "avx2", "avxvnni", "avx512", "amx", "neon", "dotprod", "i8mm"}) {
    bool runs = false;
    for (const OpTable* ops : tables()) runs = runs || std::strcmp(ops->isa, isa) == 0;
    setenv("NEARMOE_ISA", isa, 1);
    const OpTable* by_environment = select_ops(nullptr);
    unsetenv("NEARMOE_ISA");
    if ((select_ops(isa) != nullptr) != runs || (by_environment != nullptr) != runs) {
      return format("%s is %s", isa, runs ? "runnable and refused" : "not runnable and given");
    }
  }
  return {};
}

std::string check_choice() {
  unsetenv("NEARMOE_ISA");
  if (select_ops("no-such-isa")) return "an unknown name gave a table";
  if (tables().front() != &kScalarOps) return "the first runnable table is not the scalar one";
  return select_ops(nullptr) == tables().back() ? "" : "the default is not the last runnable table";
}

}  // namespace

void add_dispatch_cases(Cases& cases) {
  cases.push_back({"dispatch takes the best table and refuses unknown names", check_choice});
  cases.push_back({"dispatch refuses tables that this CPU cannot run", check_refused});
  for (const OpTable* ops : tables()) {
    cases.push_back({format("%s can be forced", ops->isa), [ops] { return check_forced(ops); }});
  }
}

}  // namespace nearmoe::testing
