// Runs the kernel test cases: one line "ok NAME" or "FAILED NAME: what" for each. Arguments: --list prints
// the names,
// --fixtures PATH tells where test/native/fixtures lies, anything else runs only the cases whose name
// contains it. test/native/kernels.test.ts shows each line as a test.
#include "kernels/cases.h"

int main(int argc, char** argv) {
  using namespace nearmoe::testing;
  std::string filter, fixtures = NEARMOE_SOURCE_DIR "/test/native/fixtures";
  bool list = false;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--list") {
      list = true;
    } else if (argument == "--fixtures" && i + 1 < argc) {
      fixtures = argv[++i];
    } else {
      filter = argument;
    }
  }
  Cases cases;
  add_dispatch_cases(cases);
  add_format_cases(cases, fixtures + "/kernels_gguf.bin");
  add_packing_cases(cases);
  add_vector_cases(cases);
  add_matmul_cases(cases);
  add_attention_cases(cases);
  add_latent_attention_cases(cases);
  add_recurrent_cases(cases);
  int failures = 0, run = 0;
  for (const Case& c : cases) {
    if (c.name.find(filter) == std::string::npos) continue;
    ++run;
    const std::string wrong = list ? "" : c.run();
    if (list) {
      std::printf("%s\n", c.name.c_str());
    } else if (wrong.empty()) {
      std::printf("ok %s\n", c.name.c_str());
    } else {
      std::printf("FAILED %s: %s\n", c.name.c_str(), wrong.c_str());
      ++failures;
    }
    std::fflush(stdout);
  }
  return failures == 0 && run > 0 ? 0 : 1;
}
