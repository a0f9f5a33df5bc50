#include "version.h"

#include <link.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include "../error.h"

MF_EXPORT const char *mf_mindspore_versions();

namespace mf {
namespace plugin {
namespace {

int find_core(dl_phdr_info *info, size_t, void *folder) {
  const char *file = std::strrchr(info->dlpi_name, '/');
  if (file == nullptr || std::strcmp(file, "/libmindspore_core.so") != 0) return 0;
  *static_cast<std::string *>(folder) = std::string(info->dlpi_name, file);
  return 1;
}

// __version__ = '2.10.0' of the package whose lib/ is `folder`; "" when it cannot be told.
std::string version_of(const std::string &folder) {
  std::ifstream file(folder + "/../version.py");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("__version__", 0) != 0) continue;
    const size_t begin = line.find_first_of("'\""), end = line.find_last_of("'\"");
    if (begin < end) return line.substr(begin + 1, end - begin - 1);
  }
  return "";
}

bool is_tested(const std::string &version) {
  std::istringstream versions(mf_mindspore_versions());
  for (std::string tested; versions >> tested;) {
    if (tested == version) return true;
  }
  return false;
}

}  // namespace

void require_tested_mindspore() {
  std::string folder;
  if (dl_iterate_phdr(find_core, &folder) == 0) return;
  const std::string version = version_of(folder);
  if (is_tested(version)) return;
  std::fprintf(stderr, "mindformers kernels: this op plugin was built for MindSpore %s, and this is %s. Unset "
                       "MS_OP_PLUGIN_PATH, or install the mindformers of this MindSpore.\n",
               mf_mindspore_versions(), version.empty() ? "of unknown version" : version.c_str());
  _exit(1);
}

}  // namespace plugin
}  // namespace mf
