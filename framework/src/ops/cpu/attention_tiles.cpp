#include "ops/cpu/attention_tiles.h"

#include <ATen/native/CPUBlas.h>
#include <torch/types.h>

#include <algorithm>

#include "ops/cpu/dispatch.h"

namespace peft {

namespace {

using simd::Bf16;
using simd::kTileQueries;

// Keys per product: libtorch generates code for each size, so there should be few sizes.
constexpr int64_t kKeys = 1024;
// Number of tasks that balances well over a few threads.
constexpr int64_t kTasks = 8;

bool enabled = true;

int64_t padded_to_tiles(int64_t rows) { return (rows + kTileQueries - 1) / kTileQueries * kTileQueries; }

#if defined(CPUBLAS_BRGEMM_BF16BF16F32) && defined(__x86_64__)
/// c [m, n] = or += a [m, k] · b, whose rows 2i and 2i + 1 are interleaved.
void multiply(int64_t m, int64_t n, int64_t k, const Bf16* a, int64_t lda, const Bf16* b, int64_t ldb, float* c,
              int64_t ldc, bool add) {
  at::native::cpublas::brgemm(m, n, k, lda, ldb, ldc, add, reinterpret_cast<const at::BFloat16*>(a),
                              reinterpret_cast<const at::BFloat16*>(b), c);
}
void release() { at::native::cpublas::brgemm_release(); }

/// True if libtorch multiplies interleaved rows on this machine. Without the instructions it reads them as plain rows.
bool multiplies_pairs() {
  constexpr int64_t n = 32;
  const Tensor a = at::arange(n * n, at::kFloat).remainder(7).to(at::kBFloat16).view({n, n});
  const Tensor b = at::arange(n * n, at::kFloat).remainder(5).to(at::kBFloat16).view({n, n});
  const Tensor pairs = b.view({n / 2, 2, n}).transpose(1, 2).contiguous(), c = at::zeros({n, n}, at::kFloat);
  multiply(n, n, n, data<Bf16>(a), n, data<Bf16>(pairs), n, data<float>(c), n, false);
  release();
  return at::equal(c, at::mm(a.to(at::kFloat), b.to(at::kFloat)));
}

bool has_tiles() {
  static const bool has = __builtin_cpu_supports("avx512bf16") && multiplies_pairs();
  return has;
}
#else
void multiply(int64_t, int64_t, int64_t, const Bf16*, int64_t, const Bf16*, int64_t, float*, int64_t, bool) {}
void release() {}
bool has_tiles() { return false; }
#endif

/// One head of keys of one example, with some of its query heads.
struct Task {
  int64_t example, kv_head, first_head, heads, part;
};

struct Work {
  const AttentionTensors& t;
  const std::vector<int64_t>& cu_seqlens;
  double scale;
  int64_t parts;

  int64_t tokens(const Task& task) const {
    const auto e = static_cast<size_t>(task.example);
    return cu_seqlens[e + 1] - cu_seqlens[e];
  }
  Bf16* at(const Tensor& x, const Task& task, int64_t head) const {
    return data<Bf16>(x) + cu_seqlens[static_cast<size_t>(task.example)] * x.stride(0) + head * x.stride(1);
  }
  float* log_sum(const Task& task, int64_t head) const {
    return data<float>(t.log_sum) + head * t.q.size(0) + cu_seqlens[static_cast<size_t>(task.example)];
  }
};

std::vector<Task> tasks(const Work& work) {
  const int64_t kv_heads = work.t.k.size(1), each = work.t.q.size(1) / kv_heads / work.parts;
  std::vector<Task> all;
  for (int64_t example = 0; example + 1 < static_cast<int64_t>(work.cu_seqlens.size()); ++example)
    for (int64_t kv = 0; kv < kv_heads; ++kv)
      for (int64_t part = 0; part < work.parts; ++part)
        all.push_back({example, kv, (kv * work.parts + part) * each, each, kv * work.parts + part});
  std::erase_if(all, [&](const Task& task) { return work.tokens(task) == 0; });
  return all;
}

/// Allocates from one thread's scratch memory. With null it only counts the bytes needed.
class Scratch {
 public:
  explicit Scratch(void* memory) : next_(static_cast<std::byte*>(memory)) {}
  template <class T>
  T* take(int64_t elements) {
    std::byte* allocated = next_ + used_;
    used_ += (elements * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return next_ == nullptr ? nullptr : reinterpret_cast<T*>(allocated);
  }
  int64_t bytes() const { return used_; }

 private:
  std::byte* next_;
  int64_t used_ = 0;
};

/// Calls kernel(task, buffers) for each task.
template <class Buffers, class Kernel>
void run(const Work& work, const Kernel& kernel) {
  std::vector<Task> all = tasks(work);
  const int64_t keys = padded_to_tiles(longest(work.cu_seqlens)), width = work.t.q.size(2);
  Scratch measure(nullptr);
  Buffers(measure, keys, width);
  const Tensor memory = at::empty({num_workers(all.size()), measure.bytes()}, torch::kByte);
  parallel_for_tasks(
      all, [&](const Task& task) { return work.tokens(task); },
      [&](int64_t thread, const auto& next) {
        Scratch scratch(data<std::byte>(memory) + thread * measure.bytes());
        const Buffers buffers(scratch, keys, width);
        while (const Task* task = next()) kernel(*task, buffers);
        release();
      });
}

/// Calls f(first, count) for consecutive ranges of at most kKeys keys.
template <class F>
void in_key_ranges(int64_t keys, F f) {
  for (int64_t first = 0; first < keys; first += kKeys) f(first, std::min(kKeys, keys - first));
}

struct ForwardBuffers {
  ForwardBuffers(Scratch& s, int64_t keys, int64_t width)
      : k_columns(s.take<Bf16>(keys * width)),
        v_pairs(s.take<Bf16>(keys * width)),
        q(s.take<Bf16>(kTileQueries * width)),
        p(s.take<Bf16>(kTileQueries * keys)),
        scores(s.take<float>(kTileQueries * keys)),
        out(s.take<float>(kTileQueries * width)) {}
  Bf16 *k_columns, *v_pairs, *q, *p;
  float *scores, *out;
};

/// scores [kTileQueries, seen] = rows · columnsᵀ.
void score(const Bf16* rows, const Bf16* columns, int64_t keys, int64_t seen, int64_t width, float* scores) {
  in_key_ranges(seen, [&](int64_t first, int64_t n) {
    multiply(kTileQueries, n, width, rows, width, columns + 2 * first, keys, scores + first, seen, false);
  });
}

/// out [kTileQueries, width] = weights [kTileQueries, seen] · values.
void mix(const Bf16* weights, const Bf16* pairs, int64_t seen, int64_t width, float* out) {
  in_key_ranges(seen, [&](int64_t first, int64_t n) {
    multiply(kTileQueries, width, n, weights + first, seen, pairs + first * width, width, out, width, first > 0);
  });
}

void forward(const Work& work, const Task& task, const ForwardBuffers& buffers) {
  const simd::TileKernels& tiles = simd::active_isa().tiles;
  const auto& [q, k, v, out, log_sum, dout, dq, dk, dv] = work.t;
  const int64_t n = work.tokens(task), keys = padded_to_tiles(n), width = q.size(2);
  tiles.pack_columns(work.at(k, task, task.kv_head), k.stride(0), n, width, buffers.k_columns, keys);
  tiles.pack_pairs(work.at(v, task, task.kv_head), v.stride(0), n, width, buffers.v_pairs, keys);
  for (int64_t head = task.first_head; head < task.first_head + task.heads; ++head) {
    for (int64_t first = 0; first < n; first += kTileQueries) {
      const int64_t count = std::min(kTileQueries, n - first), seen = padded_to_tiles(first + count);
      tiles.copy_tile(work.at(q, task, head) + first * q.stride(0), q.stride(0), count, width, buffers.q);
      score(buffers.q, buffers.k_columns, keys, seen, width, buffers.scores);
      float inverse[kTileQueries];
      tiles.softmax_tile(buffers.scores, first, count, seen, static_cast<float>(work.scale), buffers.p,
                         work.log_sum(task, head) + first, inverse);
      mix(buffers.p, buffers.v_pairs, seen, width, buffers.out);
      tiles.store_rows(buffers.out, inverse, work.at(out, task, head) + first * out.stride(0), out.stride(0), count,
                       width);
    }
  }
}

struct BackwardBuffers {
  BackwardBuffers(Scratch& s, int64_t keys, int64_t width)
      : k_columns(s.take<Bf16>(keys * width)),
        v_columns(s.take<Bf16>(keys * width)),
        k_pairs(s.take<Bf16>(keys * width)),
        q(s.take<Bf16>(kTileQueries * width)),
        dout(s.take<Bf16>(kTileQueries * width)),
        transposed(s.take<Bf16>(kTileQueries * width)),
        scratch(s.take<Bf16>(kTileQueries * width)),
        p_pairs(s.take<Bf16>(kTileQueries * keys)),
        ds_pairs(s.take<Bf16>(kTileQueries * keys)),
        ds(s.take<Bf16>(kTileQueries * keys)),
        scores(s.take<float>(kTileQueries * keys)),
        dp(s.take<float>(kTileQueries * keys)),
        dq(s.take<float>(kTileQueries * width)),
        dk(s.take<float>(keys * width)),
        dv(s.take<float>(keys * width)) {}
  Bf16 *k_columns, *v_columns, *k_pairs, *q, *dout, *transposed, *scratch, *p_pairs, *ds_pairs, *ds;
  float *scores, *dp, *dq, *dk, *dv;  // dk, dv: [width, keys]
};

/// sum [width, keys] += rowsᵀ · weights, whose rows are interleaved.
void gather(const Bf16* rows, const Bf16* weights, int64_t seen, int64_t keys, int64_t width,
            const BackwardBuffers& buffers, float* sum) {
  simd::active_isa().tiles.transpose_tile(rows, width, buffers.transposed, buffers.scratch);
  in_key_ranges(seen, [&](int64_t first, int64_t n) {
    multiply(width, n, kTileQueries, buffers.transposed, kTileQueries, weights + 2 * first, seen, sum + first, keys,
             true);
  });
}

void backward_tile(const Work& work, const Task& task, int64_t head, int64_t first, const BackwardBuffers& buffers) {
  const simd::TileKernels& tiles = simd::active_isa().tiles;
  const auto& [q, k, v, out, log_sum, dout, dq, dk, dv] = work.t;
  const int64_t n = work.tokens(task), keys = padded_to_tiles(n), width = q.size(2);
  const int64_t count = std::min(kTileQueries, n - first), seen = padded_to_tiles(first + count);
  const auto rows = [&](const Tensor& x) { return work.at(x, task, head) + first * x.stride(0); };
  tiles.copy_tile(rows(q), q.stride(0), count, width, buffers.q);
  tiles.copy_tile(rows(dout), dout.stride(0), count, width, buffers.dout);
  score(buffers.q, buffers.k_columns, keys, seen, width, buffers.scores);
  score(buffers.dout, buffers.v_columns, keys, seen, width, buffers.dp);
  float inner[kTileQueries];
  tiles.inner_products(rows(out), out.stride(0), rows(dout), dout.stride(0), count, width, inner);
  tiles.score_gradients({buffers.scores, buffers.dp, work.log_sum(task, head) + first, inner, first, count, seen,
                         static_cast<float>(work.scale), buffers.p_pairs, buffers.ds_pairs, buffers.ds});
  mix(buffers.ds, buffers.k_pairs, seen, width, buffers.dq);
  tiles.store_rows(buffers.dq, nullptr, rows(dq), dq.stride(0), count, width);
  gather(buffers.dout, buffers.p_pairs, seen, keys, width, buffers, buffers.dv);
  gather(buffers.q, buffers.ds_pairs, seen, keys, width, buffers, buffers.dk);
}

void backward(const Work& work, const Task& task, const BackwardBuffers& buffers) {
  const simd::TileKernels& tiles = simd::active_isa().tiles;
  const auto& [q, k, v, out, log_sum, dout, dq, dk, dv] = work.t;
  const int64_t n = work.tokens(task), keys = padded_to_tiles(n), width = q.size(2);
  tiles.pack_columns(work.at(k, task, task.kv_head), k.stride(0), n, width, buffers.k_columns, keys);
  tiles.pack_columns(work.at(v, task, task.kv_head), v.stride(0), n, width, buffers.v_columns, keys);
  tiles.pack_pairs(work.at(k, task, task.kv_head), k.stride(0), n, width, buffers.k_pairs, keys);
  std::fill_n(buffers.dk, keys * width, 0.0f);
  std::fill_n(buffers.dv, keys * width, 0.0f);
  for (int64_t head = task.first_head; head < task.first_head + task.heads; ++head)
    for (int64_t first = 0; first < n; first += kTileQueries) backward_tile(work, task, head, first, buffers);
  tiles.store_columns(buffers.dk, keys, work.at(dk, task, task.part), dk.stride(0), n, width);
  tiles.store_columns(buffers.dv, keys, work.at(dv, task, task.part), dv.stride(0), n, width);
}

}  // namespace

int64_t longest(const std::vector<int64_t>& cu_seqlens) {
  int64_t length = 0;
  for (size_t i = 0; i + 1 < cu_seqlens.size(); ++i) length = std::max(length, cu_seqlens[i + 1] - cu_seqlens[i]);
  return length;
}

bool attends_in_tiles(const Tensor& q) {
  const int64_t width = q.size(2);
  return enabled && q.is_cpu() && q.scalar_type() == torch::kBFloat16 && width % 16 == 0 &&
         width <= simd::kTileWidest && has_tiles();
}

void enable_tiles(bool on) { enabled = on; }

int64_t group_parts(const Tensor& q, const Tensor& k, const std::vector<int64_t>& cu_seqlens) {
  const auto examples = static_cast<int64_t>(cu_seqlens.size()) - 1;
  return examples * k.size(1) >= kTasks ? 1 : q.size(1) / k.size(1);
}

void attention_in_tiles(const AttentionTensors& t, const std::vector<int64_t>& cu_seqlens, double scale) {
  const Work work{t, cu_seqlens, scale, group_parts(t.q, t.k, cu_seqlens)};
  run<ForwardBuffers>(work, [&](const Task& task, const ForwardBuffers& buffers) { forward(work, task, buffers); });
}

void attention_backward_in_tiles(const AttentionTensors& t, const std::vector<int64_t>& cu_seqlens, double scale) {
  const Work work{t, cu_seqlens, scale, group_parts(t.q, t.k, cu_seqlens)};
  run<BackwardBuffers>(work, [&](const Task& task, const BackwardBuffers& buffers) { backward(work, task, buffers); });
}

}  // namespace peft
