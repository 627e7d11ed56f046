/**
 * The ways in which mutants.mjs breaks the kernels: one mistake each of the kinds that GPU code invites. `unit`
 * is the kernel file that is compiled where `file` is a header; `kind` the build that must notice it, ThreadSanitizer's
 * for races that no order of whole phases shows; `test` the part of a test's name that must fail.
 */

/** @typedef {{ name: string, file: string, unit?: string,
 *   kind?: import('./kernel-tests.mjs').Kind, test: string, from: string, to: string }} Mutant */

/** @type {Mutant[]} */
export const mutants = [
  {
    name: "gemv: no barrier before the warps' sums are added",
    ...{ file: 'gemv.cu', test: 'gemv' },
    from: '  store_group_sums<F, TOK>(acc, sums[warp]);\n  __syncthreads();',
    to: '  store_group_sums<F, TOK>(acc, sums[warp]);',
  },
  {
    name: 'gemv: last row left out',
    ...{ file: 'gemv.cu', test: 'gemv' },
    from: 'row >= segment.weight.rows) return;',
    to: 'row + 1 >= segment.weight.rows) return;',
  },
  {
    name: 'gemv: rows beyond the matrix are stored',
    ...{ file: 'gemv.cu', test: 'gemv' },
    from: 'if (token >= args.tokens || row >= segment.weight.rows) return;',
    to: 'if (token >= args.tokens) return;',
  },
  {
    name: 'dispatch: no order between reading and moving cursors',
    ...{ file: 'dispatch.cu', test: 'dispatch' },
    from: '    __syncwarp();\n    if (expert >= 0 && rank == 0)',
    to: '    if (expert >= 0 && rank == 0)',
  },
  {
    name: 'dispatch: rank counts the lane itself',
    ...{ file: 'dispatch.cu', test: 'dispatch' },
    from: '(1u << lane) - 1u',
    to: '(2u << lane) - 1u',
  },
  {
    name: 'dispatch: the tail of a round is read past the end',
    ...{ file: 'dispatch.cu', test: 'dispatch' },
    from: 'next = pair + 32 < pairs ?',
    to: 'next = pair < pairs ?',
  },
  {
    name: 'router: ties go to the higher expert',
    ...{ file: 'router.cu', test: 'router' },
    from: 'value == best.value && expert < best.expert',
    to: 'value == best.value && expert > best.expert',
  },
  {
    name: 'router: NaN logits are kept',
    ...{ file: 'router.cu', test: 'router' },
    from: '    if (!(v[i] == v[i])) v[i] = -INFINITY;\n',
    to: '',
  },
  {
    name: 'router: the second best of a group is forgotten when lanes meet',
    ...{ file: 'router.cu', test: 'router_selection' },
    from: 'second = fmaxf(fmaxf(second, __shfl_xor_sync(kAllLanes, second, offset)), fminf(top, other));',
    to: 'second = fmaxf(second, fminf(top, other));',
  },
  {
    name: 'router: the bias of the choice enters the weights',
    ...{ file: 'router.cu', test: 'router_selection' },
    from: 'const float logit = value_of(v, best, lane);',
    to: 'const float logit = value_of(choice, best, lane);',
  },
  {
    name: 'expert_gemv: slices take the biases of the first one',
    ...{ file: 'expert_gemv.cu', test: 'expert_gemv' },
    from: 'row = slice->first_row + own;',
    to: 'row = own;',
  },
  {
    name: 'block sum: scratch is reused without a barrier',
    ...{ file: 'reduce.cuh', unit: 'norm', test: 'norm' },
    from: '  v = warp_sum(lane < warps ? scratch[lane] : 0.0f);\n  __syncthreads();',
    to: '  v = warp_sum(lane < warps ? scratch[lane] : 0.0f);',
  },
  {
    name: 'block sum: shuffle with half of the warp in its mask',
    ...{ file: 'reduce.cuh', unit: 'norm', test: 'norm' },
    from: 'v += __shfl_xor_sync(kAllLanes, v, offset);',
    to: 'v += __shfl_xor_sync(0xffffu, v, offset);',
  },
  {
    name: 'top_k: equal keys are lost at the threshold',
    ...{ file: 'top_k.cu', test: 'top_k' },
    from: 'value != 0 && value >= threshold',
    to: 'value != 0 && value > threshold',
  },
  {
    name: 'top_k: counter of survivors is not ready',
    ...{ file: 'top_k.cu', test: 'top_k' },
    from: '  if (threadIdx.x == 0) state.taken = 0;\n  __syncthreads();',
    to: '  if (threadIdx.x == 0) state.taken = 0;',
  },
  {
    name: 'combine: pairs without a slot are added',
    ...{ file: 'combine.cu', test: 'expert_gemm' },
    from: '    if (!view_of(args.pairs, pair)) continue;\n',
    to: '',
  },
  {
    name: 'rope_kv_write: the second value turns the wrong way',
    ...{ file: 'rope_kv_write.cu', test: 'rope_kv_write' },
    from: 'put(j, __fadd_rn(__fmul_rn(b, turn.x), __fmul_rn(a, turn.y)));',
    to: 'put(j, __fadd_rn(__fmul_rn(b, turn.x), -__fmul_rn(a, turn.y)));',
  },
  {
    name: 'rope_kv_write: padding of the head is left unwritten',
    ...{ file: 'rope_kv_write.cu', test: 'rope_kv_write' },
    from: '    if (i >= args.head_dim) store_kv<K>(block, slot + i, 0.0f);\n',
    to: '',
  },
  {
    name: 'attention_decode: sliding window begins one key early',
    ...{ file: 'kv_pool.cuh', unit: 'attention_decode', test: 'attention_decode' },
    from: 'position + 1 > window ? position + 1 - window : 0',
    to: 'position + 1 > window ? position - window : 0',
  },
  {
    name: 'attention_decode: scores of the next block overwrite weights in use',
    ...{ file: 'attention_decode.cu', kind: 'thread', test: 'attention_decode' },
    from: '    }\n    __syncwarp();\n  }\n  for (int h = 0; h < heads; ++h) {',
    to: '    }\n  }\n  for (int h = 0; h < heads; ++h) {',
  },
  {
    name: 'attention_prefill: keys of the chunk before are seen',
    ...{ file: 'kv_pool.cuh', unit: 'attention_prefill', test: 'attention_prefill' },
    from: 'return chunk > 0 ? max(first, position / chunk * chunk) : first;',
    to: 'return chunk > 0 ? min(first, position / chunk * chunk) : first;',
  },
  {
    name: 'norm_add: what is to be overwritten is added to',
    ...{ file: 'norm.cu', test: 'norm_add' },
    from: 'args.overwrite ? 0.0f : out[i]',
    to: 'out[i]',
  },
  {
    name: 'latent_write: the norm divides by the width of the whole row',
    ...{ file: 'latent_write.cu', test: 'latent_write' },
    from: 'static_cast<float>(args.value_dim) + args.eps',
    to: 'static_cast<float>(args.latent_dim) + args.eps',
  },
  {
    name: 'latent_attention: a key too many is seen',
    ...{ file: 'latent_attention.cu', test: 'latent_attention' },
    from: 'first + key <= rows.position[r]',
    to: 'first + key <= rows.position[r] + 1',
  },
  {
    name: 'latent_attention: parts are added without regard to their largest scores',
    ...{ file: 'latent_attention.cu', test: 'latent_attention' },
    from: 'sum += parts[s * size + d] * shift_factor(parts[s * size + a.value_dim], top);',
    to: 'sum += parts[s * size + d];',
  },
  {
    name: 'latent_attention: a row forgets by how much its queries were brought into range',
    ...{ file: 'latent_tile.cuh', unit: 'latent_attention', test: 'latent_attention' },
    from: 'a.scale * range.y',
    to: 'a.scale',
  },
  {
    name: 'latent_attention: latents are used before their copies have landed',
    ...{ file: 'latent_attention.cu', test: 'latent_attention' },
    from: 'cp_async_wait<0>();',
    to: 'cp_async_wait<1>();',
  },
  {
    name: 'latent_attention: no barrier between scores and softmax',
    ...{ file: 'latent_attention.cu', test: 'latent_attention' },
    from: 'scores[warp >> 1] + kRows * group);\n    __syncthreads();',
    to: 'scores[warp >> 1] + kRows * group);',
  },
  {
    name: 'expert_gemv: half of the gate is left out',
    ...{ file: 'expert_gemv.cu', test: 'expert_gemv' },
    from: 'const float gate = scale * (sums[g][r] + sums[g + 4][r])',
    to: 'const float gate = scale * sums[g][r]',
  },
  {
    name: 'gemm: the last stage is used before its copies have landed',
    ...{ file: 'gemm_core.cuh', unit: 'gemm', test: 'gemm' },
    from: '      cp_async_wait<0>();',
    to: '      cp_async_wait<1>();',
  },
  {
    name: 'gemm: no barrier between the copies of all threads and their use',
    ...{ file: 'gemm_core.cuh', unit: 'gemm', kind: 'thread', test: 'gemm' },
    from: '      cp_async_wait<0>();\n    }\n    __syncthreads();',
    to: '      cp_async_wait<0>();\n    }',
  },
  {
    name: 'gemm: no barrier before a stage is loaded over',
    ...{ file: 'gemm_core.cuh', unit: 'gemm', kind: 'thread', test: 'gemm' },
    from: '    }\n    __syncthreads();\n  }\n}',
    to: '    }\n  }\n}',
  },
  {
    name: 'causal_conv: the first token writes the state, not the last one',
    ...{ file: 'causal_conv.cu', test: 'causal_conv' },
    from: 'if (at + 1 < static_cast<int>(sequence.count)) return;',
    to: 'if (at > 0) return;',
  },
  {
    name: 'gated_delta: tokens are overwritten that are still read',
    ...{ file: 'gated_delta.cu', test: 'gated_delta' },
    from: '    __syncthreads();  // the tokens before are done with\n',
    to: '',
  },
  {
    name: "gated_delta: half of a column's lanes are left out",
    ...{ file: 'gated_delta.cu', test: 'gated_delta' },
    from: 'offset < kParts; offset *= 2',
    to: 'offset < kParts / 2; offset *= 2',
  },
  {
    name: 'gated_delta: what the key remembers is not faded',
    ...{ file: 'gated_delta.cu', test: 'gated_delta' },
    from: 'fmaf(-ready.decay, by_key, ready.v[column])',
    to: 'ready.v[column] - by_key',
  },
  {
    name: 'gated_norm: the gate of the token before',
    ...{ file: 'gated_norm.cu', test: 'gated_norm' },
    from: 'args.gate + static_cast<size_t>(token) * args.gate_stride',
    to: 'args.gate + static_cast<size_t>(token / 2) * args.gate_stride',
  },
  {
    name: 'prepare: the gate is taken for its negative',
    ...{ file: 'prepare.cu', test: 'prepare_gated' },
    from: 'expf(-args.gate[',
    to: 'expf(args.gate[',
  },
  {
    name: 'attention_decode: the second half of wide keys is left out',
    ...{ file: 'attention_decode.cu', test: 'attention_decode' },
    from: 'dot = fmaf(q[h][(piece * kLanesOfKey + part) * 8 + i], k[piece][i], dot);',
    to: 'dot = piece ? dot : fmaf(q[h][part * 8 + i], k[0][i], dot);',
  },
  {
    name: 'attention_wide: values are loaded over keys in use',
    ...{ file: 'attention_wide.cu', test: 'attention_prefill' },
    from: 'lane, scores[warp >> 1]);\n    __syncthreads();',
    to: 'lane, scores[warp >> 1]);',
  },
  {
    name: 'attention_wide: heads beyond 16 of a KV head begin anew',
    ...{ file: 'attention_wide.cu', test: 'attention_prefill' },
    from: 'first_head = kv_head * group + static_cast<int>(blockIdx.z) * kRows;',
    to: 'first_head = kv_head * group;',
  },
];
