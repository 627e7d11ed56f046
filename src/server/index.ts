/** The public names of `nearmoe/server` and nothing else. What they do is told where they are defined. */
export type { ServableModel } from './answers.js';
export { createServer, type InferenceServer } from './server.js';
export type { ServerOptions } from './server-options.js';
