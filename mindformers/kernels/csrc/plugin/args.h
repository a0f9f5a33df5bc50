// What an entry of MindSpore's op plugin gets, in a form that is pleasant to use: views of the tensors with their
// strides, scalars by index, and refusals as exceptions that stay inside the entry.
#pragma once

#include <cstdint>
#include <cstddef>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../dtype.h"
#include "../error.h"

namespace mf {
namespace plugin {

// The interface that MindSpore passes as `extra` (mindspore::kernel::op_plugin::KernelInputInfo, header
// include/mindspore/ops/kernel/cpu/op_plugin/custom_kernel_input_info.h of its wheel), declared again so that the
// library builds without MindSpore. Only the order of the virtual functions counts: it is that of 2.9 and 2.10, and
// the library is not loaded for other versions. GetStrInput must not be called: the library has its own libstdc++, and
// an empty old-ABI string cannot be freed by another one than made it. String attributes come as numbers of an enum.
struct StorageInfo {
  std::vector<int64_t> strides;  // elements
  size_t storage_offset;         // elements
};

struct OutputShapeInfo {
  std::vector<std::vector<int64_t>> output_shapes;
  std::vector<bool> shape_calculated;
};

class KernelInputInfo {
 public:
  virtual ~KernelInputInfo() = default;
  virtual bool IsScalarInput(size_t index) = 0;
  virtual size_t GetInputSize() = 0;
  virtual bool GetBoolInput(size_t index) = 0;
  virtual int64_t GetIntInput(size_t index) = 0;
  virtual double GetFloatInput(size_t index) = 0;
  virtual std::string GetStrInput(size_t index) = 0;
  virtual std::vector<int64_t> GetIntVecInput(size_t index) = 0;
  virtual std::vector<double> GetFloatVecInput(size_t index) = 0;
  virtual std::vector<std::vector<int64_t>> GetInt2DVecInput(size_t index) = 0;
  virtual std::vector<std::vector<double>> GetFloat2DVecInput(size_t index) = 0;
  virtual int GetInputTypeId(size_t index) = 0;
  virtual std::optional<StorageInfo> GetInputTensorLayout(size_t index) = 0;
  virtual OutputShapeInfo *GetOutputShapeInfo() = 0;
  virtual void SetOutputShapeInfo(std::unique_ptr<OutputShapeInfo>) = 0;
};

inline bool is_half(DType type) { return type == F16 || type == BF16; }
inline bool is_float(DType type) { return type == F32 || is_half(type); }

// An op that cannot do what it is asked for; the entry returns non-zero and the text is mf_last_error().
struct Refusal : std::runtime_error {
  using std::runtime_error::runtime_error;
};

[[noreturn]] void refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Turns the failure of a kernel into a refusal.
inline void check(int failed) {
  if (failed) throw Refusal(mf_last_error());
}

// A tensor as it lies in memory; strides in elements. data points at its first element.
struct View {
  void *data = nullptr;
  DType type = NONE;
  std::vector<int64_t> shape, strides;

  explicit operator bool() const { return type != NONE; }
  int rank() const { return static_cast<int>(shape.size()); }
  int64_t size() const;
  int64_t dim(int axis) const { return shape[axis < 0 ? axis + rank() : axis]; }
  int64_t stride(int axis) const { return strides[axis < 0 ? axis + rank() : axis]; }
  bool contiguous() const;
  bool rows_contiguous() const { return shape.empty() || shape.back() == 1 || strides.back() == 1; }
  template <typename T>
  T *as() const {
    return static_cast<T *>(data);
  }
};

std::string shape_text(const std::vector<int64_t> &shape);  // "[2, 3]"
std::vector<int64_t> dense_strides(const std::vector<int64_t> &shape);

// Copy `from` into dense row-major memory of the same element type.
void copy_dense(const View &from, void *to);

// The elements of a view, dense: the view's own memory where it is dense already, else a copy that lives as long as
// this object.
class Dense {
 public:
  explicit Dense(const View &view);
  const void *data() const { return data_; }
  template <typename T>
  const T *as() const {
    return static_cast<const T *>(data_);
  }

 private:
  std::unique_ptr<char[]> copy_;
  const void *data_;
};

// The elements of a float view as dense float32; a copy only where it must be.
class Floats {
 public:
  explicit Floats(const View &view);
  const float *data() const { return data_; }

 private:
  std::unique_ptr<char[]> copy_;
  std::unique_ptr<float[]> wide_;
  const float *data_;
};

// A view as a matrix: its first `axes` axes joined are the rows, the others a row, which is contiguous. The view's own
// memory where it lies so, else a copy.
struct Rows {
  Rows(const View &view, int axes);
  void *data = nullptr;
  DType type = NONE;
  int64_t rows = 1, width = 1, stride = 1;

 private:
  std::unique_ptr<char[]> copy_;
};

// Dense float32 that is written to `out` (dense, any float type) by store(); out's own memory when it is float32.
class FloatsOut {
 public:
  explicit FloatsOut(const View &out);
  float *data() { return data_; }
  void store();

 private:
  View out_;
  std::unique_ptr<float[]> wide_;
  float *data_;
};

// Dense arrays between float32 and `type`, rounding to nearest even; in parallel when they are large.
void widen(const void *from, DType type, float *to, int64_t count);
void narrow(const float *from, void *to, DType type, int64_t count);

class Args {
 public:
  Args(int count, void **params, int *ndims, int64_t **shapes, const char **dtypes, void *extra)
      : count_(count), params_(params), ndims_(ndims), shapes_(shapes), dtypes_(dtypes),
        info_(static_cast<KernelInputInfo *>(extra)), inputs_(info_->GetInputSize()) {}

  size_t inputs() const { return inputs_; }
  size_t outputs() const { return static_cast<size_t>(count_) - inputs_; }
  bool absent(size_t index) const;                         // None was passed
  View input(size_t index) const;                          // offset and strides of PYNATIVE views applied
  View dense_input(size_t index, const char *name) const;  // refuses strided views: for tensors written in place
  View output(size_t index) const;                         // always dense
  int64_t integer(size_t index) const { return info_->GetIntInput(index); }
  double number(size_t index) const { return info_->GetFloatInput(index); }
  bool flag(size_t index) const { return info_->GetBoolInput(index); }
  std::vector<int64_t> integers(size_t index) const;       // a tuple of ints, or a dense int tensor; empty for None
  KernelInputInfo *info() const { return info_; }

 private:
  View view(size_t index) const;

  int count_;
  void **params_;
  int *ndims_;
  int64_t **shapes_;
  const char **dtypes_;
  KernelInputInfo *info_;
  size_t inputs_;
};

// Puts an op into the list that MindSpore reads. `limits` is shown to users: types and what is refused.
struct Registrar {
  Registrar(const char *name, const char *limits);
};

int call(const char *name, void (*run)(Args &), int count, void **params, int *ndims, int64_t **shapes,
         const char **dtypes, void *extra);

}  // namespace plugin
}  // namespace mf

// MF_PLUGIN_OP(RmsNorm, "float32, float16, bfloat16") { ... args.input(0) ... }: the kernel of a primitive. The body
// may call refuse(); nothing may throw inside parallel_for.
#define MF_PLUGIN_OP(NAME, LIMITS)                                                                          \
  static void run_##NAME(mf::plugin::Args &args);                                                           \
  static const mf::plugin::Registrar registrar_##NAME(#NAME, LIMITS);                                       \
  MF_EXPORT int NAME(int count, void **params, int *ndims, int64_t **shapes, const char **dtypes, \
                                void *, void *extra) {                                                      \
    return mf::plugin::call(#NAME, run_##NAME, count, params, ndims, shapes, dtypes, extra);                \
  }                                                                                                         \
  static void run_##NAME(mf::plugin::Args &args)
