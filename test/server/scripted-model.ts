/**
 * A model whose answers the test writes by hand: for limits, heartbeats and shutdown, where the moment of each part
 * matters. Generations are the engine's own. For the tests of this folder.
 */
import { Generation } from '../../src/engine/generation.js';
import type { EngineStats, GenerateResult, PlanReport } from '../../src/llm.js';
import type { ChatOptions } from '../../src/options.js';
import type { ServableModel } from '../../src/server/answers.js';
import { createServer, type InferenceServer } from '../../src/server/server.js';
import type { ServerOptions } from '../../src/server/server-options.js';
import { info, result } from '../unit/cli/fake-model.js';

export type Running = {
  options: ChatOptions;
  prompt: unknown;
  cancelled: boolean;
  /** The prompt has opened the reasoning. */
  openReasoning(): void;
  push(text: string): void;
  prefill(doneTokens: number, totalTokens: number): void;
  finish(finishReason?: GenerateResult['finishReason']): void;
  fail(error: unknown): void;
};

const totals = {
  sequences: 3,
  promptTokens: 40,
  generatedTokens: 10,
  devices: result.devices,
  experts: result.experts,
};

export const stats: EngineStats = {
  upMs: 5000,
  requests: { running: 1, waiting: 0 },
  kvBlocks: { total: 64, free: 48, tokensPerBlock: 16 },
  total: totals,
  recent: { windowMs: 2000, ...totals },
  batchSizes: [0, 2, 1],
  moeLayers: [0, 1],
  numExperts: 4,
  expertTokens: Float64Array.of(1, 2, 3, 4, 5, 6, 7, 8),
  residents: [{ layer: 1, expert: 2 }],
  timeline: [],
};

export class ScriptedModel implements ServableModel {
  readonly info: PlanReport;
  readonly running: Running[] = [];
  /** Rejects stats(). */
  statsError: Error | undefined;

  /** `about`: what differs from the model of the command line's tests. */
  constructor(about: Partial<PlanReport> = {}) {
    this.info = { ...info, ...about };
  }

  chat(messages: unknown, options: ChatOptions = {}): Generation {
    return this.#start(messages, options);
  }

  generate(prompt: unknown, options: ChatOptions = {}): Generation {
    return this.#start(prompt, options);
  }

  async stats(): Promise<EngineStats> {
    if (this.statsError) throw this.statsError;
    return stats;
  }

  /** The generation with this number, as soon as it was asked for. */
  async started(index: number): Promise<Running> {
    for (;;) {
      const running = this.running[index];
      if (running !== undefined) return running;
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  #start(prompt: unknown, options: ChatOptions): Generation {
    let text = '';
    const finish = (finishReason: GenerateResult['finishReason'] = 'eos') =>
      generation.finish({ ...result, text, finishReason });
    const running: Running = {
      options,
      prompt,
      cancelled: false,
      openReasoning: () => generation.openReasoning(),
      push: (part) => {
        text += part;
        generation.push(part);
      },
      prefill: (doneTokens, totalTokens) =>
        generation.push('', { phase: 'prefill', doneTokens, totalTokens }),
      finish,
      fail: (error) => generation.fail(error),
    };
    const port = {
      cancel: () => {
        running.cancelled = true;
        finish('cancelled');
      },
      read: () => undefined,
    };
    const { signal, onProgress } = options;
    const generation: Generation = new Generation(port, { signal, onProgress });
    this.running.push(running);
    return generation;
  }
}

/** A server over a scripted model, asked without a socket. */
export function scriptedServer(options: ServerOptions = {}, about: Partial<PlanReport> = {}) {
  const model = new ScriptedModel(about);
  const server: InferenceServer = createServer(model, { modelName: 'm', ...options });
  const ask = (path: string, init: RequestInit = {}) =>
    server.fetch(new Request(`http://localhost${path}`, init));
  const post = (path: string, body: unknown, init: RequestInit = {}) =>
    ask(path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: typeof body === 'string' ? body : JSON.stringify(body),
      ...init,
    });
  const chat = (more: object = {}, init: RequestInit = {}) =>
    post('/v1/chat/completions', { model: 'm', messages: [{ role: 'user', content: 'hi' }], ...more }, init);
  return { model, server, ask, post, chat };
}
