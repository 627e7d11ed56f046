// The C ABI between the engine and a GPU backend. A backend is a shared library of its own
// (libnearmoe_cuda.so, or libnearmoe_gpu_emulated.so, which runs the same kernels on the CPU) that the engine
// opens with dlopen and never links. The one exported symbol is nm_gpu_open; everything else is in the table
// it returns.
//
// Threads: calls on one context are serialised by the caller, any thread may make them; contexts are
// independent. No call throws, aborts or keeps a pointer to the caller's memory unless its text says so.
// Every call returns an NmGpuCode; the text of a failure is in the caller's NmGpuError or
// NmGpuBackend.last_error. Weights, KV blocks and activations have the layouts of kernels/ops.h; T tokens, H
// hidden, K experts per token.
//
// One step: begin_step; for each layer run_attention, then for MoE layers wait_routing, submit_experts and
// one add_partial per NDP partial sum; run_logits, wait_logits. A dense layer is complete with run_attention.
// Times are microseconds of std::chrono::steady_clock.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Raised with every change of this file that an older engine or backend would misread.
#define NM_GPU_ABI 5

typedef struct NmGpuContext NmGpuContext;

typedef int32_t NmGpuCode;
enum {
  NM_GPU_OK = 0,
  NM_GPU_NO_DRIVER = 1,         ///< libcuda.so.1 is not there: no NVIDIA driver
  NM_GPU_DRIVER_TOO_OLD = 2,    ///< the message names the version found and the one needed
  NM_GPU_NO_DEVICE = 3,         ///< a driver, but no device that the library has code for
  NM_GPU_INVALID_ARGUMENT = 4,  ///< the message says which, what was expected and what came
  NM_GPU_UNSUPPORTED = 5,       ///< legal, but not done by this backend (a weight format, a head size)
  NM_GPU_OUT_OF_MEMORY = 6,     ///< of device or pinned memory; the context stays usable
  NM_GPU_WRONG_ORDER = 7,       ///< a call that the step or load under way does not allow
  NM_GPU_DEVICE_ERROR = 8,      ///< sticky: every later call but destroy and last_error fails alike
};

/// What failed. `call` is the CUDA function or the function of this table, `kernel` the kernel that was
/// launched last before an asynchronous error showed ("" where none).
typedef struct NmGpuError {
  NmGpuCode code;
  int32_t cuda_error;  ///< cudaError_t, 0 where CUDA was not asked
  char call[64];
  char kernel[64];
  char message[384];
} NmGpuError;

typedef struct NmGpuDevice {
  char name[128];
  int32_t compute_capability;  ///< 10 * major + minor
  int32_t multiprocessors;
  int32_t unified_memory;  ///< 1: GPU and CPU share the memory (Jetson); transfers are hand-overs of pointers
  int32_t driver_version;  ///< CUDA version that the driver supports, 1000 * major + 10 * minor
  uint64_t total_bytes;
  uint64_t free_bytes;
  double bandwidth_gbs;  ///< nominal, of device memory; 0 where unknown
} NmGpuDevice;

/// Numbers shared with the runtime: DType, KvDType, RopeStyle, Activation (kernels/dtypes.h, kernels/ops.h)
/// and Role (WEIGHT_ROLES of src/model/model-spec.ts). Own enumerations:
enum { NM_GPU_NORM_RMS = 0, NM_GPU_NORM_LAYER = 1 };
enum {
  NM_GPU_QK_NORM_NONE = 0,
  NM_GPU_QK_NORM_HEAD = 1,
  NM_GPU_QK_NORM_FULL = 2,
  NM_GPU_QK_NORM_HEAD_UNIT = 3,  ///< per head and without a weight
};
enum {
  NM_GPU_SCORING_SOFTMAX = 0,
  NM_GPU_SCORING_TOPK_SOFTMAX = 1,
  NM_GPU_SCORING_SPARSEMIXER = 2,
  NM_GPU_SCORING_SIGMOID = 3,
  NM_GPU_SCORING_TOPK_SIGMOID = 4,
};
enum { NM_GPU_GROUP_SCORE_MAX = 0, NM_GPU_GROUP_SCORE_TOP_TWO_SUM = 1 };
enum { NM_GPU_RECURRENT_NONE = 0, NM_GPU_RECURRENT_GATED_DELTA = 1, NM_GPU_RECURRENT_SHORT_CONV = 2 };

/// Latent attention (LatentSpec of native/runtime/model_spec.h).
typedef struct NmGpuLatent {
  uint32_t query_rank;      ///< 0: queries are projected at once
  uint32_t key_value_rank;  ///< 0: no latent attention; else at most 512, with rope_dim at most 576
  uint32_t nope_dim, rope_dim, value_dim;
} NmGpuLatent;

typedef struct NmGpuAttention {
  uint32_t num_heads, num_kv_heads;  ///< num_heads is a multiple of num_kv_heads
  uint32_t head_dim;                 ///< even, at most 512 (latent attention: any)
  uint32_t qk_norm;
  float clip_qkv;           ///< 0 = off
  float scale;              ///< multiplies q.k
  float softcap;            ///< 0 = none
  uint32_t sliding_window;  ///< 0 = full attention
  int32_t rope;             ///< index into NmGpuModel.ropes, -1 = none
  uint32_t sinks;           ///< attentionSinks will come: a logit per head in the softmax's denominator
  uint32_t chunk_size;      ///< 0 = none; else only keys of the query's own run of so many positions are seen
  float temperature_scale;  ///< 0 = none; queries times 1 + scale * log1p(floor((position + 1) / floor))
  float temperature_floor;
  uint32_t value_norm;      ///< per head and without a weight
  uint32_t keys_as_values;  ///< no value will come: values are the key projection before norm and rotation
  uint32_t output_gate;     ///< outputGate will come: outputs times the sigmoid of its projection
  NmGpuLatent latent;       ///< head_dim is then nope_dim + rope_dim and num_kv_heads 1
} NmGpuAttention;

/// What a layer has in attention's place: a state for each sequence (RecurrentSpec of
/// native/runtime/model_spec.h). Its attention then has no heads.
typedef struct NmGpuRecurrent {
  uint32_t kind;
  uint32_t conv_width;                      ///< in 1 .. 16
  uint32_t channels;                        ///< short convolution
  uint32_t num_key_heads, num_value_heads;  ///< num_value_heads is a multiple of num_key_heads
  uint32_t key_dim, value_dim;              ///< of a head; key_dim at most 256
  uint32_t tiled;                           ///< value head v reads key head v % num_key_heads
} NmGpuRecurrent;

/// Which experts a token gets and with which weights, from logits to which routerBias, where it came, is
/// added.
typedef struct NmGpuRouter {
  uint32_t scoring, norm_topk_prob;  ///< softmax and sigmoid scoring: divide the chosen weights by their sum
  float jitter_eps;                  ///< sparsemixer
  uint32_t selection_bias;           ///< routerSelectionBias will come; softmax and sigmoid scoring
  uint32_t num_groups, chosen_groups;  ///< 1 and 1: no groups; at most 32
  uint32_t group_score;
  float weight_multiplier;
  float logit_multiplier;  ///< 1 beside routerBias
  uint32_t expert_scale;   ///< routerExpertScale will come: a factor on each expert's weights
  uint32_t scales_input;   ///< weights multiply what goes into the experts, not what comes out
} NmGpuRouter;

typedef struct NmGpuFfn {
  uint32_t is_moe;
  uint32_t activation;
  uint32_t intermediate_size;   ///< of the dense block, or of one expert
  uint32_t num_experts, top_k;  ///< at most 1024 and 32
  NmGpuRouter router;
  uint32_t expert_bias;               ///< expertGateBias, expertUpBias, expertDownBias will come
  uint32_t shared_intermediate_size;  ///< 0 = no shared expert
  uint32_t shared_gate_sigmoid;
  /// Router and experts normalise the hidden state for themselves (routerNorm, expertNorm), and what shared
  /// expert and experts put out is normalised (sharedPostNorm, expertPostNorm) before it is added up. With
  /// post_norms only.
  uint32_t branch_norms;
  // Routed experts, as transfers will bring them:
  uint32_t gate_dtype, down_dtype;  ///< DType of gate and up, and of down
  uint32_t hidden_cols;             ///< most that any expert's slices have, each rounded up to 32 rows
} NmGpuFfn;

typedef struct NmGpuLayer {
  NmGpuAttention attention;
  NmGpuFfn ffn;
  uint32_t post_norms;    ///< attentionPostNorm and ffnPostNorm on what the parts put out
  uint32_t output_scale;  ///< layerScale, a factor on the residual stream; with post_norms only
  NmGpuRecurrent recurrent;
} NmGpuLayer;

typedef struct NmGpuRope {
  uint32_t style;
  uint32_t rotary_dim;  ///< even, at most head_dim
} NmGpuRope;

typedef struct NmGpuModel {
  uint32_t hidden_size, vocab_size;
  uint32_t norm;  ///< NM_GPU_NORM_*
  float norm_eps;
  uint32_t num_ropes, num_layers;
  const NmGpuRope* ropes;
  const NmGpuLayer* layers;
  uint32_t tied_embeddings;
  float embedding_multiplier, residual_multiplier, logits_multiplier;
  float logits_softcap;  ///< 0 = none; else cap * tanh(logit / cap)
} NmGpuModel;

typedef struct NmGpuOptions {
  int32_t device;             ///< ordinal
  uint32_t max_step_tokens;   ///< over all sequences of a step
  uint32_t max_logit_rows;    ///< of a step
  uint32_t kv_dtype;          ///< KvDType; Q8_0 is not supported by the GPU kernels
  uint64_t vram_limit_bytes;  ///< the context never holds more; 0 = what the device has free
  uint64_t staging_bytes;     ///< pinned ring for transfers from memory that is not registered; 0 = 16 MiB
  int32_t timing;             ///< 1: record the spans that take_events gives
} NmGpuOptions;

/// A matrix [rows][cols] as kernels/ops.h packs it; col_begin as given to pack (superblock formats).
typedef struct NmGpuMatrix {
  const void* data;
  uint64_t size_bytes;
  uint32_t rows, cols;
  uint32_t dtype;
  uint32_t col_begin;
} NmGpuMatrix;

/// One slice of an expert: rows [begin, begin + n) of gate and up, the same columns of down.
typedef struct NmGpuExpertSlice {
  NmGpuMatrix gate, up, down;
} NmGpuExpertSlice;

/// An expert as its slices over the units' ranks, in order; together they cover intermediate_size exactly
/// once.
typedef struct NmGpuExpert {
  uint32_t layer, expert;
  uint32_t num_slices;  ///< 1 .. 64; slices without rows are left out
  const NmGpuExpertSlice* slices;
} NmGpuExpert;

typedef struct NmGpuSequence {
  uint32_t count;           ///< tokens of this step; rows follow the order of sequences
  uint32_t first_position;  ///< of the first of them
  uint32_t num_blocks;      ///< KV blocks covering first_position + count positions
  const uint32_t* blocks;
  uint32_t logit_rows;  ///< of the last tokens, 0 .. count
  // Where the model has states; slots that are written are no other sequence's:
  uint32_t state_source;  ///< slot with the state before the first token; read unless first_position is 0
  uint32_t state_target;  ///< slot that gets the state after the last token
} NmGpuSequence;

typedef struct NmGpuStep {
  uint32_t num_sequences;
  const NmGpuSequence* sequences;
  uint32_t num_tokens;  ///< sum of the counts
  const int32_t* token_ids;
  const float* const* cos;  ///< per rope set of the model [num_tokens][rotary_dim / 2]
  const float* const* sin;
} NmGpuStep;

/// Routing of one layer in pinned host memory, valid until the next run_attention, run_logits or begin_step;
/// rows are ascending by id.
typedef struct NmGpuRouting {
  const int32_t* topk_ids;    ///< [T][K]
  const float* topk_weights;  ///< [T][K]
  const float* hidden;        ///< [T][hidden_stride] normalised input of the experts, for the NDP units
  uint32_t hidden_stride;     ///< floats between tokens, at least H
  uint32_t tokens, top_k;
} NmGpuRouting;

/// The GPU's share of a layer, in the order of computing. Each expert's slot holds it or is being filled with
/// it by a transfer submitted before; the device waits for those, not the host.
typedef struct NmGpuExperts {
  uint32_t layer;
  uint32_t count;
  uint32_t num_resident;  ///< the first of them are computed together; others as they arrive
  const int32_t* expert_ids;
  const int32_t* slots;
} NmGpuExperts;

typedef struct NmGpuLogits {
  uint32_t rows, vocab_size;
  const float* logits;  ///< [rows][vocab_size], pinned; valid until the next begin_step
} NmGpuLogits;

typedef struct NmGpuMemory {
  uint64_t weight_bytes, kv_bytes, state_bytes, slot_bytes, activation_bytes;  ///< held in device memory
  uint64_t pinned_bytes;                                                       ///< of host memory held
  uint64_t free_bytes;                                                         ///< of the device, now
} NmGpuMemory;

/// How decode is submitted: as CUDA graphs, or call by call where `off` says why.
typedef struct NmGpuGraphs {
  uint64_t replays;  ///< graphs launched so far
  uint32_t held;     ///< graphs that are ready to be launched again
  char off[256];     ///< "" while graphs are captured and launched
} NmGpuGraphs;

enum { NM_GPU_LANE_COMPUTE = 0, NM_GPU_LANE_COPY = 1 };
enum {
  NM_GPU_EVENT_ATTENTION = 0,
  NM_GPU_EVENT_EXPERTS = 1,
  NM_GPU_EVENT_TRANSFER = 2,
  NM_GPU_EVENT_LOGITS = 3,
  NM_GPU_EVENT_SHARED_EXPERT = 4
};

/// A stretch of work on the device; experts have one span for those computed together.
typedef struct NmGpuEvent {
  uint32_t lane, kind;
  int32_t layer;
  double start_us, end_us;
  uint64_t bytes;  ///< of a transfer
} NmGpuEvent;

/// Faults that the emulated backend can be told to produce.
enum {
  NM_GPU_FAULT_NONE = 0,
  NM_GPU_FAULT_ALLOCATION = 1,         ///< the n-th device allocation fails, once
  NM_GPU_FAULT_PINNED_ALLOCATION = 2,  ///< the n-th pinned allocation or registration fails, once
  NM_GPU_FAULT_COPY = 3,               ///< the n-th copy fails when it runs; sticky, as on a device
  NM_GPU_FAULT_LAUNCH = 4,             ///< the n-th launch is refused
  NM_GPU_FAULT_KERNEL = 5,             ///< the n-th kernel fails when it runs; sticky
  NM_GPU_FAULT_DEVICE_LOST = 6,        ///< the device is gone from the n-th operation of any kind on; sticky
  NM_GPU_FAULT_GRAPH = 7,              ///< the n-th capture, instantiation or launch of a graph is refused
};

typedef struct NmGpuBackend {
  uint32_t abi;       ///< NM_GPU_ABI
  const char* name;   ///< "cuda" or "emulated"
  const char* build;  ///< toolkit and targets the library was built with, for reports

  /// Counts usable devices and describes the first `capacity` of them. OK with 0 devices never happens: that
  /// is NO_DRIVER, DRIVER_TOO_OLD or NO_DEVICE, with a message that says what would mend it.
  NmGpuCode (*probe)(NmGpuDevice* devices, uint32_t capacity, uint32_t* count, NmGpuError* error);

  /// Makes a context with its streams, activation buffers and pinned memory. `model` is copied.
  NmGpuCode (*create)(const NmGpuOptions* options, const NmGpuModel* model, NmGpuContext** context,
                      NmGpuError* error);
  /// Waits for what is under way and frees everything; null is allowed; works after a sticky error.
  void (*destroy)(NmGpuContext* context);
  /// The context's last failure; stays until the next one. Never null.
  const NmGpuError* (*last_error)(const NmGpuContext* context);

  // Loading. Matrices and vectors are copied before the call returns.
  /// A dense matrix (query, key, value, output, router, gate ... lmHead). layer is -1 where the role has
  /// none.
  NmGpuCode (*upload_matrix)(NmGpuContext* context, uint32_t role, int32_t layer, const NmGpuMatrix* matrix);
  /// The matrices of a latent layer's heads (keyUp, valueUp), all of one format.
  NmGpuCode (*upload_heads)(NmGpuContext* context, uint32_t role, int32_t layer, const NmGpuMatrix* heads,
                            uint32_t count);
  /// A norm weight, a bias, sinks or the shared expert's gate; the biases of a layer's experts one behind the
  /// other.
  NmGpuCode (*upload_vector)(NmGpuContext* context, uint32_t role, int32_t layer, const float* values,
                             uint32_t count);
  /// Checks that all dense weights are there; INVALID_ARGUMENT names the first missing one.
  NmGpuCode (*finish_upload)(NmGpuContext* context);
  /// KV blocks of kKvBlockTokens positions over all layers; OUT_OF_MEMORY where they do not fit.
  NmGpuCode (*allocate_kv)(NmGpuContext* context, uint32_t blocks);
  /// Slots for the states of sequences, each over all layers that have one; before the first step of such a
  /// model.
  NmGpuCode (*allocate_states)(NmGpuContext* context, uint32_t slots);
  /// VRAM slots for experts of at most `slot_bytes`; gets fewer than asked where memory ends, which is no
  /// failure.
  NmGpuCode (*allocate_slots)(NmGpuContext* context, uint32_t wanted, uint64_t slot_bytes, uint32_t* got);

  /// Lets transfers read [data, data + size_bytes) directly; the memory must outlive the context. Memory that
  /// cannot be registered (UNSUPPORTED) still works, through the staging ring.
  NmGpuCode (*register_host)(NmGpuContext* context, const void* data, uint64_t size_bytes);
  /// Pinned host memory that the GPU reads in add_partial; freed with the context.
  NmGpuCode (*allocate_host)(NmGpuContext* context, uint64_t size_bytes, void** data);

  // A step.
  /// Checks and uploads the step, embeds its tokens. A step under way is given up; a later step writes the KV
  /// positions and state slots that it wrote again.
  NmGpuCode (*begin_step)(NmGpuContext* context, const NmGpuStep* step);
  /// Starts attention and, for a MoE layer, the router; for a dense layer also its feed-forward block. Layers
  /// in order.
  NmGpuCode (*run_attention)(NmGpuContext* context, uint32_t layer);
  /// Blocks until the layer's routing is in host memory: the one synchronisation of a layer.
  NmGpuCode (*wait_routing)(NmGpuContext* context, uint32_t layer, NmGpuRouting* routing);
  /// Starts the shared expert and the given experts; their weighted outputs join the residual stream.
  NmGpuCode (*submit_experts)(NmGpuContext* context, const NmGpuExperts* experts);
  /// Adds one NDP partial sum [T][H] (already weighted by the router) to the residual stream, after
  /// submit_experts, in the order of the calls. `partial` lies in memory of allocate_host and must stay
  /// unchanged until the next wait_routing or wait_logits.
  NmGpuCode (*add_partial)(NmGpuContext* context, uint32_t layer, const float* partial);
  /// Starts final norm and lm_head for the rows that the step asked for.
  NmGpuCode (*run_logits)(NmGpuContext* context);
  NmGpuCode (*wait_logits)(NmGpuContext* context, NmGpuLogits* logits);

  // Transfers. Order: as submitted; the device waits for readers of the slot to finish.
  /// Copies (or, with unified memory, hands over) an expert into a slot. The slices stay unchanged and mapped
  /// until the transfer is complete; with unified memory until the slot gets another expert.
  NmGpuCode (*transfer)(NmGpuContext* context, uint32_t slot, const NmGpuExpert* expert);
  /// Slots whose transfer completed since the last call.
  NmGpuCode (*completed_transfers)(NmGpuContext* context, int32_t* slots, uint32_t capacity, uint32_t* count);

  // Looking in.
  NmGpuCode (*memory)(NmGpuContext* context, NmGpuMemory* memory);
  NmGpuCode (*graphs)(NmGpuContext* context, NmGpuGraphs* graphs);
  /// Microseconds that each of `count` experts takes with `tokens` tokens, computed together. The slots hold
  /// them; ends a step under way.
  NmGpuCode (*measure_experts)(NmGpuContext* context, uint32_t layer, uint32_t tokens, const int32_t* slots,
                               uint32_t count, double* us);
  /// Waits for all transfers submitted.
  NmGpuCode (*drain_transfers)(NmGpuContext* context);
  /// Takes up to `capacity` finished spans, oldest first.
  NmGpuCode (*take_events)(NmGpuContext* context, NmGpuEvent* events, uint32_t capacity, uint32_t* count);

  /// Emulated backend only, else null: fault `kind` at the n-th (from 1) operation of its kind from now on,
  /// in this process. NEARMOE_GPU_FAULT=<kind>:<n> does the same from the start.
  void (*inject_fault)(int32_t kind, uint64_t n);
  /// Emulated backend only, else null: 1 once the fault asked for last has come.
  int32_t (*fault_struck)(void);
} NmGpuBackend;

/// The backend's table, or null where it speaks another ABI than `abi`.
const NmGpuBackend* nm_gpu_open(uint32_t abi);
typedef const NmGpuBackend* (*NmGpuOpen)(uint32_t abi);

#ifdef __cplusplus
}  // extern "C"
#endif
