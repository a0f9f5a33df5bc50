// With any op plugin loaded, MindSpore 2.9 and 2.10 stop making strided views contiguous before they reach a CPU kernel:
// they expect a plugin that owns every op. MindSpore's own kernels ignore strides, so that `x.T + x.T` is wrong without
// a word (PYNATIVE: ValueConverter::ContiguousTensorValue asks GetOpPluginHandle; GRAPH: view ops become views when
// MS_OP_PLUGIN_PATH is set). Both questions are answered "no plugin" here, by replacing the two functions in the import
// tables of the libraries that ask them; those that look for kernels keep the true answer.
#include "views.h"

#include <dlfcn.h>
#include <elf.h>
#include <execinfo.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace mf {
namespace plugin {
namespace {

constexpr const char *kHandle = "_ZN9mindspore3ops17GetOpPluginHandleEv";
constexpr const char *kEnvironment = "_ZN9mindspore6common9EnvHelper6GetEnvEPKcb";

using Environment = const char *(*)(void *, const char *, bool);
Environment environment = nullptr;

void *no_handle() { return nullptr; }

const char *without_plugin(void *self, const char *name, bool cached) {
  return std::strcmp(name, "MS_OP_PLUGIN_PATH") == 0 ? nullptr : environment(self, name, cached);
}

struct Import {
  const char *library, *symbol;
  void *replacement;
  bool library_seen, replaced, already;
};

bool overwrite(void **slot, void *value) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  void *start = reinterpret_cast<void *>(reinterpret_cast<uintptr_t>(slot) & ~(page - 1));
  // the table is read-only after loading (RELRO)
  if (mprotect(start, page, PROT_READ | PROT_WRITE) != 0) return false;
  __atomic_store_n(slot, value, __ATOMIC_RELEASE);
  return mprotect(start, page, PROT_READ) == 0;
}

// The import tables of one loaded library.
struct Tables {
  const ElfW(Sym) *symbols = nullptr;
  const char *names = nullptr;
  const ElfW(Rela) *calls = nullptr;
  size_t calls_size = 0;

  Tables(const dl_phdr_info *info) {
    for (int i = 0; i < info->dlpi_phnum; ++i) {
      if (info->dlpi_phdr[i].p_type != PT_DYNAMIC) continue;
      const auto *entry = reinterpret_cast<const ElfW(Dyn) *>(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
      for (; entry->d_tag != DT_NULL; ++entry) {
        const ElfW(Addr) at = entry->d_un.d_ptr;
        if (entry->d_tag == DT_SYMTAB) symbols = reinterpret_cast<const ElfW(Sym) *>(at);
        if (entry->d_tag == DT_STRTAB) names = reinterpret_cast<const char *>(at);
        if (entry->d_tag == DT_JMPREL) calls = reinterpret_cast<const ElfW(Rela) *>(at);
        if (entry->d_tag == DT_PLTRELSZ) calls_size = entry->d_un.d_val;
      }
    }
  }

  void **slot(ElfW(Addr) base, const char *symbol) const {
    if (!symbols || !names || !calls) return nullptr;
    for (size_t i = 0; i < calls_size / sizeof(ElfW(Rela)); ++i) {
      if (std::strcmp(names + symbols[ELF64_R_SYM(calls[i].r_info)].st_name, symbol) == 0) {
        return reinterpret_cast<void **>(base + calls[i].r_offset);
      }
    }
    return nullptr;
  }
};

int visit(dl_phdr_info *info, size_t, void *data) {
  for (auto *import = static_cast<Import *>(data); import->library; ++import) {
    const char *file = info->dlpi_name ? std::strrchr(info->dlpi_name, '/') : nullptr;
    if (!file || std::strcmp(file + 1, import->library) != 0) continue;
    import->library_seen = true;
    void **slot = Tables(info).slot(info->dlpi_addr, import->symbol);
    if (!slot) continue;
    if (*slot == import->replacement) {
      import->replaced = import->already = true;
      continue;
    }
    if (std::strcmp(import->symbol, kEnvironment) == 0) environment = reinterpret_cast<Environment>(*slot);
    import->replaced = overwrite(slot, import->replacement);
  }
  return 0;
}

enum class Imports { kNoMindSpore, kImpossible, kReplacedNow, kReplacedBefore };

Imports replace_imports() {
  void *handle = reinterpret_cast<void *>(&no_handle), *value = reinterpret_cast<void *>(&without_plugin);
  Import imports[] = {{"libmindspore_pyboost.so", kHandle, handle, false, false, false},
                      {"libmindspore_pynative.so", kHandle, handle, false, false, false},
                      {"libmindspore_ms_backend.so", kEnvironment, value, false, false, false},
                      {nullptr, nullptr, nullptr, false, false, false}};
  dl_iterate_phdr(visit, imports);
  int seen = 0, already = 0;
  for (const Import *import = imports; import->library; ++import) {
    if (import->library_seen && !import->replaced) return Imports::kImpossible;
    seen += import->library_seen;
    already += import->already;
  }
  if (!seen) return Imports::kNoMindSpore;
  return already == seen ? Imports::kReplacedBefore : Imports::kReplacedNow;
}

const char *file_of(const void *address) {
  Dl_info info;
  if (!dladdr(address, &info) || !info.dli_fname) return "";
  const char *slash = std::strrchr(info.dli_fname, '/');
  return slash ? slash + 1 : info.dli_fname;
}

// Each of the two places that ask for the handle keeps the first answer: `static bool kept = GetOpPluginHandle() != nullptr`.
// When a view comes first in a process, that question is what loads this library, too late for the import table. Then the
// instruction that will keep the answer (setne, run this once) becomes one that keeps "no".
struct Asked {
  bool inside = false;    // this library is being loaded by such a question
  bool answered = false;  // and the answer is changed

  Asked() {
    void *frames[64];
    const int depth = backtrace(frames, 64);
    for (int i = 1; i < depth && !inside; ++i) {
      if (std::strcmp(file_of(frames[i - 1]), "libmindspore_ops.so") != 0) continue;
      const char *file = file_of(frames[i]);
      inside = std::strcmp(file, "libmindspore_pynative.so") == 0 || std::strcmp(file, "libmindspore_pyboost.so") == 0;
      if (inside) answered = answer_no(static_cast<uint8_t *>(frames[i]));
    }
  }

 private:
  static bool answer_no(uint8_t *code) {
#if defined(__x86_64__)
    constexpr uint8_t kTest[] = {0x48, 0x85, 0xc0}, kSetne[] = {0x0f, 0x95, 0x05};  // test %rax,%rax; setne offset(%rip)
    if (std::memcmp(code, kTest, sizeof kTest) != 0) return false;
    const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    for (uint8_t *at = code + sizeof kTest; at < code + 24; ++at) {
      if (std::memcmp(at, kSetne, sizeof kSetne) != 0) continue;
      void *start = reinterpret_cast<void *>(reinterpret_cast<uintptr_t>(at + 1) & ~(page - 1));
      if (mprotect(start, page, PROT_READ | PROT_WRITE | PROT_EXEC) != 0) return false;
      at[1] = 0x90;  // seto: there is never an overflow after a test
      mprotect(start, page, PROT_READ | PROT_EXEC);
      return true;
    }
#else
    static_cast<void>(code);
#endif
    return false;
  }
};

[[noreturn]] void too_late() {
  // MindSpore's own ops on views would be wrong from here on, whatever this library lists.
  std::fprintf(stderr, "mindformers kernels: the op plugin was prepared too late to be safe. `import mindformers.kernels"
                       ".select` before the first operator, or call GetRegisteredOpCount() of this library after "
                       "`import mindspore`.\n");
  std::abort();
}

// At load, which is as early as can be.
const Asked asked;
const Imports at_load = replace_imports();

}  // namespace

bool restore_contiguous_inputs(const void *caller) {
  if (asked.inside && !asked.answered) too_late();
  const Imports now = replace_imports();
  // Loaded before MindSpore was, and asked for its ops by MindSpore: it may have asked for the handle before.
  if (now == Imports::kReplacedNow && std::strcmp(file_of(caller), "libmindspore_ops.so") == 0) too_late();
  return now != Imports::kImpossible && at_load != Imports::kImpossible;
}

}  // namespace plugin
}  // namespace mf
